//! [`export_plugin!`](crate::export_plugin): the exported symbol and the manifest, which is an ELF note written
//! at compile time, so that it can be read without running anything.

/// Makes a plugin of a [`Handler`](crate::Handler); once per crate, whose `crate-type` has `cdylib`.
///
/// ```
/// # use warren_plugin::{Call, Done, Failure, Handler, Host, NoSettings, Outcome, Task};
/// # struct Backup;
/// # impl Handler for Backup {
/// #     type Settings = NoSettings;
/// #     fn new(_: NoSettings, _: &Host) -> Result<Self, Failure> { Ok(Self) }
/// #     fn handle(&mut self, _: &Task<'_>, _: &Call<'_>) -> Outcome { Ok(Done::empty()) }
/// # }
/// warren_plugin::export_plugin!(
///     Backup,
///     name = "backup-database",                  // default: the package's name
///     prefixes = ["Backup database"],            // which tasks it takes, unless the operator says otherwise
///     timeout = "15m",                           // optional: "250ms", "5s", "10m", "2h"
///     settings = ["directory", "keep"],          // optional: the keys its settings know, for `warrenctl`
/// );
/// ```
///
/// The version is the package's. A manifest that cannot be right (a prefix with blanks round it, a
/// timeout that is no duration) does not compile, and neither does `panic = "abort"`: a panic could not be caught
/// then, and would cost the host.
#[macro_export]
macro_rules! export_plugin {
    ($handler:ty, prefixes = $($rest:tt)*) => {
        $crate::export_plugin!($handler, name = ::core::env!("CARGO_PKG_NAME"), prefixes = $($rest)*);
    };
    (
        $handler:ty, name = $name:expr, prefixes = [$($prefix:expr),* $(,)?]
        $(, timeout = $timeout:expr)? $(, settings = [$($key:expr),* $(,)?])? $(,)?
    ) => {
        #[allow(unsafe_code)] // The exported symbol and the note's section: what they hold is safe to read.
        const _: () = {
            #[cfg(panic = "abort")]
            ::core::compile_error!(
                "a Warren plugin cannot be built with panic = \"abort\": a panic must stay inside the plugin. \
                 Remove `panic` from the profile in Cargo.toml"
            );

            const MANIFEST: $crate::note::Manifest<'static> = $crate::note::Manifest {
                name: $name,
                version: ::core::env!("CARGO_PKG_VERSION"),
                prefixes: &[$($prefix),*],
                timeout: $crate::export_plugin!(@timeout $($timeout)?),
                settings: &[$($($key),*)?],
            };
            const LENGTH: usize = MANIFEST.json_length();

            #[used]
            #[unsafe(link_section = ".note.warren")]
            static NOTE: $crate::note::Note<{ LENGTH.next_multiple_of(4) }> =
                $crate::note::Note::new(&MANIFEST, LENGTH);

            static PLUGIN: $crate::abi::Plugin = $crate::shim::vtable::<$handler>();

            #[unsafe(no_mangle)]
            extern "C" fn warren_plugin_v1() -> *const $crate::abi::Plugin {
                &raw const PLUGIN
            }
        };
    };
    (@timeout) => { ::core::option::Option::None };
    (@timeout $timeout:expr) => { ::core::option::Option::Some($timeout) };
}

#[doc(hidden)]
pub mod note {
    //! The manifest as an ELF note, put together by the compiler. Public only for `export_plugin!`.

    use crate::abi;

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
                assert!(
                    prefix.trim_ascii().len() == prefix.len(),
                    "a prefix must not begin or end with a blank"
                );
                i += 1;
            }
            if let Some(timeout) = self.timeout {
                assert!(
                    is_duration(timeout),
                    "`timeout` must be a duration like \"250ms\", \"5s\", \"10m\" or \"2h\""
                );
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
            if !matches!(bytes[i], b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') {
                return false;
            }
            i += 1;
        }
        !bytes.is_empty() && bytes[0] != b'-'
    }

    /// Digits and a unit the daemon's configuration knows.
    const fn is_duration(text: &str) -> bool {
        let bytes = text.as_bytes();
        let mut digits = 0;
        while digits < bytes.len() && bytes[digits].is_ascii_digit() {
            digits += 1;
        }
        let (_, unit) = bytes.split_at(digits);
        digits > 0 && matches!(unit, b"ms" | b"s" | b"m" | b"h")
    }
}
