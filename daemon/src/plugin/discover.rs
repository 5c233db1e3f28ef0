//! Which plugins lie in the configured directories.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::snapshot::claim;
use super::{InspectError, Manifest, Snapshot, SnapshotError};

/// More files than this in all directories together are a mistake (a directory of system libraries), and each one
/// would be copied into memory.
pub const MAX_PLUGINS: usize = 1024;

/// Why nothing can be said about the plugins at all. What runs must be kept.
#[derive(Debug, Error)]
pub enum DiscoverError {
    /// A directory is missing or cannot be read.
    #[error("cannot read the plugins directory {}: {error}; check `plugins.dir` and that it is mounted", .directory.display())]
    Directory {
        directory: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Nobody could look: the system gives no thread.
    #[error("cannot look into the plugins directories: {0}")]
    NotLooked(io::Error),
    /// There were plugins, and now there is none. Found by the caller, who knows what was there before.
    #[error(
        "there is no plugin left in {}: nothing was changed, because a lost mount looks like that; to run without \
         handlers, restart",
        list(.dirs)
    )]
    SuddenlyEmpty { dirs: Vec<PathBuf> },
    /// Over [`MAX_PLUGINS`].
    #[error(
        "there are more than {MAX_PLUGINS} files `*.so` in the plugins directories, up to {}; is one of them a \
         directory of system libraries?",
        .directory.display()
    )]
    TooMany {
        /// Where the count went over the bound.
        directory: PathBuf,
    },
}

/// What discovery says of one file.
pub type Discovered = Result<Snapshot, Box<Refused>>;

/// A file that cannot be taken as a plugin.
#[derive(Debug)]
pub struct Refused {
    pub path: PathBuf,
    pub error: SnapshotError,
    /// What the file says of itself, although it is refused; nothing of it was run.
    pub claim: Option<Manifest>,
}

impl Refused {
    fn new(path: PathBuf, error: SnapshotError) -> Box<Self> {
        Box::new(Self { claim: claim(&path, &error), path, error })
    }

    /// Only who may be trusted can have written what it says.
    pub fn is_trusted(&self) -> bool {
        !matches!(
            self.error,
            SnapshotError::Symlink { .. }
                | SnapshotError::Owner { .. }
                | SnapshotError::Writable { .. }
                | SnapshotError::Directory { .. }
        )
    }

    /// It may be a plugin that was not copied to its end: then nothing can be known of it yet.
    pub fn may_be_half(&self) -> bool {
        let inspected =
            |error: &InspectError| matches!(error, InspectError::Empty | InspectError::Truncated { .. });
        match &self.error {
            SnapshotError::Changed => true,
            SnapshotError::Inspect(error) => inspected(error),
            _ => false,
        }
    }
}

/// Takes a snapshot of every `*.so` in the directories: directories in the order given, files in name order. Names
/// that begin with a dot and names with anything after `.so` (`x.so.part`, `x.so.tmp`, `x.so~`) are copies under way and
/// left alone. Of two files that are a plugin of the same name the first one has it, the later one is an error row.
pub fn discover(directories: &[PathBuf]) -> Result<Vec<Discovered>, DiscoverError> {
    let mut paths = Vec::new();
    for directory in directories {
        paths.append(&mut candidates(directory)?);
        if paths.len() > MAX_PLUGINS {
            return Err(DiscoverError::TooMany { directory: directory.clone() });
        }
    }
    let mut first: HashMap<String, PathBuf> = HashMap::new();
    Ok(paths
        .into_iter()
        .filter_map(|path| match Snapshot::take(&path) {
            // Removed between the listing and now: as if it had never been there.
            Err(SnapshotError::Missing) => None,
            Err(error) => Some(Err(Refused::new(path, error))),
            Ok(snapshot) => Some(admit(snapshot, &mut first)),
        })
        .collect())
}

fn admit(snapshot: Snapshot, first: &mut HashMap<String, PathBuf>) -> Discovered {
    let name = snapshot.manifest.name.clone();
    if let Some(first) = first.get(&name).cloned() {
        return Err(Refused::new(snapshot.path, SnapshotError::Duplicate { name, first }));
    }
    first.insert(name, snapshot.path.clone());
    Ok(snapshot)
}

fn candidates(directory: &Path) -> Result<Vec<PathBuf>, DiscoverError> {
    let failed = |error| DiscoverError::Directory { directory: directory.to_owned(), error };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_candidate(&entry.file_name()) {
            paths.push(entry.path());
        }
        if paths.len() > MAX_PLUGINS {
            return Err(DiscoverError::TooMany { directory: directory.to_owned() });
        }
    }
    paths.sort();
    Ok(paths)
}

fn list(directories: &[PathBuf]) -> String {
    let names: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
    names.join(", ")
}

fn is_candidate(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".so") && !name.starts_with(b".")
}
