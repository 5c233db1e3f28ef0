//! The manifest as an ELF note, put together by the compiler. Public only for
//! [`export_plugin!`](crate::export_plugin).

use crate::abi;
use crate::constant::same;

/// What a plugin says of itself.
pub struct Manifest<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its default prefixes; none for one that the operator always names prefixes for.
    pub prefixes: &'a [&'a str],
    /// Its default time limit, e.g. `15m`.
    pub timeout: Option<&'a str>,
    /// The keys its settings know.
    pub settings: &'a [&'a str],
    /// The keys in which no two handlers of the plugin may agree: they would be on one target.
    pub exclusive: &'a [&'a str],
    /// The keys of directories in which old files are deleted, whosever they are.
    pub clears: &'a [&'a str],
    /// The keys of directories in which the handler keeps what it makes.
    pub stores: &'a [&'a str],
}

/// A handler that [`export_plugin!`](crate::export_plugin) exports.
#[diagnostic::on_unimplemented(
    message = "no `export_plugin!` names the handler `{Self}`",
    note = "a handler without a manifest is tested with `TestKit::without_manifest`"
)]
pub trait Exported {
    /// What its plugin says of itself.
    const MANIFEST: Manifest<'static>;
}

/// An ELF note; `N` is the length of its JSON, padded to 4.
#[repr(C, align(4))]
pub struct Note<const N: usize> {
    owner_size: u32,
    desc_size: u32,
    kind: u32,
    owner: [u8; 8],
    desc: [u8; N],
}

impl<const N: usize> Note<N> {
    /// The note of a manifest whose JSON has `length` bytes.
    #[must_use]
    pub const fn new(manifest: &Manifest<'_>, length: usize) -> Self {
        manifest.check();
        assert!(N == length.next_multiple_of(4));
        let mut writer = Writer { bytes: [0; N], at: 0 };
        writer.manifest(manifest);
        Self {
            owner_size: abi::NOTE_OWNER.len() as u32 + 1,
            desc_size: length as u32,
            kind: abi::NOTE_TYPE,
            owner: *b"warren\0\0",
            desc: writer.bytes,
        }
    }

    /// The JSON.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.desc[..self.desc_size as usize]
    }
}

impl Manifest<'_> {
    /// Length of the JSON in bytes.
    #[must_use]
    pub const fn json_length(&self) -> usize {
        let mut writer = Writer { bytes: [], at: 0 };
        writer.manifest(self);
        writer.at
    }

    /// Fails to compile when the manifest cannot be right.
    const fn check(&self) {
        assert!(
            is_name(self.name),
            "`name` must be lower-case letters, digits and `-`, e.g. backup-database"
        );
        let mut i = 0;
        while i < self.prefixes.len() {
            let prefix = self.prefixes[i].as_bytes();
            assert!(!prefix.is_empty(), "a prefix must not be empty");
            assert!(prefix.trim_ascii().len() == prefix.len(), "a prefix must not begin or end with a blank");
            i += 1;
        }
        self.check_targets(self.exclusive);
        self.check_targets(self.clears);
        self.check_targets(self.stores);
        if let Some(timeout) = self.timeout {
            assert!(
                crate::duration::milliseconds(timeout).is_ok(),
                "`timeout` must be a duration like \"250ms\", \"5s\", \"10m\" or \"1h30m\""
            );
        }
    }
}

impl Manifest<'_> {
    const fn check_targets(&self, keys: &[&str]) {
        let mut i = 0;
        while i < keys.len() {
            let mut j = 0;
            while j < self.settings.len() && !same(keys[i].as_bytes(), self.settings[j].as_bytes()) {
                j += 1;
            }
            assert!(j < self.settings.len(), "`exclusive`, `clears` and `stores` name keys of `settings`");
            i += 1;
        }
    }
}

