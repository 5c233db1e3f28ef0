//! Tracks delay queues that stopped confirming publishes and picks the next longer one. Pure.
//!
//! A quorum queue can be there, be called running, and never confirm a message: without its majority, or with RabbitMQ
//! 3.10 and 4.0 when the broker was killed within a second of its declaration. A copy that waits for such a queue keeps its
//! original's place in the window, and a policy's few delays lead there again and again until every place is taken. So
//! a copy that was not confirmed goes to the next longer delay, and so do those after it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::queues::topology::{delay_name, rung, rungs};

/// So many delays are tried: more would put a task off for much longer than was asked.
const RUNGS: usize = 3;
/// After this one copy tries again.
const SILENT_PAUSE: Duration = Duration::from_secs(10 * 60);

/// The delay queues that did not confirm a message, and when each is tried again.
#[derive(Debug, Default)]
pub(super) struct Silence(BTreeMap<String, Instant>);

impl Silence {
    /// Where a copy is to wait that is to come back to `target` after `delay`: on the rung of that delay, or on the
    /// next one whose queue is not known to be silent. When all are, on its own.
    pub(super) fn rung(&mut self, target: &str, delay: Duration, now: Instant) -> Duration {
        let own = rung(delay);
        for rung in rungs().filter(|rung| *rung >= own).take(RUNGS) {
            let name = delay_name(target, rung);
            match self.0.get_mut(&name) {
                Some(again) if *again > now => {}
                Some(again) => {
                    // This copy tries for all.
                    *again = now + SILENT_PAUSE;
                    return rung;
                }
                None => return rung,
            }
        }
        own
    }

    /// The queue did not confirm a message.
    pub(super) fn begin(&mut self, queue: &str, now: Instant) {
        self.0.insert(queue.to_owned(), now + SILENT_PAUSE);
    }

    /// It confirmed one.
    pub(super) fn end(&mut self, queue: &str) {
        self.0.remove(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_millis(500);
    const ONE: Duration = Duration::from_secs(1);
    const TWO: Duration = Duration::from_secs(2);

    fn silent(rungs: &[Duration], now: Instant) -> Silence {
        let mut silence = Silence::default();
        for rung in rungs {
            silence.begin(&delay_name("tasks", *rung), now);
        }
        silence
    }

    #[test]
    fn a_copy_waits_on_the_first_of_three_rungs_that_is_not_silent() {
        let now = Instant::now();
        for (rungs, got) in [
            (&[][..], HALF),
            (&[HALF], ONE),
            (&[ONE], HALF),
            (&[HALF, ONE], TWO),
            (&[HALF, TWO], ONE),
            (&[HALF, ONE, TWO], HALF),
        ] {
            assert_eq!(silent(rungs, now).rung("tasks", HALF, now), got, "{rungs:?}");
            assert_eq!(silent(rungs, now).rung("other", HALF, now), HALF, "another work queue's");
        }
    }

    #[test]
    fn the_longest_delay_has_nowhere_else_to_go() {
        let now = Instant::now();
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(silent(&[day], now).rung("tasks", day, now), day);
    }

    #[test]
    fn after_a_rest_one_copy_tries_again_and_its_confirm_brings_the_others_back() {
        let now = Instant::now();
        let mut silence = silent(&[HALF], now);
        let later = now + SILENT_PAUSE;
        let got = [0, 1, 2].map(|_| silence.rung("tasks", HALF, later));
        assert_eq!(got, [HALF, ONE, ONE]);
        silence.end(&delay_name("tasks", HALF));
        assert_eq!(silence.rung("tasks", HALF, later), HALF);
    }
}
