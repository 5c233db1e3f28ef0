//! What a handler implements, and what it says when a task is done.

use crate::{Call, Failure, Host, Task};
use serde::de::DeserializeOwned;

/// One handler: made once per plugin host, then given one task after another on the host's one main thread
/// (so it needs no `Send`). Export it with [`export_plugin!`](crate::export_plugin).
pub trait Handler: Sized + 'static {
    /// The operator's `[handlers.NAME.settings]`. Derive `Deserialize` with `#[serde(deny_unknown_fields)]`,
    /// so that a misspelt key is an error with its name, and give defaults where sensible. [`NoSettings`] if
    /// there are none.
    type Settings: DeserializeOwned;

    /// Checks the settings and makes the handler. The failure's text is shown to the operator; nothing runs
    /// then. A new configuration is tried while the old one still runs, so do not expect to be alone.
    fn new(settings: Self::Settings, host: &Host) -> Result<Self, Failure>;

    /// Does one task. It may run again for the same task ([`Task::id`], [`Task::attempt`],
    /// [`Task::redelivered`]): effects should bear that. Look at [`Call::check`] between steps; when the task
    /// should stop and does not within the grace, its process and all its children are killed. A panic costs
    /// this task an attempt and the host its life, nothing else.
    fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome;

    /// Before the handler is dropped, when no task runs: ends threads, flushes. Bounded by the call's
    /// deadline.
    fn quiesce(&mut self, _call: &Call<'_>) {}
}

/// What a handler says of a task.
pub type Outcome = Result<Done, Failure>;

/// Settings of a handler that has none: any key is an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// The task is done, with a result if there is something to say: a few KiB for the log and for people, at
/// most [`crate::abi::MAX_RESULT_BYTES`]. The artefact itself belongs in a file or a store. What is longer is left out
/// with a warning in the log; the task stays done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    content_type: String,
    body: Vec<u8>,
}

impl Done {
    /// Done, nothing to say.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Done, with a line for people (`text/plain`).
    pub fn text(text: impl Into<String>) -> Self {
        Self::body("text/plain", text.into())
    }

    /// Done, with a value as JSON (`application/json`). For a value that has no JSON form (a map with keys that are no
    /// text) a line of text says so; the task stays done. Never an error; an [`Outcome`] for the end of a handler.
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, Failure> {
        Ok(match serde_json::to_vec(value) {
            Ok(body) => Self::body("application/json", body),
            Err(error) => Self::text(format!("the result has no JSON form: {error}")),
        })
    }

    /// Done, with bytes of a MIME type.
    pub fn body(content_type: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { content_type: content_type.into(), body: bytes.into() }
    }

    /// The MIME type; empty when there is no result.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The result's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The result as text, for tests and logs; bytes that are not UTF-8 are replaced.
    pub fn as_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}
