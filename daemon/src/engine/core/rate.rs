//! How fast the tasks of a handler may start: a token bucket, kept as the time at which the next token is due.

use std::time::{Duration, Instant};

use crate::config::Rate;

/// A turn of the core may come this much too late. A start that is late by no more does not delay the next one.
const SLACK: Duration = Duration::from_millis(20);

/// The bucket of one handler, over all its generations. A reload with another rate goes on from it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    /// When the next task is due at the rate; `None`: none has started yet.
    due: Option<Instant>,
}

impl Bucket {
    /// Whether a task may start now.
    pub(super) fn allows(&self, rate: &Rate, now: Instant) -> bool {
        let early = rate.interval() * rate.burst.saturating_sub(1);
        self.due.is_none_or(|due| due <= now + early)
    }

    /// A task starts.
    pub(super) fn spend(&mut self, rate: &Rate, now: Instant) {
        let due = self.due.map_or(now, |due| due.max(now.checked_sub(SLACK).unwrap_or(now)));
        self.due = Some(due + rate.interval());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many tasks start in so many seconds, where each millisecond of these is a turn.
    fn started(rate: &Rate, seconds: u64, every: u64) -> u64 {
        let (start, mut bucket, mut started) = (Instant::now(), Bucket::default(), 0);
        for turn in 0..seconds * 1000 / every {
            let now = start + Duration::from_millis(turn * every);
            while bucket.allows(rate, now) {
                bucket.spend(rate, now);
                started += 1;
            }
        }
        started
    }

    #[test]
    fn as_many_start_as_the_rate_says_and_the_burst_at_once() {
        for (tasks, unit, burst, seconds, every, expected) in [
            (10, 1, 1, 100, 1, 1000..=1001),
            (10, 1, 1, 100, 7, 998..=1001),
            (1000, 1, 1, 10, 10, 9_980..=10_020),
            (300, 60, 1, 100, 10, 500..=501),
            (36, 3600, 5, 100, 10, 5..=5),
            (36, 3600, 5, 101, 10, 6..=6),
            (10, 1, 50, 1, 10, 59..=60),
        ] {
            let rate = Rate { tasks, unit: Duration::from_secs(unit), burst };
            let started = started(&rate, seconds, every);
            assert!(expected.contains(&started), "{rate:?}: {started} in {seconds} s");
        }
    }

    #[test]
    fn what_was_not_used_is_kept_up_to_the_burst() {
        let rate = Rate { tasks: 10, unit: Duration::from_secs(1), burst: 3 };
        let (start, mut bucket) = (Instant::now(), Bucket::default());
        for round in 0..3 {
            let now = start + Duration::from_secs(60 * round);
            let mut started = 0;
            while bucket.allows(&rate, now) {
                bucket.spend(&rate, now);
                started += 1;
            }
            assert_eq!(started, 3, "{round}");
        }
    }
}
