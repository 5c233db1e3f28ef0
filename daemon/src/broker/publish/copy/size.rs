//! How many bytes properties have on the wire, to the byte: they travel in one frame, and what does not fit into it
//! ends the connection. Pure.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// Of all properties, with the flags that say which are there.
pub fn encoded_len(properties: &BasicProperties) -> usize {
    let flags = 2;
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.expiration(),
        properties.message_id(),
        properties.kind(),
        properties.user_id(),
        properties.app_id(),
        properties.cluster_id(),
    ];
    let texts: usize = texts.into_iter().flatten().map(short_len).sum();
    let bytes = [properties.delivery_mode(), properties.priority()].into_iter().flatten().count();
    let timestamp = properties.timestamp().map_or(0, |_| 8);
    flags + texts + bytes + timestamp + properties.headers().as_ref().map_or(0, table_len)
}

/// Of one header, with its name.
pub(super) fn entry_len(name: &ShortString, value: &AMQPValue) -> usize {
    short_len(name) + value_len(value)
}

fn short_len(text: &ShortString) -> usize {
    1 + text.as_str().len()
}

fn table_len(table: &FieldTable) -> usize {
    4 + table.into_iter().map(|(name, value)| entry_len(name, value)).sum::<usize>()
}

/// Of a value with its type.
fn value_len(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => short_len(text),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(array) => 4 + array.as_slice().iter().map(value_len).sum::<usize>(),
        AMQPValue::FieldTable(table) => table_len(table),
    }
}
