//! Plugins as files: what the ELF note says without running anything, and the sealed snapshot that hosts load.

mod discover;
mod elf;
mod inspect;
mod links;
mod report;
#[cfg(test)]
mod sample;
mod snapshot;
mod snapshot_error;
mod targets;
#[cfg(test)]
mod tests;
mod wanted;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

pub use discover::{DiscoverError, Discovered, MAX_PLUGINS, Refused, discover};
pub use inspect::{Abi, Findings, InspectError, MAX_MANIFEST_BYTES, examine, inspect};
pub use report::{InspectReport, report};
pub use snapshot_error::{MAX_PLUGIN_BYTES, SnapshotError};
pub use targets::{TargetConflict, Targets, target_conflicts};
pub(crate) use wanted::texts;
pub use wanted::{WantedHandler, route_entries, wanted_handlers};

/// What a plugin says of itself in its ELF note.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The plugin's name, e.g. `backup-database`.
    pub name: String,
    pub version: String,
    /// ABI major: must equal the host's.
    pub abi_major: u16,
    /// ABI minor: must not be above the host's.
    pub abi_minor: u16,
    pub prefixes: Vec<String>,
    pub timeout: Option<Duration>,
    /// The settings keys it knows.
    pub settings: Vec<String>,
    /// Which of them say what a handler works on.
    pub targets: Targets,
}

/// A plugin file's bytes, copied into a sealed memfd, digested and inspected. Safe to hand to hosts: whatever
/// happens to the file on disk cannot touch it.
#[derive(Debug)]
pub struct Snapshot {
    /// Where it was read from.
    pub path: PathBuf,
    /// The sealed memfd. It stays open as long as the snapshot lives.
    pub memfd: OwnedFd,
    /// SHA-256 of the sealed bytes, lower-case hex.
    pub sha256: String,
    /// Size in bytes.
    pub len: u64,
    /// What its note says.
    pub manifest: Manifest,
}
