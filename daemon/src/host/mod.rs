//! Both ends of the plugin host protocol. The daemon side spawns and supervises; the child side (`run`) loads
//! exactly one plugin and runs one task at a time. The frames between them are private: both ends are always
//! the same executable.

use std::time::Duration;

/// Identifies one plugin host within this daemon; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u64);

/// Numbers the tasks given to one host, from 1.
pub type Seq = u64;

/// A task as it is written to a host; everything is borrowed, nothing is copied but into the socket's buffer.
#[derive(Debug, Clone, Copy)]
pub struct HostTask<'a> {
    /// The task's number on this host.
    pub seq: Seq,
    /// Attempt, from 1.
    pub attempt: u32,
    /// The broker delivered it before.
    pub redelivered: bool,
    /// The id is ours: the producer gave none.
    pub id_generated: bool,
    /// The task's id.
    pub id: &'a str,
    /// The queue it came from.
    pub queue: &'a str,
    /// The prefix that matched.
    pub prefix: &'a str,
    /// What follows the prefix, trimmed.
    pub argument: &'a str,
    /// AMQP `content_type`; empty when absent.
    pub content_type: &'a str,
    /// AMQP headers; values that are not strings as JSON.
    pub headers: &'a [(String, String)],
    /// The whole body.
    pub body: &'a [u8],
    /// Time limit, counted by the host from when it starts this task.
    pub timeout: Duration,
}

/// What the handler said of one task.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Finished.
    Done,
    /// Try again later.
    Retry,
    /// Never try again.
    Reject,
    /// It stopped because it was asked to.
    Cancelled,
    /// Panic, oversize output, unknown status, or the host died: the error says which.
    Fault,
}

/// `set_error` of a call, or the host's own words for a fault. Bounded by the host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskError {
    /// Short machine-readable code, e.g. `timeout`, `panic`, `crash`, or the handler's own.
    pub code: String,
    /// One line for people.
    pub message: String,
    /// The handler's own wish for the delay before the next attempt.
    pub retry_after: Option<Duration>,
}

/// `set_result` of a call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskResult {
    /// MIME type.
    pub content_type: String,
    /// The bytes.
    pub body: Vec<u8>,
}

/// A follow-up task that a handler published during a call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FollowUp {
    /// Message id; empty: `<task id>/<n>`.
    pub id: String,
    /// Queue; empty: the task's own.
    pub queue: String,
    /// AMQP `type`; empty: none.
    pub message_type: String,
    /// AMQP `content_type`; empty: none.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
    /// String headers.
    pub headers: Vec<(String, String)>,
    /// Delay before it becomes visible; zero: none.
    pub delay: Duration,
    /// AMQP expiration; zero: none.
    pub expires: Duration,
    /// AMQP priority; negative: none.
    pub priority: i32,
}

/// All that a host reports of one finished task.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Which task.
    pub seq: Seq,
    /// What the handler said.
    pub outcome: Outcome,
    /// Its error, when it set one or faulted.
    pub error: Option<TaskError>,
    /// Its result, when it set one.
    pub result: Option<TaskResult>,
    /// Its follow-ups; to be sent only when the outcome is done.
    pub follow_ups: Vec<FollowUp>,
    /// How long `handle` took.
    pub duration: Duration,
}

/// What a host tells the daemon.
#[derive(Debug)]
pub enum HostEvent {
    /// `create` succeeded; the host takes tasks. (Tasks may be sent before; they wait in the socket.)
    Ready,
    /// A task ended.
    Report(Box<Report>),
    /// The running task reported progress (at most a few a second pass).
    Progress {
        /// Which task.
        seq: Seq,
        /// 0 to 1000.
        permille: u32,
        /// One line.
        note: String,
    },
    /// The plugin's own log line; the engine adds the task and writes it.
    Log {
        /// The running task; 0 when none was (create, a plugin's thread).
        seq: Seq,
        /// As the ABI numbers levels: 1 error, 2 warn, 3 info, 4 debug, 5 trace.
        level: i32,
        /// One line.
        message: String,
        /// Structured fields.
        fields: Vec<(String, String)>,
    },
    /// A line the handler or its children printed; bounded per task.
    Output {
        /// The task that was running when it was read; 0 when none was.
        seq: Seq,
        /// stderr rather than stdout.
        stderr: bool,
        /// Without its newline; bytes that are not UTF-8 replaced.
        line: String,
    },
    /// The host is gone: every way a host can end, `create` having failed included. Always the last event of a host.
    Exited(Exit),
}

/// How a host ended, and what it had started.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// Human words: `signal 11 (SIGSEGV)`, `exit status 0`, `create failed: …`.
    pub why: String,
    /// `create` failed or never finished; the plugin's own error when it gave one.
    pub create_error: Option<TaskError>,
    /// The highest task that was started, 0 for none (read from the ring that survives the host).
    pub started: Seq,
    /// Tasks that ended, done and with nothing attached, whose report did not arrive any more.
    pub done_unreported: Vec<Seq>,
    /// The highest task that ended, whatever its outcome. `started > ended` names the one that was running.
    pub ended: Seq,
}
