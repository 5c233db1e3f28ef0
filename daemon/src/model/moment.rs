//! Points in time as messages carry them: milliseconds since 1970, and RFC 3339 text. Pure but for the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use toml::value::{Datetime, Offset};

/// A point in time as the copies carry it: milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The wall clock.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// So much later; parts of a millisecond are dropped.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to here; `None` when that is the later one.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_millis)
    }

    /// The same in whole seconds, as AMQP has it.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

impl From<SystemTime> for UnixMs {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Reads RFC 3339 with `Z` or an offset, because a time without one is another time on another machine. Parts of a
/// millisecond are rounded up: nothing that waits for the time is early.
pub fn rfc3339(text: &str) -> Result<UnixMs, String> {
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
    let ms = seconds * 1000 + i64::from(time.nanosecond.unwrap_or(0).div_ceil(1_000_000));
    Ok(UnixMs(u64::try_from(ms).map_err(|_| "before 1970".to_owned())?))
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
            ("2000-02-28T23:59:59.9985Z", Some(951_782_399_999)),
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
        ];
        for (text, ms) in table {
            assert_eq!(rfc3339(text).ok(), ms.map(UnixMs), "{text:?}");
        }
        assert!(rfc3339("2025-02-28T08:00:00").expect_err("no zone").contains("zone"));
    }
}
