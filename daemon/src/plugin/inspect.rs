//! What a plugin file says of itself, without mapping or running any of it.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use object::elf;
use serde::Deserialize;
use thiserror::Error;
use warren_plugin::abi;

use super::elf::{Elf, host_machine};
use super::{Manifest, Targets};

/// A manifest is a few hundred bytes; more is not one.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;
/// The name goes into file names, log fields and config keys.
const MAX_NAME_BYTES: usize = 64;
const MAX_VERSION_BYTES: usize = 64;
/// A prefix may stand in the AMQP property `type`, which holds 255 bytes.
const MAX_PREFIX_BYTES: usize = 255;
const MAX_PREFIXES: usize = 256;
const MAX_SETTINGS: usize = 256;
const MAX_SETTING_BYTES: usize = 64;
/// Longer than any task that a broker would wait for.
const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why a file is no plugin that this daemon can load. The text says what is wrong with the file and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InspectError {
    /// Zero bytes.
    #[error("the file is empty; copy the plugin again")]
    Empty,
    /// Readable text: a script, a linker script, an error page that was downloaded.
    #[error(
        "this is a text file (it begins with `{start}`), not a shared library; build one with `crate-type \
         = [\"cdylib\"]` or `cc -shared`"
    )]
    Text {
        /// The beginning of its first line.
        start: String,
    },
    /// Some other binary file.
    #[error(
        "this is not an ELF file; build a shared library with `crate-type = [\"cdylib\"]` or `cc -shared`"
    )]
    NotElf,
    /// Something ends behind the end of the file.
    #[error(
        "the file is truncated: {what} ends at byte {end}, but the file has {len}; copy it again, best \
         under another name and then `mv` it into place"
    )]
    Truncated {
        /// What lies outside.
        what: &'static str,
        /// Where it ends.
        end: u64,
        /// Length of the file.
        len: u64,
    },
    /// The file contradicts itself.
    #[error("the file is damaged: its {what} is invalid; build or copy it again")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// Built for another processor.
    #[error("it is built for {found}, this machine is {host}; build it with that target")]
    Machine {
        /// What the file says.
        found: String,
        /// What it has to be.
        host: &'static str,
    },
    /// ELF, but nothing that can be loaded.
    #[error("it is {kind}, not a shared library; build it with `crate-type = [\"cdylib\"]` or `cc -shared`")]
    NotShared {
        /// What it is.
        kind: &'static str,
    },
    /// A search path that would point to nowhere once the plugin is loaded from its snapshot.
    #[error(
        "its {tag} is `{value}`: a plugin is loaded from a sealed copy, where `$ORIGIN` is not its \
         directory; link private libraries statically, or name an absolute path"
    )]
    Origin {
        /// `RUNPATH`, `RPATH` or `NEEDED`.
        tag: &'static str,
        value: String,
    },
    /// No manifest.
    #[error(
        "it has no Warren manifest (ELF note of owner `warren`, type 1); is it built with `export_plugin!` \
         in Rust or `WARREN_MANIFEST` in C, and not stripped of notes?"
    )]
    NoNote,
    /// More than one manifest.
    #[error(
        "it has {0} Warren manifests; one library is one plugin, so `export_plugin!` or `WARREN_MANIFEST` \
         must stand in it once"
    )]
    ManyNotes(usize),
    /// The manifest cannot be used.
    #[error("its manifest is invalid: {0}")]
    Manifest(String),
    /// Another major version of the ABI.
    #[error(
        "it is built for plugin ABI {plugin}, this daemon has {host}; {}",
        major_remedy(*.plugin, *.host)
    )]
    AbiMajor {
        /// The plugin's.
        plugin: Abi,
        /// The daemon's.
        host: Abi,
    },
    /// A minor version above the daemon's.
    #[error(
        "it is built for plugin ABI {plugin}, this daemon has {host} only; upgrade Warren, or rebuild the \
         plugin with the older SDK"
    )]
    AbiMinor {
        /// The plugin's.
        plugin: Abi,
        /// The daemon's.
        host: Abi,
    },
    /// The entry point is missing.
    #[error(
        "it does not export the function `warren_plugin_v1`; is it built with `export_plugin!`, or in C \
         with default visibility of that function?"
    )]
    NoSymbol,
}

