//! Delay queues that give tasks back too early, and clocks that differ: what is seen of that on arrivals, for operators.

use std::time::{Duration, Instant};

use crate::broker::hops::Odd;

use super::keys::QueueKey;
use super::queues::Seen;
use super::{Core, Turn};

/// Every task may show the same oddity. It is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// The status shows an oddity for this long after it was last seen.
const SHOWN: Duration = Duration::from_secs(60 * 60);

impl Core {
    /// An arrival was odd.
    pub(super) fn note_odd(&mut self, queue: QueueKey, odd: &Odd, turn: &Turn<'_>) {
        let what = sentence(odd);
        let (now, state) = (turn.now.instant, &mut self.queues[queue]);
        let logged = state.odd.as_ref().map(|seen| seen.logged).filter(|logged| now < *logged + LOG_EVERY);
        state.odd = Some(Seen { what: what.clone(), last: now, logged: logged.unwrap_or(now) });
        if logged.is_none() {
            tracing::warn!(queue = %self.queues[queue].config.name, "{what}");
            self.errors.add(turn.now.unix, None, None, &what);
        }
    }

    /// What was odd lately about the arrivals from a queue.
    pub(super) fn odd(&self, queue: QueueKey, now: Instant) -> Option<&str> {
        let seen = self.queues[queue].odd.as_ref().filter(|seen| now < seen.last + SHOWN)?;
        Some(&seen.what)
    }
}

fn sentence(odd: &Odd) -> String {
    match odd {
        Odd::Shortened { queue, kept, rung } => format!(
            "delay queue `{queue}` kept a task for {kept:.1?} instead of {rung:.1?}, and the task waits again: a policy \
             with `message-ttl` seems to match it (rabbitmqctl list_policies; a pattern for the work queue alone ends \
             in $), or the clocks of two machines differ"
        ),
        Odd::Clocks { ahead } => format!(
            "a task was delayed by a machine whose clock is ahead of this one's, by {ahead:.1?} or more: set the clocks"
        ),
    }
}
