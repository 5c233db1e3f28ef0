//! When a task is to run: at once, after a delay, at a time of the day. Pure.

use std::time::Duration;

use toml::value::{Datetime, Offset};
use warren::broker::copy::UnixMs;
use warren::config::duration::{DURATION_FORMS, MAX_DURATION, format_duration, parse_duration};

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
    pub(super) fn due(self, now: UnixMs) -> UnixMs {
        match self {
            Self::Now => now,
            Self::After(delay) => now.plus(delay),
            Self::At(time) => time.max(now),
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
    const FORM: &str = "a time is a date, a time of the day and an offset from UTC, such as \
                        2026-12-01T08:00:00Z or 2026-12-01T09:00:00+01:00";
    let Datetime { date: Some(date), time: Some(time), offset } =
        text.trim().parse().map_err(|_| FORM.to_owned())?
    else {
        return Err(FORM.to_owned());
    };
    let minutes = match offset {
        Some(Offset::Z) => 0,
        Some(Offset::Custom { minutes }) => i64::from(minutes),
        None => return Err("which zone? Add Z for UTC, or an offset such as +01:00".to_owned()),
    };
    let days = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let of_the_day = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 - minutes * 60;
    let seconds = days * 86_400 + of_the_day + i64::from(time.second.unwrap_or(0));
    let ms = seconds * 1000 + i64::from(time.nanosecond.unwrap_or(0) / 1_000_000);
    let time = UnixMs(u64::try_from(ms).map_err(|_| "before 1970".to_owned())?);
    match time.since(UnixMs::now()) {
        Some(left) if left > MAX_DURATION => {
            Err(format!("more than {} from now", format_duration(MAX_DURATION)))
        }
        _ => Ok(time),
    }
}

/// Counted in years that begin in March, so that the leap day is last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_with_its_offset() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1969-12-31T19:30:00.25-04:30", Some(250)),
            ("2000-02-28T23:59:59.999Z", Some(951_782_399_999)),
            ("2000-02-29 00:00:00z", Some(951_782_400_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2025-12-31T23:59:59-00:30", Some(1_767_227_399_000)),
            ("1900-03-01T00:00:00Z", None),
            ("2025-02-29T00:00:00Z", None),
            ("2025-02-28T24:00:00Z", None),
            ("2025-02-28T08:00:00", None),
            ("2025-02-28", None),
            ("08:00:00", None),
            ("tomorrow", None),
            ("", None),
            ("9999-12-31T23:59:59Z", None),
        ];
        for (text, ms) in table {
            assert_eq!(time(text).ok(), ms.map(UnixMs), "{text:?}");
        }
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
            assert_eq!(when.due(now), UnixMs(due), "{when:?}");
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
