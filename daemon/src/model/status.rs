//! What crosses the control socket, as JSON. `started_ms` and `at_ms` are moments in milliseconds since
//! the Unix epoch, every other `_ms` is a length of time. No field ever holds a credential.

mod answers;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::answers::{
    CancelReply, CancelledTask, CancelledWhile, ErrorReply, HandlerChange, PauseReply, ReloadReply,
    ReloadRow, RouteReply,
};
use super::words::words;

words! {
    /// What the daemon does.
    DaemonState {
        /// It has not given READY yet.
        Starting = "starting",
        /// It takes tasks.
        Running = "running",
        /// It finishes what runs and ends.
        Draining = "draining",
    }
}

words! {
    /// How the connections to the broker stand.
    BrokerState {
        /// There is none.
        Connecting = "connecting",
        /// Both are up.
        Connected = "connected",
        /// Tasks are consumed, and no copy can be sent.
        NotPublishing = "not publishing",
        /// The broker takes no copies at the moment.
        Blocked = "blocked",
    }
}

words! {
    /// What is done with a queue.
    QueueState {
        /// It is not consumed: the broker is away, or refuses it.
        Away = "away",
        /// It is consumed.
        Consuming = "consuming",
        /// An operator paused it.
        Paused = "paused",
        /// The daemon ends.
        Draining = "draining",
        /// All that it may hold are tasks that cannot be settled.
        Stuck = "stuck",
        /// What it delivers ends the connection.
        Quarantined = "quarantined",
    }
}

words! {
    /// Whether a handler is given tasks.
    HandlerState {
        /// It is.
        Active = "active",
        /// Its hosts do not start.
        Failing = "failing",
        /// Its hosts keep dying.
        Suspended = "suspended",
        /// Its tasks fail almost always.
        Resting = "resting",
        /// An operator paused it.
        Paused = "paused",
    }
}

/// `GET /v1/status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// Warren's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When it started.
    pub started_ms: u64,
    /// What it does.
    pub state: DaemonState,
    /// Whether every configured queue is being consumed, and none is stuck.
    pub ready: bool,
    /// The broker link.
    pub broker: BrokerStatus,
    /// Every configured queue.
    pub queues: Vec<QueueStatus>,
    /// Every handler.
    pub handlers: Vec<HandlerStatus>,
    /// Reloads since start that put everything in force, and those that did not.
    #[serde(default)]
    pub reloads: (u64, u64),
    /// Log lines lost since start because the log was too slow.
    #[serde(default)]
    pub log_lines_lost: u64,
    /// Why no plugin host can be started on this machine, if so.
    #[serde(default)]
    pub machine_fault: Option<String>,
    /// The last reload, if there was one.
    pub last_reload: Option<ReloadReply>,
    /// The newest errors, newest first, at most 16.
    pub last_errors: Vec<RecentError>,
}

/// The broker link.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// How it stands.
    pub state: BrokerState,
    /// Host, port and vhost of the broker in use, without credentials.
    pub address: String,
    /// Product and version, as the broker gives them.
    pub server: String,
    /// Links opened since start.
    pub connects: u64,
    /// Why the last link ended.
    pub last_error: Option<String>,
}

/// One queue.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QueueStatus {
    pub name: String,
    /// What is done with it.
    pub state: QueueState,
    /// Why it is not consumed, and what to do, when it is quarantined.
    #[serde(default)]
    pub held: Option<String>,
    /// Configured prefetch.
    pub prefetch: u16,
    /// Configured workers.
    pub workers: u16,
    /// Tasks running now.
    pub running: usize,
    /// Deliveries held and not running.
    pub waiting: usize,
    /// Tasks that wait for their settlement to be confirmed.
    pub settling: usize,
    /// Of the tasks that settle: those that have waited for long, and why the last one does.
    #[serde(default)]
    pub unsettled: Option<Unsettled>,
    /// What its delay queues do that they should not, seen within the last hour.
    #[serde(default)]
    pub delays: Option<String>,
    /// How long tasks waited here from their delivery to their start.
    #[serde(default)]
    pub waits: Histogram,
    /// Totals since start.
    pub counts: Counts,
    /// What is remembered of its finished tasks, when `deduplicate` is set.
    #[serde(default)]
    pub deduplication: Option<Deduplication>,
}

/// Tasks of a queue that cannot be settled.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Unsettled {
    pub tasks: u64,
    /// Why, with the remedy.
    pub why: String,
}

