//! A header of a message: finding it, and its value as JSON. Pure.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue};
use serde_json::{Map, Number, Value};

/// Arrays and tables are followed this deep; AMQP itself has no limit.
const HANDLER_DEPTH: usize = 16;

/// One header of a message.
pub(crate) fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
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
pub(super) fn bytes(bytes: &[u8]) -> Value {
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
