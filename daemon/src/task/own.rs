//! Warren's own headers, `x-warren-*`: their names (`names`), how they are written (`write`) and read (here). Pure.
//!
//! Anybody can publish a message with our names on it, with any type that AMQP has. A value is read for what it plainly
//! means; one that means nothing is [`Unusable`], and its task is a dead letter that says so: ignored, it would start a
//! task at another time, or as another attempt, than its producer asked for.

mod names;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::ops::Bound;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::value::{decimal, header, header_json};
use crate::model::duration::MAX_DURATION;
use crate::model::{UnixMs, rfc3339};
use crate::text::cut;

pub use names::*;
pub use write::{
    Failure, MAX_TEXT_BYTES, RecordedFailure, bounded, count_value, put, put_copy, put_deadline, put_due,
    put_failure, put_identity, text, time_value,
};

/// What of ours says that a message is not as its producer sent it: a handler sees these, and every later copy carries
/// them on.
pub const NOTES: [&str; 2] = [HEADER_ALTERED, HEADER_DROPPED];

/// Anyone can publish a header with our name on it: a higher count is read as this one. Far above every sensible
/// `retry.attempts`, and one more never overflows.
pub const MAX_COUNT: u32 = 1_000_000;

/// A time before this one (March 1973) is none in milliseconds: it is in seconds, or a delay. Zero is a time: at once.
const EARLIEST_MS: u64 = 100_000_000_000;

/// The longest that a task can wait, and that it can live when it is due: what is further away was not meant. A day more,
/// for clocks that differ.
const HORIZON: Duration = MAX_DURATION.saturating_add(Duration::from_secs(86_400));

const COUNT: &str = "a whole number from 0 on";
const TIME: &str =
    "milliseconds since 1970 as a number or its text, an AMQP timestamp, or RFC 3339 text with a zone";
const TEXT: &str = "text of 1 to 255 bytes";

/// A header of ours that cannot be used as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    header: &'static str,
    value: String,
    why: String,
    expected: &'static str,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { header, value, why, expected } = self;
        write!(f, "the header `{header}` is {value}{why}; expected is {expected}")
    }
}

/// When a message is due, and how that was reckoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub at: UnixMs,
    /// When the copy was written, if the due time was reckoned from then.
    pub sent: Option<UnixMs>,
}

/// What a message says about time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// When it is due; `None`: at once.
    pub due: Option<Due>,
    pub deadline: Option<UnixMs>,
}

/// Reads what the message says about time, and checks every other header that decides something.
pub fn times(properties: &BasicProperties, now: UnixMs) -> Result<Times, Unusable> {
    let Some(table) = properties.headers().as_ref().filter(|table| has_own(table)) else {
        return Ok(Times::default());
    };
    read_id(table)?;
    read_count(table, HEADER_ATTEMPT)?;
    read_count(table, HEADER_REDELIVERIES)?;
    let sent = read_time(table, HEADER_SENT, now, HORIZON)?;
    let due = read_time(table, HEADER_DUE, now, HORIZON)?.map(|at| Due { at, sent });
    // Ten years to wait, and ten more to expire.
    let deadline = read_time(table, HEADER_DEADLINE, now, 2 * HORIZON)?;
    Ok(Times { due, deadline })
}

/// A count as it stands, for what has been checked or cannot be: one that means nothing is 0.
pub fn count(table: Option<&FieldTable>, name: &'static str) -> u32 {
    table.and_then(|table| read_count(table, name).ok().flatten()).unwrap_or(0)
}

/// The id of ours in [`HEADER_ID`].
pub fn id(table: Option<&FieldTable>) -> Option<String> {
    read_id(table?).ok().flatten()
}

/// The deadline that an earlier copy carries.
pub fn deadline(properties: &BasicProperties, now: UnixMs) -> Option<UnixMs> {
    read_time(properties.headers().as_ref()?, HEADER_DEADLINE, now, 2 * HORIZON).ok().flatten()
}

