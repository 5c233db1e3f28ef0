//! Whether the broker still has a consumer that gets nothing. State is held in cells; no I/O.
//!
//! The broker tells a consumer that its queue is gone (`basic.cancel`), but not always: `RabbitMQ` 4.0.5 says nothing when a
//! queue is deleted within a moment of `basic.consume-ok`, and a quorum queue can lose a consumer when its leader changes.
//! Such a consumer would wait without end on a connection that is fine. So the broker is asked for consumers that got nothing
//! for a while.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A consumer that got something, or was asked for, within this time is not asked for.
const QUIET: Duration = Duration::from_secs(30);
/// Answers in a row that there is no consumer, before one counts as lost: a quorum queue without a leader reports none.
const ABSENT_ANSWERS: u32 = 3;

/// What is known of one consumer.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// The last delivery, or the last question that is not to be repeated at once. `None`: neither yet.
    known: Cell<Option<Instant>>,
    /// Answers in a row that there is no consumer.
    absent: Cell<u32>,
}

impl Presence {
    /// A delivery came.
    pub(super) fn delivered(&self, now: Instant) {
        self.known.set(Some(now));
        self.absent.set(0);
    }

    /// Whether the broker is to be asked.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.absent.get() > 0 || self.known.get().is_none_or(|known| now.duration_since(known) >= QUIET)
    }

    /// The broker is being asked.
    pub(super) fn asked(&self, now: Instant) {
        self.known.set(Some(now));
    }

    /// The broker's answer: the consumers of the queue, `None` without a queue. Returns why the consumer counts as lost.
    pub(super) fn answered(&self, consumers: Option<u32>) -> Option<&'static str> {
        match consumers {
            None => Some("the queue was deleted; the broker sent no cancel"),
            Some(0) => {
                self.absent.set(self.absent.get() + 1);
                (self.absent.get() >= ABSENT_ANSWERS)
                    .then_some("the broker has no consumer of the queue any more")
            }
            Some(_) => {
                self.absent.set(0);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_asked_for_at_first_and_then_when_it_is_quiet() {
        let (presence, start) = (Presence::default(), Instant::now());
        assert!(presence.is_due(start));
        presence.asked(start);
        assert_eq!(presence.answered(Some(1)), None);
        assert!(!presence.is_due(start + QUIET / 2));
        presence.delivered(start + QUIET / 2);
        assert!(!presence.is_due(start + QUIET));
        assert!(presence.is_due(start + QUIET + QUIET / 2));
    }

    #[test]
    fn one_without_a_queue_is_lost_and_one_that_is_not_counted_only_when_it_is_said_again() {
        assert!(Presence::default().answered(None).is_some());
        let (presence, now) = (Presence::default(), Instant::now());
        presence.asked(now);
        assert_eq!(presence.answered(Some(0)), None);
        assert!(presence.is_due(now), "asked again soon");
        assert_eq!(presence.answered(Some(0)), None);
        assert_eq!(presence.answered(Some(2)), None);
        assert_eq!((presence.answered(Some(0)), presence.answered(Some(0))), (None, None));
        presence.delivered(now);
        assert_eq!((presence.answered(Some(0)), presence.answered(Some(0))), (None, None));
        assert!(presence.answered(Some(0)).is_some());
    }
}
