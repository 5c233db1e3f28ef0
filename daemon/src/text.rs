//! Bytes and text, bounded: hexadecimal digits, one line without control characters, a file up to a size.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::Path;

/// The bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// At most `max` bytes of the text, whole characters.
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// The text with a blank in place of every control character.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The beginning of a text as one line of at most `max` characters; `…` stands for the rest.
pub fn excerpt(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => one_line(&text[..end]) + "…",
        None => one_line(text),
    }
}

/// A whole file; `None` when it is longer than `max` bytes. Devices that never end are cut off.
pub fn read_bounded(file: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(max + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_stays_on_one_line() {
        assert_eq!((cut("ééé", 5), cut("ééé", 6), cut("é", 0), cut("x", 9)), ("éé", "ééé", "", "x"));
        assert_eq!(one_line("a\nb\u{1b}[2Jü"), "a b [2Jü");
        assert_eq!((&*excerpt("äöü\n", 4), &*excerpt("äö\nü", 3)), ("äöü ", "äö …"));
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
    }

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(read_bounded(&file, 5).unwrap(), Some(b"12345".to_vec()));
        assert_eq!(read_bounded(&file, 4).unwrap(), None);
        assert_eq!(read_bounded(Path::new("/dev/zero"), 4).unwrap(), None);
        assert!(read_bounded(&directory.path().join("none"), 4).is_err());
    }
}
