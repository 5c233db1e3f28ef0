//! How long to wait before the next attempt: full jitter, so that many daemons do not connect at the same moment.
//! Deterministic except for jitter.

use std::time::Duration;

/// The longest wait between two attempts. It is also how long tasks may wait after a broker came back from a long
/// outage: with 30 s a restart of seven seconds was noticed up to 13 s late. A hundred daemons at this bound are 40
/// attempts a second.
pub(in crate::broker) const CAP: Duration = Duration::from_secs(5);
/// The bound of the first wait; it doubles with each attempt.
const FIRST: Duration = Duration::from_millis(200);
/// A link that lasted this long was a good one: the next loss starts from [`FIRST`] again. A link that breaks
/// earlier counts as one more failure, or a broker that accepts and throws out would be hammered.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// The longest wait after a link that was of use, however short it lasted: the broker is there, and waiting longer
/// would only delay tasks. A link that is lost again and again costs the broker a few connections a second. When the
/// broker then refuses connections, the waits grow as before.
const SERVED_CAP: Duration = Duration::from_millis(500);

/// Counts failures in a row.
#[derive(Debug, Default, Clone)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// One more failure; the wait before the next attempt.
    pub(crate) fn failed(&mut self) -> Duration {
        let bound = bound(self.failures);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(fastrand::f64())
    }

    /// A link ended after it was up for `lasted`, and was of use or not; the wait before the next attempt.
    pub(in crate::broker) fn lost_after(&mut self, lasted: Duration, served: bool) -> Duration {
        if lasted >= GOOD_AFTER {
            self.failures = 0;
        }
        let bound = bound(self.failures);
        if served && bound > SERVED_CAP {
            // Not counted, nor forgotten: the failures before it were failures to get a link.
            return SERVED_CAP.mul_f64(fastrand::f64());
        }
        self.failed()
    }
}

/// The largest wait after this many failures in a row.
fn bound(failures: u32) -> Duration {
    FIRST.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(CAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let bounds = [0, 1, 2, 7, 8, 31, 32, u32::MAX].map(|failures| bound(failures).as_millis());
        assert_eq!(bounds, [200, 400, 800, 5_000, 5_000, 5_000, 5_000, 5_000]);
    }

    #[test]
    fn a_link_that_lasted_starts_over_and_one_that_broke_does_not() {
        let mut backoff = Backoff { failures: 9 };
        backoff.lost_after(Duration::from_millis(9_999), false);
        assert_eq!(backoff.failures, 10);
        assert!(backoff.lost_after(GOOD_AFTER, false) <= FIRST);
        assert_eq!(backoff.failures, 1);
    }

    #[test]
    fn links_that_served_are_never_waited_for_long_and_the_failures_before_them_are_not_forgotten() {
        let mut backoff = Backoff::default();
        let losses = (0..1_000).map(|_| backoff.lost_after(Duration::from_millis(50), true));
        assert!(losses.max().is_some_and(|longest| longest <= SERVED_CAP));
        assert_eq!(backoff.failures, 2, "a refusal after that waits 800 ms at most");
        let mut backoff = Backoff { failures: 9 };
        assert!(backoff.lost_after(Duration::from_millis(50), true) <= SERVED_CAP);
        assert_eq!(backoff.failures, 9);
    }
}
