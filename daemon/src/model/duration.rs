//! Durations (`"250ms"`, `"1h30m"`) and sizes (`"64KiB"`) as text, both ways. Handlers' settings and manifests have the
//! same durations: `warren_plugin::duration` reads all of them.

use std::time::Duration;

/// What a duration may look like, for messages.
pub const DURATION_FORMS: &str =
    r#"whole numbers with d, h, m, s or ms, the largest first, such as "250ms", "5s", "10m", "1h30m", "7d""#;
/// What a size may look like, for messages.
pub const SIZE_FORMS: &str = r#"a whole number and B, KiB, MiB or GiB, such as "64KiB" or "10MiB""#;

/// Longest duration that can be stated. Ten years: sums and products of a few of them cannot overflow.
pub const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 3600);

const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a duration; `None` when it is not one or is longer than [`MAX_DURATION`].
pub fn parse_duration(text: &str) -> Option<Duration> {
    warren_plugin::duration::parse(text).ok().filter(|duration| *duration <= MAX_DURATION)
}

/// Writes a duration in the largest unit that is exact; parts of a millisecond are dropped.
pub fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS, "0s")
}

/// Reads a size in bytes; `None` when it is not one.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Writes a size in the largest unit that is exact.
pub fn format_size(bytes: u64) -> String {
    format(bytes, &SIZE_UNITS, "0B")
}

fn format(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    let exact = units.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    exact.map_or_else(|| zero.to_owned(), |(unit, factor)| format!("{}{unit}", value / factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_numbers_and_units() {
        let table = [
            ("250ms", Some(250)),
            ("5s", Some(5_000)),
            (" 5 s ", Some(5_000)),
            ("10m", Some(600_000)),
            ("2h", Some(7_200_000)),
            ("7d", Some(604_800_000)),
            ("0s", Some(0)),
            ("5", None),
            ("s", None),
            ("", None),
            ("-5s", None),
            ("1.5s", None),
            ("1h30m", Some(5_400_000)),
            ("1d 12h", Some(129_600_000)),
            ("30m1h", None),
            ("1h1h", None),
            ("5 parsecs", None),
            ("5S", None),
            ("3651d", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_a_number_and_a_unit() {
        let table = [
            ("64KiB", Some(65_536)),
            ("10MiB", Some(10_485_760)),
            ("1GiB", Some(1 << 30)),
            ("0B", Some(0)),
            ("64KB", None),
            ("64", None),
            ("99999999999GiB", None),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), bytes, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis in 0..=315_360_000_000_u64, bytes: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