/// A text of ours for people. Nothing hangs on it.
pub fn note(properties: &BasicProperties, name: &str) -> Option<String> {
    note_text(header(properties, name)?)
}

/// A value as text, if it is some. What others wrote need not be UTF-8.
pub fn note_text(value: &AMQPValue) -> Option<String> {
    let text = match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into_owned(),
        AMQPValue::ShortString(text) => text.as_str().to_owned(),
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

/// A time for people: a timestamp, or milliseconds since 1970 as a number. Nothing hangs on it.
pub fn past(properties: &BasicProperties, name: &str) -> Option<UnixMs> {
    match plain(header(properties, name)?) {
        Plain::Seconds(seconds) => Some(UnixMs(seconds.saturating_mul(1000))),
        Plain::Whole(ms) => u64::try_from(ms).ok().filter(|ms| *ms >= EARLIEST_MS).map(UnixMs),
        _ => None,
    }
}

/// Whether a name is one of ours.
pub fn is_own(name: &str) -> bool {
    name.starts_with(HEADER_PREFIX)
}

fn has_own(table: &FieldTable) -> bool {
    let from = (Bound::Included(HEADER_PREFIX), Bound::Unbounded);
    let first = table.inner().range::<str, _>(from).next();
    first.is_some_and(|(name, _)| is_own(name.as_str()))
}

/// What a value plainly is.
enum Plain<'a> {
    Absent,
    Whole(i128),
    Fraction(f64),
    /// Since 1970.
    Seconds(u64),
    Text(&'a str),
    Other,
}

fn plain(value: &AMQPValue) -> Plain<'_> {
    match value {
        AMQPValue::Void => Plain::Absent,
        AMQPValue::ShortShortInt(n) => Plain::Whole((*n).into()),
        AMQPValue::ShortShortUInt(n) => Plain::Whole((*n).into()),
        AMQPValue::ShortInt(n) => Plain::Whole((*n).into()),
        AMQPValue::ShortUInt(n) => Plain::Whole((*n).into()),
        AMQPValue::LongInt(n) => Plain::Whole((*n).into()),
        AMQPValue::LongUInt(n) => Plain::Whole((*n).into()),
        AMQPValue::LongLongInt(n) => Plain::Whole((*n).into()),
        AMQPValue::Float(n) => fraction(f64::from(*n)),
        AMQPValue::Double(n) => fraction(*n),
        AMQPValue::DecimalValue(n) => fraction(decimal(*n)),
        AMQPValue::Timestamp(seconds) => Plain::Seconds(*seconds),
        AMQPValue::ShortString(text) => of_text(text.as_str()),
        AMQPValue::LongString(text) => of_bytes(text.as_bytes()),
        AMQPValue::ByteArray(bytes) => of_bytes(bytes.as_slice()),
        AMQPValue::Boolean(_) | AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => Plain::Other,
    }
}

fn fraction<'a>(number: f64) -> Plain<'a> {
    if number.is_finite() { Plain::Fraction(number) } else { Plain::Other }
}

fn of_bytes(bytes: &[u8]) -> Plain<'_> {
    std::str::from_utf8(bytes).map_or(Plain::Other, of_text)
}

fn of_text(text: &str) -> Plain<'_> {
    let trimmed = text.trim();
    if let Ok(whole) = trimmed.parse() {
        return Plain::Whole(whole);
    }
    match trimmed.parse::<f64>() {
        Ok(number) => fraction(number),
        Err(_) => Plain::Text(text),
    }
}

fn read_count(table: &FieldTable, name: &'static str) -> Result<Option<u32>, Unusable> {
    let Some(value) = table.inner().get(name) else { return Ok(None) };
    let whole = match plain(value) {
        Plain::Absent => return Ok(None),
        Plain::Whole(number) => Some(number),
        Plain::Fraction(number) if number.fract() == 0.0 => Some(number as i128),
        _ => None,
    };
    match whole.map(|number| u32::try_from(number.min(MAX_COUNT.into()))) {
        Some(Ok(count)) => Ok(Some(count)),
        Some(Err(_)) => Err(unusable(name, value, ", which is negative", COUNT)),
        None => Err(unusable(name, value, "", COUNT)),
    }
}

