//! What lettre leaves as it is and a mail may not have: lone CR and NUL in a text, and subjects that would be read as
//! encoded words or make a line of more than 998 bytes (RFC 5322, RFC 2045, RFC 2047).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::message::Body;
use lettre::message::header::{ContentTransferEncoding, HeaderName, HeaderValue};

/// The most bytes of one encoded word's text: with `=?utf-8?b?` and `?=` it stays within the 75 that it may have.
const WORD: usize = 45;
/// The longest word of a subject that is left as it is; lettre folds lines between words.
const LONGEST_PLAIN: usize = 70;

/// A task's text as a body: each of its line ends as one, control characters encoded.
pub(crate) fn body(text: &str) -> Body {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) {
        let encoded = Body::new_with_encoding(text.clone(), ContentTransferEncoding::QuotedPrintable);
        return encoded.unwrap_or_else(|_| Body::new(text));
    }
    Body::new(text)
}

/// A subject, which is one line already.
pub(crate) fn subject(text: &str) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str("Subject");
    let is_plain = |word: &str| word.len() <= LONGEST_PLAIN;
    if !text.contains("=?") && text.split(' ').all(is_plain) {
        return HeaderValue::new(name, text.to_owned());
    }
    HeaderValue::dangerous_new_pre_encoded(name, text.to_owned(), encoded(text))
}

/// The text as encoded words on lines of their own: a reader leaves out the blanks between them.
fn encoded(text: &str) -> String {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.floor_char_boundary(WORD);
        let (word, after) = rest.split_at(end);
        words.push(format!("=?utf-8?b?{}?=", STANDARD.encode(word)));
        rest = after;
    }
    words.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_hold_whole_characters_and_are_short() {
        let words = encoded(&"é".repeat(100));
        for word in words.split("\r\n ") {
            assert!(word.len() <= 75, "{word}");
            let text =
                word.strip_prefix("=?utf-8?b?").and_then(|word| word.strip_suffix("?=")).expect("a word");
            assert!(String::from_utf8(STANDARD.decode(text).expect("base64")).is_ok(), "{word}");
        }
        assert_eq!(words.lines().count(), 5);
    }
}
