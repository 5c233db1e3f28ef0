//! AMQP headers as a handler sees them: text, bounded, without what only concerns the transport.

use lapin::types::{AMQPValue, DecimalValue, FieldTable};
use serde_json::{Map, Number, Value};

use super::own::{NOTES, is_own};

/// At most this many headers reach a handler: they cross to the plugin host with every task.
pub const MAX_HEADERS: usize = 64;
/// Names and values together are at most this many bytes, for the same reason.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Arrays and tables are followed this deep; AMQP itself has no limit.
const HANDLER_DEPTH: usize = 16;

/// The headers of one task for its handler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Name and value, in byte order of the names. Strings are as they are; every other type is JSON text.
    pub fields: Vec<(String, String)>,
    /// How many were left out for [`MAX_HEADERS`] or [`MAX_HEADER_BYTES`].
    pub omitted: usize,
}

impl Headers {
    /// Converts a delivery's headers. One that does not fit is left out and counted, those after it may still fit.
    /// Allocates nothing when there is none to pass.
    pub fn of(table: Option<&FieldTable>) -> Self {
        let mut headers = Self::default();
        let mut room = MAX_HEADER_BYTES;
        let is_passed = |name: &str| !is_transport_header(name) || NOTES.contains(&name);
        let passed = table.into_iter().flatten().filter(|(name, _)| is_passed(name.as_str()));
        for (name, value) in passed {
            let name = name.as_str();
            let fits = |text: &str| name.len() + text.len() <= room;
            let text = match value {
                _ if headers.fields.len() == MAX_HEADERS => None,
                AMQPValue::ShortString(text) => {
                    Some(text.as_str()).filter(|text| fits(text)).map(str::to_owned)
                }
                AMQPValue::LongString(text) if text.len() > room => None,
                AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
                    Ok(text) => Some(text.to_owned()),
                    Err(_) => Some(bytes(text.as_bytes()).to_string()),
                },
                value => Some(match header_json(value) {
                    Value::String(text) => text,
                    json => json.to_string(),
                }),
            };
            match text.filter(|text| fits(text)) {
                Some(text) => {
                    room -= name.len() + text.len();
                    headers.fields.push((name.to_owned(), text));
                }
                None => headers.omitted += 1,
            }
        }
        headers
    }
}

/// Headers that belong to the transport: the broker's records of dead-lettering, sender-selected routing, and our own.
/// A copy of a task does not carry them on by themselves, and a handler sees none of them but our [`NOTES`].
pub fn is_transport_header(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["x-first-death-", "x-last-death-", "x-dead-letter-"];
    // RabbitMQ 4.3 counts how often a quorum queue handed a message out in x-acquired-count.
    const NAMES: [&str; 5] = ["x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC"];
    is_own(name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

/// A header's value as JSON, whatever its type.
pub fn header_json(value: &AMQPValue) -> Value {
    json(value, HANDLER_DEPTH)
}

fn json(value: &AMQPValue, depth: usize) -> Value {
    match value {
        AMQPValue::Boolean(flag) => (*flag).into(),
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => (*number).into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        // By its shortest text: 0.1 is to stay 0.1, not the nearest double's 0.10000000149011612.
        AMQPValue::Float(number) => float(number.to_string().parse().unwrap_or_else(|_| f64::from(*number))),
        AMQPValue::Double(number) => float(*number),
        AMQPValue::DecimalValue(number) => float(decimal(*number)),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => text.into(),
            Err(_) => bytes(text.as_bytes()),
        },
        AMQPValue::ByteArray(array) => bytes(array.as_slice()),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if depth == 0 => Value::Null,
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(|item| json(item, depth - 1)).collect(),
        AMQPValue::FieldTable(table) => Value::Object(
            table
                .into_iter()
                .map(|(name, item)| (name.as_str().to_owned(), json(item, depth - 1)))
                .collect::<Map<_, _>>(),
        ),
        AMQPValue::Void => Value::Null,
    }
}

/// Bytes that are no text: an array of numbers loses nothing.
fn bytes(bytes: &[u8]) -> Value {
    bytes.iter().copied().collect()
}

/// JSON has no number for what is not finite: its name.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
}

/// A decimal as the double next to it. The library has its digits unsigned; on the wire and at the broker they are
/// signed.
pub(super) fn decimal(number: DecimalValue) -> f64 {
    let text = format!("{}e-{}", number.value.cast_signed(), number.scale);
    text.parse().unwrap_or(f64::NAN)
}
