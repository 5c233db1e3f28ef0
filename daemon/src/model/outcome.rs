//! How one attempt of a task ended, as its plugin host reports it or as the daemon sees the end of the host.

use std::time::Duration;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Finished.
    Done,
    /// Try again later.
    Retry,
    /// Never try again.
    Reject,
    /// The handler stopped because it was asked to, or the task was cancelled before it started.
    Cancelled,
    /// The handler stopped at its time limit by itself, before the daemon asked it to.
    TimedOut,
    /// The handler or its host failed.
    Fault(FaultCause),
}

/// What a fault is. Decided where the fault is seen; the error code, which a handler may choose, never decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultCause {
    /// The handler returned a fault. The SDK reports a panic in this way.
    Returned,
    /// The handler broke the contract: an unknown status, a bound exceeded, a function called where it must not be.
    Contract,
    /// The plugin host ended while it had the task.
    HostDied,
    /// The kernel ended the plugin host at its `cpu_time`.
    CpuTime,
}

/// What a handler said of its failure, or what the daemon says of a fault. Bounded by the host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskError {
    /// Short machine-readable code, e.g. `timeout`, `panic`, `crash`, or the handler's own.
    pub code: String,
    /// One line for people.
    pub message: String,
    /// The handler's own wish for the delay before the next attempt.
    pub retry_after: Option<Duration>,
}

impl Outcome {
    /// The word in logs and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Cancelled | Self::TimedOut => "cancelled",
            Self::Fault(_) => "fault",
        }
    }
}

impl TaskError {
    /// Without a wish for a delay.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retry_after: None }
    }
}

/// `set_result` of a call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskResult {
    /// MIME type.
    pub content_type: String,
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
