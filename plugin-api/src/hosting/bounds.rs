//! Text from a plugin, cut to the ABI's bounds.

use std::borrow::Cow;

/// Text from a plugin, at most `max` bytes: cut at a character boundary, bytes that are not UTF-8 replaced.
pub fn bounded_text(bytes: &[u8], max: usize) -> Cow<'_, str> {
    // Four bytes more than `max`: a character that this cuts in two lies wholly behind `max`.
    match String::from_utf8_lossy(&bytes[..bytes.len().min(max.saturating_add(4))]) {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..text.floor_char_boundary(max)]),
        Cow::Owned(mut text) => {
            text.truncate(text.floor_char_boundary(max));
            Cow::Owned(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_never_longer_than_its_bound() {
        for (bytes, max, expected) in [
            (&b"short"[..], 10, "short"),
            ("ééé".as_bytes(), 5, "éé"),
            ("ééé".as_bytes(), 6, "ééé"),
            ("\u{1f407}\u{1f407}".as_bytes(), 7, "\u{1f407}"),
            (b"a\xffb", 10, "a\u{fffd}b"),
            (b"\xff\xff\xff", 3, "\u{fffd}"),
            (b"\xff\xff\xff", 2, ""),
            ("é".as_bytes(), 0, ""),
            (b"x", usize::MAX, "x"),
        ] {
            assert_eq!(bounded_text(bytes, max), expected, "{bytes:?} within {max}");
        }
    }
}
