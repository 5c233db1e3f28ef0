//! When a task is to run: at once, after a delay, at a time of the day. Pure.

use std::time::Duration;

use warren::broker::hops::{Basis, Wait};
use warren::model::duration::{DURATION_FORMS, MAX_DURATION, format_duration, parse_duration};
use warren::model::{UnixMs, rfc3339};

/// When the tasks of a run are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// At once.
    Now,
    /// Each so long after it is published.
    After(Duration),
    /// All at this time; at once when it is over.
    At(UnixMs),
}

impl When {
    /// When a task is due that is published now.
    pub(super) fn wait(self, now: UnixMs) -> Wait {
        match self {
            Self::Now => Wait { due: now, basis: Basis::Clock },
            Self::After(delay) => Wait { due: now.plus(delay), basis: Basis::Delay },
            Self::At(time) => Wait { due: time.max(now), basis: Basis::Clock },
        }
    }
}

/// Reads `--delay`.
pub(super) fn delay(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|delay| !delay.is_zero())
        .ok_or_else(|| format!("a delay is {DURATION_FORMS}, and at most {}", format_duration(MAX_DURATION)))
}

/// Reads `--at`: RFC 3339 with `Z` or an offset, because a time without one is another time on the daemon's machine.
pub(super) fn time(text: &str) -> Result<UnixMs, String> {
    let time = rfc3339(text)?;
    match time.since(UnixMs::now()) {
        Some(left) if left > MAX_DURATION => {
            Err(format!("more than {} from now", format_duration(MAX_DURATION)))
        }
        _ => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_within_ten_years() {
        assert_eq!(time("2000-02-28T23:59:59.999Z"), Ok(UnixMs(951_782_399_999)));
        assert!(time("9999-12-31T23:59:59Z").is_err());
        assert!(time("2025-02-28T08:00:00").expect_err("no zone").contains("zone"));
    }

    #[test]
    fn tasks_are_due_from_when_they_are_published() {
        let now = UnixMs(5_000);
        for (when, due) in [
            (When::Now, 5_000),
            (When::After(Duration::from_secs(2)), 7_000),
            (When::At(UnixMs(6_000)), 6_000),
            (When::At(UnixMs(4_000)), 5_000),
        ] {
            assert_eq!(when.wait(now).due, UnixMs(due), "{when:?}");
        }
    }

    #[test]
    fn a_delay_may_be_years_and_is_never_nothing() {
        for (text, is_delay) in
            [("1ms", true), ("90m", true), ("3650d", true), ("3651d", false), ("0s", false)]
        {
            assert_eq!(delay(text).is_ok(), is_delay, "{text}");
        }
    }
}
