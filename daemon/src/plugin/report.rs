//! Everything that can be told about a plugin file, for `warrenctl plugin inspect`. Runs nothing.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::snapshot::open_trusted;
use super::snapshot_error::{MAX_PLUGIN_BYTES, SnapshotError};
use super::{Findings, examine};
use crate::text::hex;

/// The facts and the problems of one file. What cannot be told is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InspectReport {
    /// The file as it was named.
    pub path: String,
    /// Whether a daemon run by this user would load it.
    pub ok: bool,
    pub name: Option<String>,
    pub version: Option<String>,
    /// The ABI it is built for, `major.minor`.
    pub abi: Option<String>,
    pub prefixes: Vec<String>,
    /// Its default time limit in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The settings keys it knows.
    pub settings: Vec<String>,
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// The machine it is built for, when it is this one.
    pub machine: Option<String>,
    /// The libraries it needs.
    pub needed: Vec<String>,
    /// What keeps the daemon from loading it, each with its remedy.
    pub problems: Vec<String>,
}

/// Inspects a file. Where it cannot even be read, that is the error; all else is in the report's `problems`, among
/// them what only concerns the place: its owner and mode as the user who runs this would have them checked.
pub fn report(path: &Path) -> io::Result<InspectReport> {
    let place = open_trusted(path).err().map(|error| error.to_string());
    let bytes = read(path)?;
    let Findings { machine, needed, manifest, problems } = examine(&bytes);
    let problems: Vec<String> = place.into_iter().chain(problems.iter().map(ToString::to_string)).collect();
    let mut report = InspectReport {
        path: path.display().to_string(),
        ok: problems.is_empty(),
        sha256: hex(&Sha256::digest(&bytes)),
        size: bytes.len() as u64,
        machine: machine.map(str::to_owned),
        needed,
        problems,
        ..InspectReport::default()
    };
    if let Some(manifest) = manifest {
        report.abi = Some(format!("{}.{}", manifest.abi_major, manifest.abi_minor));
        report.timeout_ms =
            manifest.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        report.name = Some(manifest.name);
        report.version = Some(manifest.version);
        report.prefixes = manifest.prefixes;
        report.settings = manifest.settings;
    }
    Ok(report)
}

/// Reads a regular file, through a link as well: `problems` names the link.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
    }
    if metadata.len() > MAX_PLUGIN_BYTES {
        return Err(io::Error::other(SnapshotError::TooLarge { len: metadata.len() }));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_PLUGIN_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
