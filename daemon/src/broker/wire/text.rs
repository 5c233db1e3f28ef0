//! Short strings that are not UTF-8, and the record of what the filter changed in a message. Pure.

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::text::hex;

/// The most bytes of an AMQP short string.
const SHORT_STRING: usize = 255;
/// Changes that are described one by one; the others are counted. A description is a header of every copy.
const DESCRIBED: usize = 8;
/// Bytes of an original that a description quotes.
const QUOTED: usize = 64;

/// What the filter changed in one message, so that the client library can read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alteration {
    /// One sentence for people: which parts were changed, with the original bytes in hexadecimal.
    pub description: String,
    /// Something of the message is missing: the task is not run.
    pub lossy: bool,
    described: usize,
    more: usize,
}

impl Alteration {
    /// Notes one change.
    pub(super) fn add(&mut self, change: &str) {
        if self.described == DESCRIBED {
            self.more += 1;
            return;
        }
        self.described += 1;
        if !self.description.is_empty() {
            self.description.push_str("; ");
        }
        self.description.push_str(change);
    }

    /// Notes a change that lost something.
    pub(super) fn lose(&mut self, change: &str) {
        self.lossy = true;
        self.add(change);
    }

    /// Both, one after the other.
    pub(super) fn and(self, other: &Self) -> Self {
        let description = format!("{}; {}", self.description, other.description);
        Self { description, lossy: self.lossy || other.lossy, ..self }
    }

    /// Adds the number of changes that are not described.
    pub(super) fn finish(mut self) -> Self {
        if self.more > 0 {
            let _ = write!(self.description, "; and {} more", self.more);
            self.more = 0;
        }
        self
    }
}

/// The text of a short string; where it is not UTF-8, one that stands for it, which is noted as a change of `what`.
pub(super) fn text_of<'a>(what: &str, bytes: &'a [u8], alteration: &mut Alteration) -> Cow<'a, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let cut = if bytes.len() > QUOTED { "…" } else { "" };
    let quoted = hex(&bytes[..bytes.len().min(QUOTED)]);
    alteration.add(&format!("{what} was not UTF-8 (hex {quoted}{cut})"));
    Cow::Owned(latin1(bytes))
}

/// Each byte as a Latin-1 character, so that different bytes stay different. Where AMQP has no room for the result, its
/// end is a digest of the bytes.
fn latin1(bytes: &[u8]) -> String {
    let text: String = bytes.iter().copied().map(char::from).collect();
    if text.len() <= SHORT_STRING {
        return text;
    }
    let digest = hex(&Sha256::digest(bytes)[..8]);
    let end = text.floor_char_boundary(SHORT_STRING - digest.len() - 1);
    format!("{}#{digest}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_text_of_a_short_string_and_stay_different() {
        let table: [(&[u8], &str); 3] =
            [(b"caf\xe9", "caf\u{e9}"), (b"\xff\x00a", "\u{ff}\0a"), (b"\x80", "\u{80}")];
        for (bytes, expected) in table {
            assert_eq!(latin1(bytes), expected);
        }
        let (mut long, mut other) = ([0xe9; 255], [0xe9; 255]);
        (long[254], other[254]) = (1, 2);
        let (long, other) = (latin1(&long), latin1(&other));
        assert!(long.len() <= SHORT_STRING && other.len() <= SHORT_STRING, "{} {}", long.len(), other.len());
        assert_ne!(long, other);
    }

    #[test]
    fn a_description_is_bounded_and_counts_the_rest() {
        let mut alteration = Alteration::default();
        for n in 0..1000 {
            text_of(&format!("name {n}"), &[0xff; 255], &mut alteration);
        }
        let alteration = alteration.finish();
        assert!(alteration.description.len() < 2048, "{}", alteration.description.len());
        assert!(alteration.description.ends_with("; and 992 more"), "{}", alteration.description);
        assert!(!alteration.lossy);
    }
}
