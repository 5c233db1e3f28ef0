//! Durations as operators write them, in the configuration, in a handler's settings and in manifests alike: `"250ms"`,
//! `"5s"`, `"10m"`, `"24h"`, `"7d"`, or several together, largest unit first: `"1h30m"`.
//!
//! For a settings field use `#[serde(with = "warren_plugin::duration")]`; for an optional one
//! `#[serde(default, with = "warren_plugin::duration::option")]`.

use std::fmt;
use std::time::Duration;

use serde::{Deserializer, Serializer, de};

use crate::constant::same;

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is no duration. Its text says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    text: String,
    problem: &'static str,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, problem } = self;
        write!(
            f,
            "{text:?} is not a duration ({problem}): write for example \"250ms\", \"5s\", \"10m\", \"24h\" or \"7d\""
        )
    }
}

impl std::error::Error for ParseError {}

/// Reads a duration: whole numbers, each followed by `d`, `h`, `m`, `s` or `ms`, each unit at most once and the largest
/// first. Blanks round numbers and units do not count.
///
/// # Errors
/// Says what is wrong with the text and what to write instead.
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    match milliseconds(text) {
        Ok(ms) => Ok(Duration::from_millis(ms)),
        Err(problem) => Err(ParseError { text: text.to_owned(), problem }),
    }
}

/// As [`parse`]; also for what is checked when it is compiled.
pub(crate) const fn milliseconds(text: &str) -> Result<u64, &'static str> {
    let mut rest = text.as_bytes().trim_ascii();
    if rest.is_empty() {
        return Err("it is empty");
    }
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (number, after) = match leading_number(rest) {
            Ok(split) => split,
            Err(problem) => return Err(problem),
        };
        let (name, after) = leading_letters(after.trim_ascii_start());
        if name.is_empty() && after.is_empty() {
            return Err("the unit is missing");
        }
        let Some(unit) = unit_index(name) else { return Err("the units are d, h, m, s and ms") };
        if unit < next_unit {
            return Err("each unit stands once, the largest first");
        }
        let sum = match number.checked_mul(UNITS[unit].1) {
            Some(added) => total.checked_add(added),
            None => None,
        };
        let Some(sum) = sum else { return Err("the number is too large") };
        (total, next_unit, rest) = (sum, unit + 1, after.trim_ascii_start());
    }
    Ok(total)
}

const fn leading_number(bytes: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let mut number: u64 = 0;
    let mut length = 0;
    while length < bytes.len() && bytes[length].is_ascii_digit() {
        number = match number.checked_mul(10) {
            Some(tens) => tens,
            None => return Err("the number is too large"),
        };
        number = match number.checked_add((bytes[length] - b'0') as u64) {
            Some(number) => number,
            None => return Err("the number is too large"),
        };
        length += 1;
    }
    if length == 0 {
        Err("a whole number comes before each unit")
    } else {
        Ok((number, bytes.split_at(length).1))
    }
}

const fn leading_letters(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut length = 0;
    while length < bytes.len() && bytes[length].is_ascii_alphabetic() {
        length += 1;
    }
    bytes.split_at(length)
}

const fn unit_index(name: &[u8]) -> Option<usize> {
    let mut i = 0;
    while i < UNITS.len() {
        if same(UNITS[i].0.as_bytes(), name) {
            return Some(i);
        }
        i += 1;
    }
    None
}

/// Writes a duration so that [`parse`] reads the same one, down to the millisecond: `5400 s` is `1h30m`.
pub fn format(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, size) in UNITS {
        let count = left / size;
        left %= size;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(name);
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// For `#[serde(with = "warren_plugin::duration")]`.
///
/// # Errors
/// When the value is not a text, or not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(DurationText)
}

/// For `#[serde(with = "warren_plugin::duration")]`.
///
/// # Errors
/// Whatever the serializer reports.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// The same for an `Option<Duration>` field: `#[serde(default, with = "warren_plugin::duration::option")]`.
pub mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Text(#[serde(with = "super")] Duration);

    /// For `#[serde(default, with = "warren_plugin::duration::option")]`.
    ///
    /// # Errors
    /// When the value is there and is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
    }

    /// For `#[serde(default, with = "warren_plugin::duration::option")]`.
    ///
    /// # Errors
    /// Whatever the serializer reports.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }
}

struct DurationText;

impl de::Visitor<'_> for DurationText {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration in quotes such as \"250ms\", \"5s\", \"10m\", \"24h\" or \"7d\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, serde::Serialize)]
    struct Settings {
        #[serde(with = "crate::duration")]
        every: Duration,
        #[serde(default, with = "crate::duration::option")]
        pause: Option<Duration>,
    }

    #[test]
    fn every_unit_and_their_combinations_are_read() {
        for (text, ms) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("10m", 600_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            (" 5 s ", 5_000),
            ("1h 30 m", 5_400_000),
            ("0s", 0),
            ("90m", 5_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_problem_and_an_example() {
        for (text, problem) in [
            ("", "it is empty"),
            ("5", "the unit is missing"),
            ("s", "a whole number comes before each unit"),
            ("-5s", "a whole number comes before each unit"),
            ("1.5h", "the units are d, h, m, s and ms"),
            ("5 ", "the unit is missing"),
            ("5 parsecs", "the units are d, h, m, s and ms"),
            ("5w", "the units are d, h, m, s and ms"),
            ("5m1h", "each unit stands once, the largest first"),
            ("5s5s", "each unit stands once, the largest first"),
            ("99999999999999999999s", "the number is too large"),
            ("9999999999999999d", "the number is too large"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(problem) && error.contains("\"10m\""), "{text}: {error}");
        }
    }

    #[test]
    fn what_format_writes_parse_reads() {
        for ms in [0, 1, 999, 1_000, 59_999, 5_400_000, 86_400_000, 93_784_005, u64::MAX] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse(&format(duration)), Ok(duration), "{ms} ms");
        }
    }

    #[test]
    fn a_settings_field_takes_text_and_refuses_a_bare_number() {
        let read = |json: &str| serde_json::from_str::<Settings>(json).map_err(|error| error.to_string());
        let settings = read(r#"{"every": "5s", "pause": "1m"}"#).expect("both are durations");
        assert_eq!((settings.every, settings.pause), (Duration::from_secs(5), Some(Duration::from_secs(60))));
        assert_eq!(serde_json::to_string(&settings).expect("plain"), r#"{"every":"5s","pause":"1m"}"#);
        assert_eq!(read(r#"{"every": "5s"}"#).expect("pause may be absent").pause, None);
        assert_eq!(read(r#"{"every": "5s", "pause": null}"#).expect("or null").pause, None);
        assert!(
            read(r#"{"every": 5}"#).err().expect("a number has no unit").contains("a duration in quotes")
        );
        assert!(
            read(r#"{"every": "soon"}"#)
                .err()
                .expect("not a duration")
                .contains("\"soon\" is not a duration")
        );
    }
}
