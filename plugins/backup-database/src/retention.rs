//! Which backups have had their time: a pure choice from their moments.

use crate::naming::Moment;
use std::time::Duration;

/// The operator's limits; either alone makes a backup go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// At most this many stay.
    pub(crate) keep: Option<u32>,
    /// None older than this stays.
    pub(crate) keep_for: Option<Duration>,
}

impl Retention {
    /// Whether anything is ever removed.
    pub(crate) fn is_limited(self) -> bool {
        self.keep.is_some() || self.keep_for.is_some()
    }

    /// The backups to remove, oldest first. Never `newest`, which was just verified, whatever the limits or the
    /// clock say; every other file is only believed to be good.
    pub(crate) fn expired<N>(&self, backups: Vec<(Moment, N)>, newest: Moment) -> Vec<N> {
        let mut others: Vec<(Moment, N)> =
            backups.into_iter().filter(|(moment, _)| *moment != newest).collect();
        others.sort_by_key(|(moment, _)| std::cmp::Reverse(*moment));
        let mut expired: Vec<N> = others
            .into_iter()
            .enumerate()
            .filter(|(newer, (moment, _))| {
                let too_many = self.keep.is_some_and(|keep| newer + 1 >= keep as usize);
                let too_old = self.keep_for.is_some_and(|limit| moment.age(newest) > limit);
                too_many || too_old
            })
            .map(|(_, (_, name))| name)
            .collect();
        expired.reverse();
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    /// Backups of these many days before the newest (negative: after it), and which of them go.
    fn expired(keep: Option<u32>, keep_days: Option<u64>, ages: &[i64]) -> Vec<i64> {
        let day = |n: i64| SystemTime::UNIX_EPOCH + Duration::from_secs((20_000 - n).unsigned_abs() * 86_400);
        let retention = Retention { keep, keep_for: keep_days.map(|n| Duration::from_secs(n * 86_400)) };
        let backups = ages.iter().map(|age| (Moment::of(day(*age)), *age)).collect();
        retention.expired(backups, Moment::of(day(0)))
    }

    #[test]
    fn either_limit_makes_a_backup_go_and_the_newest_stays() {
        let ages = [3, 0, 1, 2];
        assert_eq!(expired(None, None, &ages), [] as [i64; 0], "no limit");
        assert_eq!(expired(Some(2), None, &ages), [3, 2]);
        assert_eq!(expired(Some(1), None, &ages), [3, 2, 1]);
        assert_eq!(expired(Some(9), None, &ages), [] as [i64; 0]);
        assert_eq!(expired(None, Some(2), &ages), [3]);
        assert_eq!(expired(Some(3), Some(1), &ages), [3, 2], "both limits");
        assert_eq!(expired(Some(1), Some(0), &[0]), [] as [i64; 0], "the newest stays");
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_cost_the_verified_backup() {
        assert_eq!(expired(Some(1), None, &[-5, 0]), [-5]);
        assert_eq!(expired(None, Some(1), &[-5, 0, 2]), [2], "what lies ahead is not old");
    }
}