/// An ABI version, major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abi(pub u16, pub u16);

impl Abi {
    /// What this daemon's plugin hosts speak.
    pub const HOST: Self = Self(abi::ABI_MAJOR, abi::ABI_MINOR);
}

impl std::fmt::Display for Abi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// All that can be told about a file, also about one that cannot be loaded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// The machine it is built for, when it is this one.
    pub machine: Option<&'static str>,
    /// The libraries it needs.
    pub needed: Vec<String>,
    /// Its manifest, when that can be read and its ABI is ours.
    pub manifest: Option<Manifest>,
    /// Everything that is wrong, worst first. Empty: it can be loaded.
    pub problems: Vec<InspectError>,
}

/// Reads the manifest of a plugin file and checks that the file can be loaded. Runs and maps nothing.
pub fn inspect(bytes: &[u8]) -> Result<Manifest, InspectError> {
    let Findings { manifest, problems, .. } = examine(bytes);
    match problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => manifest.ok_or(InspectError::NoNote),
    }
}

/// Like [`inspect`], but goes on after a problem and reports all that can be told.
pub fn examine(bytes: &[u8]) -> Findings {
    let mut findings = Findings::default();
    let elf = match Elf::parse(bytes) {
        Ok(elf) => elf,
        Err(error) => {
            findings.problems.push(error);
            return findings;
        }
    };
    findings.machine = Some(host_machine());
    match manifest(&elf) {
        Ok(manifest) => findings.manifest = Some(manifest),
        Err(error) => findings.problems.push(error),
    }
    match elf.texts(elf::DT_NEEDED) {
        Ok(needed) => findings.needed = needed,
        Err(error) => findings.problems.push(error),
    }
    if !elf.exports_function(entry_symbol()) {
        findings.problems.push(InspectError::NoSymbol);
    }
    findings.problems.extend(origins(&elf));
    findings
}

/// What a file says of itself that cannot be loaded: half of one, one for another ABI or machine. `None`: nothing that
/// can be understood.
pub(super) fn claim(bytes: &[u8]) -> Option<Manifest> {
    let [json] = super::elf::notes_of_any(bytes, abi::NOTE_OWNER.as_bytes(), abi::NOTE_TYPE)[..] else {
        return None;
    };
    let (abi, raw) = read_manifest(json).ok()?;
    validated(serde_json::from_str(raw).ok()?, abi).ok()
}

fn entry_symbol() -> &'static [u8] {
    abi::ENTRY_SYMBOL.strip_suffix(b"\0").unwrap_or(abi::ENTRY_SYMBOL)
}

/// Every use of `$ORIGIN`, by name.
fn origins(elf: &Elf<'_>) -> Vec<InspectError> {
    const TAGS: [(elf::DynamicTag, &str); 3] =
        [(elf::DT_RUNPATH, "RUNPATH"), (elf::DT_RPATH, "RPATH"), (elf::DT_NEEDED, "NEEDED")];
    TAGS.iter()
        .flat_map(|&(tag, name)| match elf.texts(tag) {
            Ok(values) => values
                .into_iter()
                .filter(|value| value.contains("$ORIGIN") || value.contains("${ORIGIN}"))
                .map(|value| InspectError::Origin { tag: name, value })
                .collect(),
            Err(error) => vec![error],
        })
        .collect()
}

fn manifest(elf: &Elf<'_>) -> Result<Manifest, InspectError> {
    match *elf.notes(abi::NOTE_OWNER.as_bytes(), abi::NOTE_TYPE)? {
        [] => Err(InspectError::NoNote),
        [json] => parse_manifest(json),
        ref many => Err(InspectError::ManyNotes(many.len())),
    }
}

/// The manifest as its note holds it. Unknown keys are left to later minor versions of the ABI.
#[derive(Deserialize)]
struct RawManifest {
    name: String,
    version: String,
    #[serde(default)]
    prefixes: Vec<String>,
    timeout: Option<String>,
    #[serde(default)]
    settings: Vec<String>,
    #[serde(default)]
    targets: Targets,
}

/// Read first: a manifest of another ABI may look different in all else.
#[derive(Deserialize)]
struct RawAbi {
    abi: AbiFields,
}

#[derive(Deserialize)]
struct AbiFields {
    major: u16,
    minor: u16,
}

