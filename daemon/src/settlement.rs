//! Outcome + attempt + policy → what is done at the broker. Pure.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::config::Retry;
use crate::host::{Outcome, TaskError};

/// The longest delay that a handler may ask for, unless its `max_delay` is longer still: a handler that passes on a
/// remote `Retry-After` must not be able to put a task away for years.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A task whose start was cut short this often by the end of the daemon itself is dead as [`DeadReason::Poison`]:
/// it is more likely than not what ends the daemon.
pub const MAX_REDELIVERIES: u32 = 10;

/// `TaskError::code` of a fault that cost the plugin host.
pub const CODE_CRASH: &str = "crash";
/// `TaskError::code` of a fault that cost the plugin host because the task used up its CPU time.
pub const CODE_CPU_TIME: &str = "cpu_time";
/// `TaskError::code` of a task that stopped at its deadline by itself, before the daemon's cancel reached it.
pub const CODE_TIMEOUT: &str = "timeout";

/// What is done at the broker for an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Acknowledge (after the follow-ups are confirmed).
    Ack,
    /// Confirmed copy to a delay queue, then acknowledge.
    Retry {
        /// At least this long before the next attempt; the broker side rounds it up to its ladder.
        delay: Duration,
        /// The attempt number that the copy carries.
        next_attempt: u32,
    },
    /// Confirmed copy to the dead queue, then acknowledge.
    Dead {
        /// Why.
        reason: DeadReason,
    },
    /// Give it back; the attempt does not count.
    Requeue,
    /// Confirmed copy to a delay queue with the attempt unchanged, then acknowledge: its handler is given no tasks now.
    Park {
        /// How long it stays away.
        delay: Duration,
    },
    /// Confirmed copy to the end of its queue that counts one start more, then acknowledge: its last start was cut
    /// short, and a queue without a count of its own forgets how often.
    Recount,
}

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

/// Decides what an outcome leads to. `attempt` is the one that just ended, from 1; `cancelled_by` is set when the
/// daemon asked the task to stop before it ended; `random` is in 0..1 and decides the jitter.
///
/// What the handler states as final stands whatever else happened: done is acknowledged and reject is dead even after
/// a cancel. Cancelled by a drain, everything else goes back un-counted, because a failure then says more about the
/// cancel than about the task; only a retry with a delay of the handler's own choosing is still a retry. Cancelled by
/// the time limit, or stopped at its deadline before it was cancelled, everything else counts as a timeout. Cancelled
/// by an operator, everything else is a dead letter: it can be replayed.
pub fn settle(
    outcome: &Outcome,
    error: Option<&TaskError>,
    attempt: u32,
    retry: &Retry,
    cancelled_by: Option<CancelCause>,
    random: f64,
) -> Settlement {
    let retry_after = match outcome {
        Outcome::Retry => error.and_then(|error| error.retry_after),
        _ => None,
    };
    let has_code = |code: &str| error.is_some_and(|error| error.code == code);
    let exhausted = match (outcome, cancelled_by) {
        (Outcome::Done, _) => return Settlement::Ack,
        (Outcome::Reject, _) => return Settlement::Dead { reason: DeadReason::Rejected },
        (_, Some(CancelCause::Drain)) if retry_after.is_none() => return Settlement::Requeue,
        (_, Some(CancelCause::Operator)) => return Settlement::Dead { reason: DeadReason::Cancelled },
        (_, Some(CancelCause::Timeout)) => DeadReason::Timeout,
        (Outcome::Cancelled, None) if has_code(CODE_TIMEOUT) => DeadReason::Timeout,
        (Outcome::Fault, None) if has_code(CODE_CPU_TIME) => DeadReason::Timeout,
        (Outcome::Fault, _) if has_code(CODE_CRASH) => DeadReason::Poison,
        _ => DeadReason::Attempts,
    };
    if attempt >= retry.attempts {
        return Settlement::Dead { reason: exhausted };
    }
    let delay = match retry_after {
        Some(wish) => wish.min(MAX_RETRY_AFTER.max(retry.max_delay)),
        None => backoff(retry, attempt, random),
    };
    Settlement::Retry { delay, next_attempt: attempt.saturating_add(1) }
}

/// The delay after `attempt` failed: `delay × factor^(attempt-1)`, at most `max_delay`, of which the share `jitter` is
/// drawn at random. Jitter only shortens, so that `max_delay` is a bound.
pub fn backoff(retry: &Retry, attempt: u32, random: f64) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let bound = retry.max_delay.as_secs_f64();
    let grown = retry.delay.as_secs_f64() * retry.factor.max(0.0).powi(exponent);
    let full = if grown.is_nan() { bound } else { grown.min(bound) };
    let share = retry.jitter.clamp(0.0, 1.0) * (1.0 - random.clamp(0.0, 1.0));
    Duration::try_from_secs_f64(full * (1.0 - share)).unwrap_or(retry.max_delay).min(retry.max_delay)
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