/// An id is bounded like `message_id`, which is a short string on the wire.
fn read_id(table: &FieldTable) -> Result<Option<String>, Unusable> {
    let Some(value) = table.inner().get(HEADER_ID) else { return Ok(None) };
    let text = match (value, plain(value)) {
        (_, Plain::Absent) => return Ok(None),
        (AMQPValue::LongString(text), _) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        (AMQPValue::ByteArray(bytes), _) => std::str::from_utf8(bytes.as_slice()).ok().map(str::to_owned),
        (AMQPValue::ShortString(text), _) => Some(text.as_str().to_owned()),
        (_, Plain::Whole(number)) => Some(number.to_string()),
        _ => None,
    };
    match text.filter(|text| !text.is_empty() && u8::try_from(text.len()).is_ok()) {
        Some(text) => Ok(Some(text)),
        None => Err(unusable(HEADER_ID, value, "", TEXT)),
    }
}

fn read_time(
    table: &FieldTable,
    name: &'static str,
    now: UnixMs,
    horizon: Duration,
) -> Result<Option<UnixMs>, Unusable> {
    let Some(value) = table.inner().get(name) else { return Ok(None) };
    let fault = |why: &str| Err(unusable(name, value, why, TIME));
    let ms = match plain(value) {
        Plain::Absent => return Ok(None),
        Plain::Whole(ms) => ms,
        // Up: a task that waits for the time is never early.
        Plain::Fraction(ms) => ms.ceil() as i128,
        Plain::Seconds(seconds) => i128::from(seconds) * 1000,
        Plain::Text(text) => match rfc3339(text) {
            Ok(time) => time.0.into(),
            Err(why) if why.len() < 60 => return fault(&format!(" ({why})")),
            Err(_) => return fault(""),
        },
        Plain::Other => return fault(""),
    };
    let last = now.plus(horizon).0;
    match u64::try_from(ms) {
        Ok(0) => Ok(Some(UnixMs(0))),
        Ok(ms) if (EARLIEST_MS..=last).contains(&ms) => Ok(Some(UnixMs(ms))),
        _ => fault(what_it_may_be(value, ms, last)),
    }
}

/// What a number that is no time in milliseconds looks like.
fn what_it_may_be(value: &AMQPValue, ms: i128, last: u64) -> &'static str {
    let is_near = |ms: i128| (i128::from(EARLIEST_MS)..=i128::from(last)).contains(&ms);
    let is_date = matches!(plain(value), Plain::Text(_));
    let is_timestamp = matches!(value, AMQPValue::Timestamp(_));
    match ms {
        ..0 => ", which is before 1970",
        _ if is_near(ms.saturating_mul(1000)) && !is_date => ", which looks like seconds",
        _ if is_near(ms / 1000) && is_timestamp => {
            ", which looks like milliseconds where a timestamp has seconds"
        }
        _ if is_near(ms / 1000) && !is_date => ", which looks like microseconds",
        _ if is_near(ms / 1_000_000) && !is_date => ", which looks like nanoseconds",
        _ if ms < i128::from(EARLIEST_MS) => ", which is a time in the first years after 1970",
        _ => ", which is more than ten years from now",
    }
}

fn unusable(header: &'static str, value: &AMQPValue, why: &str, expected: &'static str) -> Unusable {
    const SHOWN: usize = 80;
    let json = header_json(value).to_string();
    let shown = cut(&json, SHOWN);
    let rest = if shown.len() < json.len() { "…" } else { "" };
    let value = format!("{shown}{rest} ({})", value.get_type());
    Unusable { header, value, why: why.to_owned(), expected }
}
