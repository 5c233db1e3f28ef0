//! Outcome + attempt + policy → what is done at the broker. Pure.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::config::Retry;
use crate::model::{CancelCause, DeadReason, FaultCause, Outcome};

/// The longest delay that a handler may ask for, unless its `max_delay` is longer still: a handler that passes on a
/// remote `Retry-After` must not be able to put a task away for years.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A task whose start was cut short this often by the end of the daemon itself is dead as [`DeadReason::Poison`]:
/// it is more likely than not what ends the daemon.
pub const MAX_REDELIVERIES: u32 = 10;

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
    Dead { reason: DeadReason },
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

/// Decides what an outcome leads to. `retry_after` is the handler's wish, which counts for a retry only; `attempt` is the
/// one that just ended, from 1; `cancelled_by` is set when the
/// daemon asked the task to stop before it ended; `random` is in 0..1 and decides the jitter.
///
/// What the handler states as final stands whatever else happened: done is acknowledged and reject is dead even after
/// a cancel. Cancelled by a drain, everything else goes back un-counted, because a failure then says more about the
/// cancel than about the task; only a retry with a delay of the handler's own choosing is still a retry. Cancelled by
/// the time limit, or stopped at its deadline before it was cancelled, everything else counts as a timeout. Cancelled
/// by an operator, everything else is a dead letter: it can be replayed.
pub fn settle(
    outcome: Outcome,
    retry_after: Option<Duration>,
    attempt: u32,
    retry: &Retry,
    cancelled_by: Option<CancelCause>,
    random: f64,
) -> Settlement {
    let retry_after = retry_after.filter(|_| outcome == Outcome::Retry);
    let exhausted = match (outcome, cancelled_by) {
        (Outcome::Done, _) => return Settlement::Ack,
        (Outcome::Reject, _) => return Settlement::Dead { reason: DeadReason::Rejected },
        (_, Some(CancelCause::Drain)) if retry_after.is_none() => return Settlement::Requeue,
        (_, Some(CancelCause::Operator)) => return Settlement::Dead { reason: DeadReason::Cancelled },
        (_, Some(CancelCause::Timeout)) | (Outcome::TimedOut | Outcome::Fault(FaultCause::CpuTime), _) => {
            DeadReason::Timeout
        }
        (Outcome::Fault(FaultCause::HostDied), _) => DeadReason::Poison,
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
