//! What is sent: the task as JSON, and the signature over it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use warren_plugin::Task;

/// The task as it is sent. The field names are a contract with receivers; see the crate's documentation.
#[derive(Debug, Serialize)]
pub(crate) struct Payload<'a> {
    id: &'a str,
    id_generated: bool,
    attempt: u32,
    redelivered: bool,
    queue: &'a str,
    prefix: &'a str,
    argument: &'a str,
    content_type: &'a str,
    headers: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    body: Body<'a>,
}

/// The task's body, which need not be text.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "body_encoding", content = "body")]
enum Body<'a> {
    #[serde(rename = "utf-8")]
    Text(&'a str),
    #[serde(rename = "base64")]
    Bytes(String),
}

impl<'a> Payload<'a> {
    /// The task's payload.
    pub(crate) fn of(task: &Task<'a>) -> Self {
        Self {
            id: task.id(),
            id_generated: task.id_is_generated(),
            attempt: task.attempt(),
            redelivered: task.redelivered(),
            queue: task.queue(),
            prefix: task.prefix(),
            argument: task.argument(),
            content_type: task.content_type(),
            headers: task.headers().collect(),
            body: Body::of(task.body()),
        }
    }
}

impl<'a> Body<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::Bytes(STANDARD.encode(bytes)), Self::Text)
    }
}

/// `sha256=<hex>` of HMAC-SHA256 over the timestamp, a `.` and the body. The timestamp is in it so that a recorded
/// request cannot be sent again later.
pub(crate) fn signature(secret: &[u8], timestamp: u64, body: &[u8]) -> String {
    // The only error is a key length that the algorithm does not take, and HMAC takes every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        text.push(hex_digit(byte >> 4));
        text.push(hex_digit(byte & 15));
    }
    text
}

/// A task's id as the value of a header: what is no visible ASCII character, and `%`, as `%XX`.
pub(crate) fn header_value(id: &str) -> String {
    let mut value = String::new();
    for byte in id.bytes() {
        if matches!(byte, 0x21..=0x7e) && byte != b'%' {
            value.push(char::from(byte));
        } else {
            value.push('%');
            value.push(hex_digit(byte >> 4).to_ascii_uppercase());
            value.push(hex_digit(byte & 15).to_ascii_uppercase());
        }
    }
    value
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_over_timestamp_dot_body() {
        // printf '1700000000.{"id":"a"}' | openssl dgst -sha256 -hmac 'key'
        let expected = "sha256=fad30145c01573f08f1afb0c980e06ad3ec016de1aec117fea804b6e6b4eed38";
        assert_eq!(signature(b"key", 1_700_000_000, br#"{"id":"a"}"#), expected);
    }

    #[test]
    fn a_body_that_is_not_utf8_says_so() {
        let json = |bytes| serde_json::to_value(Body::of(bytes)).expect("plain");
        assert_eq!(json("täsk".as_bytes()), serde_json::json!({"body_encoding": "utf-8", "body": "täsk"}));
        assert_eq!(json(b"\xff\x00"), serde_json::json!({"body_encoding": "base64", "body": "/wA="}));
    }

    #[test]
    fn any_id_can_be_a_header() {
        for (id, value) in [
            ("019234ab-cdef", "019234ab-cdef"),
            ("order #1001", "order%20#1001"),
            ("a\r\nX-Evil: 1", "a%0D%0AX-Evil:%201"),
            ("100%", "100%25"),
            ("ü", "%C3%BC"),
        ] {
            assert_eq!(header_value(id), value);
        }
    }
}