fn parse_manifest(json: &[u8]) -> Result<Manifest, InspectError> {
    let (plugin, json) = read_manifest(json)?;
    if plugin.0 != Abi::HOST.0 {
        return Err(InspectError::AbiMajor { plugin, host: Abi::HOST });
    }
    if plugin.1 > Abi::HOST.1 {
        return Err(InspectError::AbiMinor { plugin, host: Abi::HOST });
    }
    let invalid = |reason: String| InspectError::Manifest(reason);
    let raw: RawManifest = serde_json::from_str(json).map_err(|error| invalid(error.to_string()))?;
    validated(raw, plugin).map_err(invalid)
}

/// The text of a manifest, and the ABI that it is of.
fn read_manifest(json: &[u8]) -> Result<(Abi, &str), InspectError> {
    let invalid = |reason: String| InspectError::Manifest(reason);
    if json.len() > MAX_MANIFEST_BYTES {
        return Err(invalid(format!("it has {} bytes, the bound is {MAX_MANIFEST_BYTES}", json.len())));
    }
    let padding = json.iter().rev().take_while(|&&byte| byte == 0).count();
    let json =
        std::str::from_utf8(&json[..json.len() - padding]).map_err(|_| invalid("it is not UTF-8".into()))?;
    let RawAbi { abi: AbiFields { major, minor } } =
        serde_json::from_str(json).map_err(|error| invalid(error.to_string()))?;
    Ok((Abi(major, minor), json))
}

fn validated(raw: RawManifest, abi: Abi) -> Result<Manifest, String> {
    let RawManifest { name, version, prefixes, timeout, settings, targets } = raw;
    check_name(&name)?;
    check_text("version", &version, MAX_VERSION_BYTES)?;
    check_list("prefix", &prefixes, MAX_PREFIXES, MAX_PREFIX_BYTES)?;
    check_list("settings key", &settings, MAX_SETTINGS, MAX_SETTING_BYTES)?;
    for keys in [&targets.exclusive, &targets.clears, &targets.stores] {
        check_list("target's settings key", keys, MAX_SETTINGS, MAX_SETTING_BYTES)?;
    }
    let timeout = timeout.map(|text| check_timeout(&text)).transpose()?;
    Ok(Manifest { name, version, abi_major: abi.0, abi_minor: abi.1, prefixes, timeout, settings, targets })
}

fn check_name(name: &str) -> Result<(), String> {
    let charset = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if charset && !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.starts_with('-') {
        return Ok(());
    }
    Err(format!(
        "its name is {name:?}; 1 to {MAX_NAME_BYTES} of a-z, 0-9 and `-` are allowed, the first no `-`, \
         e.g. \"backup-database\""
    ))
}

fn check_text(what: &str, text: &str, max: usize) -> Result<(), String> {
    if text.trim() != text || text.is_empty() {
        Err(format!("{what} {text:?} is empty or has blanks at its ends"))
    } else if text.chars().any(char::is_control) {
        Err(format!("{what} {text:?} has control characters"))
    } else if text.len() > max {
        Err(format!("a {what} has {} bytes, the bound is {max}", text.len()))
    } else {
        Ok(())
    }
}

fn check_list(what: &str, texts: &[String], max: usize, max_bytes: usize) -> Result<(), String> {
    if texts.len() > max {
        return Err(format!("it lists {} times a {what}, the bound is {max}", texts.len()));
    }
    let mut seen = HashSet::new();
    for text in texts {
        check_text(what, text, max_bytes)?;
        if !seen.insert(text) {
            return Err(format!("{what} {text:?} stands in it twice"));
        }
    }
    Ok(())
}

fn check_timeout(text: &str) -> Result<Duration, String> {
    let timeout = warren_plugin::duration::parse(text).map_err(|error| format!("timeout: {error}"))?;
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        return Err(format!("its timeout is {text:?}; more than 0 and at most 30 days are allowed"));
    }
    Ok(timeout)
}

fn major_remedy(plugin: Abi, host: Abi) -> &'static str {
    if plugin.0 > host.0 {
        "it is newer than this daemon: upgrade Warren, or rebuild the plugin with the SDK of this version"
    } else {
        "it is older than this daemon: rebuild it with the SDK of this version"
    }
}
