//! AMQP headers as a handler sees them: text, bounded, without what only concerns the transport.

use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

use super::own::{NOTES, is_own};
use super::value::{bytes, header_json};

/// At most this many headers reach a handler: they cross to the plugin host with every task.
pub const MAX_HEADERS: usize = 64;
/// Names and values together are at most this many bytes, for the same reason.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

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