/// Writes JSON into `N` bytes, and only counts what lies beyond.
struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    const fn manifest(&mut self, manifest: &Manifest<'_>) {
        self.raw("{\"name\":");
        self.text(manifest.name);
        self.raw(",\"version\":");
        self.text(manifest.version);
        self.raw(",\"abi\":{\"major\":");
        self.number(abi::ABI_MAJOR);
        self.raw(",\"minor\":");
        self.number(abi::ABI_MINOR);
        self.raw("},\"prefixes\":");
        self.list(manifest.prefixes);
        if let Some(timeout) = manifest.timeout {
            self.raw(",\"timeout\":");
            self.text(timeout);
        }
        self.raw(",\"settings\":");
        self.list(manifest.settings);
        if !(manifest.exclusive.is_empty() && manifest.clears.is_empty() && manifest.stores.is_empty()) {
            self.raw(",\"targets\":{\"exclusive\":");
            self.list(manifest.exclusive);
            self.raw(",\"clears\":");
            self.list(manifest.clears);
            self.raw(",\"stores\":");
            self.list(manifest.stores);
            self.raw("}");
        }
        self.raw("}");
    }

    const fn byte(&mut self, byte: u8) {
        if self.at < N {
            self.bytes[self.at] = byte;
        }
        self.at += 1;
    }

    const fn raw(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            self.byte(bytes[i]);
            i += 1;
        }
    }

    const fn text(&mut self, text: &str) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let bytes = text.as_bytes();
        self.byte(b'"');
        let mut i = 0;
        while i < bytes.len() {
            match bytes[i] {
                byte @ (b'"' | b'\\') => {
                    self.byte(b'\\');
                    self.byte(byte);
                }
                byte @ 0..0x20 => {
                    self.raw("\\u00");
                    self.byte(HEX[(byte >> 4) as usize]);
                    self.byte(HEX[(byte & 15) as usize]);
                }
                byte => self.byte(byte),
            }
            i += 1;
        }
        self.byte(b'"');
    }

    const fn number(&mut self, number: u16) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.byte(b'0' + (number % 10) as u8);
    }

    const fn list(&mut self, list: &[&str]) {
        self.byte(b'[');
        let mut i = 0;
        while i < list.len() {
            if i > 0 {
                self.byte(b',');
            }
            self.text(list[i]);
            i += 1;
        }
        self.byte(b']');
    }
}

const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if !matches!(bytes[i], b'a'..=b'z' | b'0'..=b'9' | b'-') {
            return false;
        }
        i += 1;
    }
    !bytes.is_empty() && bytes[0] != b'-'
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const FULL: Manifest<'static> = Manifest {
        name: "backup-database",
        version: "1.2.3",
        prefixes: &["Backup database", "Say \"hello\" \\ \u{1}\u{e9}"],
        timeout: Some("1h30m"),
        settings: &["directory", "keep"],
        exclusive: &["directory", "keep"],
        clears: &[],
        stores: &["directory"],
    };
    const BARE: Manifest<'static> = Manifest {
        name: "exec",
        version: "0.1.0",
        prefixes: &[],
        timeout: None,
        settings: &[],
        exclusive: &[],
        clears: &[],
        stores: &[],
    };

    static FULL_NOTE: Note<{ FULL.json_length().next_multiple_of(4) }> = Note::new(&FULL, FULL.json_length());
    static BARE_NOTE: Note<{ BARE.json_length().next_multiple_of(4) }> = Note::new(&BARE, BARE.json_length());

    #[test]
    fn manifest_is_json_with_all_it_was_given() {
        let full: Value = serde_json::from_slice(FULL_NOTE.json()).unwrap();
        assert_eq!(
            full,
            json!({
                "name": "backup-database", "version": "1.2.3", "abi": {"major": 1, "minor": 0},
                "prefixes": ["Backup database", "Say \"hello\" \\ \u{1}\u{e9}"],
                "timeout": "1h30m", "settings": ["directory", "keep"],
                "targets": {"exclusive": ["directory", "keep"], "clears": [], "stores": ["directory"]},
            })
        );
        let bare: Value = serde_json::from_slice(BARE_NOTE.json()).unwrap();
        let expected = json!({"name": "exec", "version": "0.1.0", "abi": {"major": 1, "minor": 0}, "prefixes": [], "settings": []});
        assert_eq!(bare, expected);
    }

    #[test]
    fn note_has_the_shape_that_elf_readers_expect() {
        assert_eq!(align_of_val(&FULL_NOTE), 4);
        assert_eq!(size_of_val(&FULL_NOTE), 12 + 8 + FULL.json_length().next_multiple_of(4));
        assert_eq!((FULL_NOTE.owner_size, FULL_NOTE.kind), (7, 1));
        assert_eq!(FULL_NOTE.owner, *b"warren\0\0");
    }

    #[test]
    fn names_are_lower_case_words() {
        for good in ["a", "backup-database", "s3-copy"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "Backup", "a b", "a_b", "a/b", "\u{e9}"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
