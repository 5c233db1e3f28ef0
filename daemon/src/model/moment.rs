//! Points in time as messages carry them: milliseconds since 1970, and RFC 3339 text. Deterministic except for `now`.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;

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

/// RFC 3339 in UTC, to the second.
impl fmt::Display for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        write!(f, "{:.0}", Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX))
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
pub fn rfc3339(text: &str) -> Result<UnixMs, &'static str> {
    const FORM: &str = "a time is a date, a time of the day and an offset from UTC, such as \
                        2026-12-01T08:00:00Z or 2026-12-01T09:00:00+01:00";
    let pieces = Pieces::parse(text.trim()).map_err(|_| FORM)?;
    let time = pieces.time().ok_or(FORM)?;
    let offset =
        pieces.to_numeric_offset().ok_or("which zone? Add Z for UTC, or an offset such as +01:00")?;
    // Not a `Timestamp`, which does not reach the last day of 9999: the date that often stands for "never".
    let epoch = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
    let local = pieces.date().to_datetime(time).duration_since(epoch).as_nanos();
    let nanoseconds = local - i128::from(offset.seconds()) * 1_000_000_000;
    let ms = u128::try_from(nanoseconds).map_err(|_| "before 1970")?.div_ceil(1_000_000);
    Ok(UnixMs(ms as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_to_the_second_and_never_panics() {
        assert_eq!(UnixMs(951_782_399_999).to_string(), "2000-02-28T23:59:59Z");
        assert!(UnixMs(u64::MAX).to_string().starts_with("9999-12-"));
    }

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
            ("9999-12-31T23:59:59Z", Some(253_402_300_799_000)),
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
