//! What a handler says of a task that is done, brought within the ABI's bounds: an answer that is too long does not undo
//! what was done. For both sides of the boundary: the SDK's shim and [`hosting`](crate::hosting).

use std::borrow::Cow;

use crate::abi;

/// The content type of bytes of which nothing better can be said.
const ANY_BYTES: &str = "application/octet-stream";

/// A result within the bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// MIME type; empty: none.
    pub(crate) content_type: Cow<'a, str>,
    /// Its bytes.
    pub(crate) body: Cow<'a, [u8]>,
    /// What had to be changed, for the log; empty when nothing.
    pub(crate) note: String,
}

/// Brings a result within [`abi::MAX_RESULT_BYTES`] and [`abi::MAX_WORD_BYTES`]. A body cannot be cut without becoming
/// wrong (half a JSON document, half a picture), so one that is too long is left out and a line of text stands for it.
pub(crate) fn bounded<'a>(content_type: &'a [u8], body: &'a [u8]) -> Answer<'a> {
    if body.len() > abi::MAX_RESULT_BYTES {
        let note = format!(
            "the result of {} bytes is left out: at most {} are allowed",
            body.len(),
            abi::MAX_RESULT_BYTES
        );
        let body = Cow::Owned(note.clone().into_bytes());
        return Answer { content_type: "text/plain".into(), body, note };
    }
    let bounded = bounded_type(content_type);
    let note = if bounded.as_bytes() == content_type {
        String::new()
    } else {
        format!(
            "the result's content type of {} bytes is not UTF-8 or over {} bytes: it is given as {bounded}",
            content_type.len(),
            abi::MAX_WORD_BYTES
        )
    };
    Answer { content_type: bounded, body: body.into(), note }
}

/// A content type that AMQP has room for: as it is, else without its parameters, else the one of any bytes.
pub(crate) fn bounded_type(content_type: &[u8]) -> Cow<'_, str> {
    let fits = |text: &[u8]| text.len() <= abi::MAX_WORD_BYTES;
    if fits(content_type)
        && let Ok(text) = std::str::from_utf8(content_type)
    {
        return text.into();
    }
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    match std::str::from_utf8(essence) {
        Ok(essence) if fits(essence.as_bytes()) && !essence.is_empty() => essence.into(),
        _ => ANY_BYTES.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_becomes_something_that_is_still_true() {
        let long = format!("text/html; boundary={}", "x".repeat(400));
        let no_type = "x".repeat(abi::MAX_WORD_BYTES + 1);
        let just = "x".repeat(abi::MAX_WORD_BYTES);
        for (given, expected) in [
            (&b""[..], ""),
            (b"text/plain; charset=utf-8", "text/plain; charset=utf-8"),
            (just.as_bytes(), just.as_str()),
            (long.as_bytes(), "text/html"),
            (b"text/html; name=\xff", "text/html"),
            (no_type.as_bytes(), ANY_BYTES),
            (b"\xff\xfe", ANY_BYTES),
            (b";\xff", ANY_BYTES),
        ] {
            let answer = bounded(given, b"body");
            assert_eq!((&*answer.content_type, &*answer.body), (expected, &b"body"[..]));
            assert_eq!(answer.note.is_empty(), given == expected.as_bytes(), "{}", answer.note);
        }
    }

    #[test]
    fn a_body_over_the_bound_is_left_out_and_said_to_be() {
        let large = vec![b'x'; abi::MAX_RESULT_BYTES + 1];
        assert_eq!(bounded(b"image/png", &large[1..]).body.len(), abi::MAX_RESULT_BYTES);
        let answer = bounded(b"image/png", &large);
        assert_eq!(&*answer.content_type, "text/plain");
        assert_eq!(&*answer.body, answer.note.as_bytes());
        assert!(answer.note.contains("262145 bytes") && answer.note.contains("262144"), "{}", answer.note);
    }
}
