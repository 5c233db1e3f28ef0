//! What requests that change something, or ask about one task, are answered.

use serde::{Deserialize, Serialize};

use crate::model::words::words;

words! {
    /// What a reload did to a handler.
    HandlerChange {
        /// It runs on as it was.
        Unchanged = "unchanged",
        /// It is new.
        Added = "added",
        /// A new generation took over.
        Replaced = "replaced",
        /// It is not configured any more.
        Removed = "removed",
        /// A plugin that needs a table of its own.
        Unused = "unused",
        /// The new one failed, the old one runs.
        Kept = "kept",
        /// It failed, and there was none before.
        Refused = "refused",
    }
}

words! {
    /// How far a task was that an operator cancelled.
    CancelledWhile {
        /// It was dead-lettered without a start.
        Waiting = "waiting",
        /// It was asked to stop, and is killed after its handler's `grace`.
        Running = "running",
    }
}

/// `POST /v1/reload`: what a reload did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReloadReply {
    /// Everything asked for is in force.
    pub ok: bool,
    /// When it ended.
    pub at_ms: u64,
    /// Why nothing changed at all (a bad config file, an unreadable plugins directory).
    pub error: Option<String>,
    /// One row per handler.
    pub handlers: Vec<ReloadRow>,
}

/// What a reload did to one handler.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReloadRow {
    /// The handler's name.
    pub handler: String,
    pub change: HandlerChange,
    /// The generation now in force; 0: none.
    pub generation: u64,
    /// Why it was kept or refused.
    pub error: Option<String>,
}

/// `POST /v1/route` answers this; the request body is the task's text, `?queue=` and `?type=` narrow it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RouteReply {
    /// The handler; `None`: the task would be dead-lettered as `unroutable`.
    pub handler: Option<String>,
    /// The prefix that matched.
    pub prefix: Option<String>,
    /// The task's argument text.
    pub argument: Option<String>,
    /// Why, in a sentence or two.
    pub why: String,
}

/// `POST /v1/pause`, `POST /v1/resume`, with `?queue=` or `?handler=`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PauseReply {
    /// The queue or handler.
    pub name: String,
    /// Its state now, as `status` shows it.
    pub state: String,
}

/// `POST /v1/cancel?task=`: what was cancelled.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CancelReply {
    /// One row per delivery of that task: its queue, handler, and whether it was `running` or `waiting`.
    pub cancelled: Vec<CancelledTask>,
}

/// One cancelled task.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CancelledTask {
    pub id: String,
    pub queue: String,
    pub handler: String,
    /// How far it was.
    pub was: CancelledWhile,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ErrorReply {
    /// What went wrong and what to do.
    pub error: String,
}