/// What a queue remembers of its finished tasks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Deduplication {
    /// For how long, at least.
    pub window_ms: u64,
    pub tasks: u64,
    /// Why they are in memory only, if so: the end of the daemon forgets them.
    pub fault: Option<String>,
}

/// Totals since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Deliveries taken from the broker.
    pub delivered: u64,
    /// Outcome done, acknowledged.
    pub done: u64,
    /// Copies put on a delay queue.
    pub retried: u64,
    /// Copies put on the dead queue.
    pub dead: u64,
    /// Of the dead letters: those whose time was up before they could start.
    #[serde(default)]
    pub expired: u64,
    /// Given back to the broker un-counted.
    pub requeued: u64,
    /// Outcomes that were a fault.
    pub faults: u64,
    /// Parked for a while, un-counted, because their handler was given no tasks.
    #[serde(default)]
    pub parked: u64,
    /// Acknowledged without a run, because the task was done before.
    #[serde(default)]
    pub deduplicated: u64,
}

/// Upper bounds of a [`Histogram`]'s buckets, in seconds: from a task that costs nothing to one of an hour.
pub const BUCKETS_S: [f64; 15] =
    [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// Spans of time since start, counted by length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many were at most as long as the bound of the same index in [`BUCKETS_S`] and longer than the one before; the
    /// last one counts the longer ones.
    pub counts: [u64; BUCKETS_S.len() + 1],
    /// All of them together, in seconds.
    pub sum_s: f64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, span: Duration) {
        let seconds = span.as_secs_f64();
        let bucket = BUCKETS_S.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS_S.len());
        self.counts[bucket] += 1;
        self.sum_s += seconds;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// One handler.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HandlerStatus {
    pub name: String,
    /// The plugin behind it.
    pub plugin: String,
    /// The plugin's version.
    pub plugin_version: String,
    /// The plugin's file.
    pub path: String,
    /// SHA-256 of what runs.
    pub sha256: String,
    /// Generation number.
    pub generation: u64,
    /// Whether it is given tasks.
    pub state: HandlerState,
    /// Why it is given no tasks, when it is given none.
    #[serde(default)]
    pub held: Option<String>,
    /// In how many milliseconds that ends by itself; absent when only an operator ends it.
    #[serde(default)]
    pub held_for_ms: Option<u64>,
    /// Prefixes.
    pub prefixes: Vec<String>,
    /// Queues it is narrowed to; empty: all.
    pub queues: Vec<String>,
    /// Its own cap on tasks at once; 0: none.
    pub workers: u16,
    /// Its share of the workers, against other handlers that have tasks waiting in the same queue.
    #[serde(default)]
    pub weight: u16,
    /// Between which tasks of the handler its share is shared, as configured.
    #[serde(default)]
    pub fair_by: Option<String>,
    /// Which of its tasks never run at once, as configured.
    #[serde(default)]
    pub exclusive_by: Option<String>,
    /// How many of its tasks may start in a time, as configured, and how many at once.
    #[serde(default)]
    pub rate: Option<(String, u32)>,
    /// Soft time limit in milliseconds.
    pub timeout_ms: u64,
    /// Tasks running now.
    pub running: usize,
    /// Tasks that wait for a worker or a host.
    pub waiting: usize,
    /// Process ids of its hosts, of this and older generations.
    pub hosts: Vec<u32>,
    /// How long its tasks took, whatever their outcome.
    #[serde(default)]
    pub durations: Histogram,
    /// Totals since start.
    pub counts: Counts,
    /// Its newest error.
    pub last_error: Option<String>,
}

/// One error that an operator may want to see.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RecentError {
    pub at_ms: u64,
    /// The handler, when it concerns one.
    pub handler: Option<String>,
    /// The task, when it concerns one.
    pub task_id: Option<String>,
    /// One line.
    pub message: String,
}

/// `GET /v1/active`: one running task.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ActiveTask {
    pub id: String,
    pub queue: String,
    pub handler: String,
    /// The generation it started on.
    pub generation: u64,
    /// Attempt, from 1.
    pub attempt: u32,
    /// The beginning of its body, at most 80 characters.
    pub text: String,
    /// For how long it has been running.
    pub running_ms: u64,
    /// Its time limit.
    pub timeout_ms: u64,
    /// Process id of its host.
    pub pid: u32,
    /// Progress, 0 to 1000, when the handler reported any.
    pub permille: Option<u32>,
    /// The handler's last note.
    pub note: Option<String>,
}
