//! Why a task is dead-lettered, and why a running one was asked to stop.

use std::fmt;

/// Why a task is dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// The handler rejected it: never try again.
    Rejected,
    /// It failed as often as its handler's `retry.attempts` allows.
    Attempts,
    /// Its last attempt ran out of time, or of CPU time.
    Timeout,
    /// Its last attempt killed its plugin host, or its start kept coinciding with the daemon's own end.
    Poison,
    /// No route takes it.
    Unroutable,
    /// It is routed by its text, which is not UTF-8; or a header of Warren's is not what it has to be.
    Malformed,
    /// Its body is over `max_task_bytes`.
    TooLarge,
    /// An operator cancelled it.
    Cancelled,
    /// Its deadline passed before it could start.
    Expired,
    /// The broker refuses every copy of it that is to run again.
    Refused,
}

/// Why the daemon asked a running task to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelCause {
    /// The daemon is ending, or gives everything back now.
    Drain,
    /// The task reached its time limit.
    Timeout,
    /// An operator cancelled it.
    Operator,
}

impl DeadReason {
    /// Every reason there is.
    pub const ALL: [Self; 10] = [
        Self::Rejected,
        Self::Attempts,
        Self::Timeout,
        Self::Poison,
        Self::Unroutable,
        Self::Malformed,
        Self::TooLarge,
        Self::Cancelled,
        Self::Expired,
        Self::Refused,
    ];

    /// The word in the dead letter's header and in the logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Attempts => "attempts",
            Self::Timeout => "timeout",
            Self::Poison => "poison",
            Self::Unroutable => "unroutable",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
