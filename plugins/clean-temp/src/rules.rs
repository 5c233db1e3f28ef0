//! What a run is to delete, and what it reports.

use std::path::PathBuf;

use rustix::fs::Statx;
use serde::{Deserialize, Serialize};

use crate::pattern::Pattern;

/// How many paths of each kind the result names.
const EXAMPLES: usize = 10;

/// What is deleted.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Last touched before this: seconds since 1970.
    pub(crate) before: i64,
    /// What counts as touching.
    pub(crate) age_by: AgeBy,
    /// A file's name must match one of them; none: every name.
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) remove_empty_directories: bool,
    /// Report only.
    pub(crate) dry_run: bool,
    /// Most files deleted in one run.
    pub(crate) max_files: u64,
}

/// Which of a file's times tell its age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AgeBy {
    /// The newest of mtime and ctime: what was unpacked, copied or moved here with its old mtime is new.
    #[default]
    Changed,
    /// The newest of those and atime.
    Used,
    /// mtime alone.
    Modified,
}

impl AgeBy {
    /// When a file was last touched: seconds since 1970.
    pub(crate) fn touched(self, stat: &Statx) -> i64 {
        let (modified, changed, read) = (stat.stx_mtime.tv_sec, stat.stx_ctime.tv_sec, stat.stx_atime.tv_sec);
        match self {
            Self::Modified => modified,
            Self::Changed => modified.max(changed),
            Self::Used => modified.max(changed).max(read),
        }
    }
}

/// What a run did, or in a dry run would have done.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    /// Deleted files.
    pub(crate) files: u64,
    /// Their sizes together.
    pub(crate) bytes: u64,
    /// Removed empty directories.
    pub(crate) directories: u64,
    /// Files that are too new, or match no pattern.
    pub(crate) kept: u64,
    /// Files and directories that somebody has locked, files that are open: left alone.
    pub(crate) in_use: u64,
    /// Symbolic links, devices, sockets, other mounts: never touched.
    pub(crate) skipped: u64,
    /// Configured directories that are not there.
    pub(crate) missing: u64,
    /// What could not be read or deleted.
    pub(crate) errors: u64,
    pub(crate) dry_run: bool,
    /// The run ended early because `max_files` was reached.
    pub(crate) stopped_at_max_files: bool,
    /// Some of the deleted files.
    pub(crate) examples: Vec<String>,
    /// Some of the errors.
    pub(crate) error_examples: Vec<String>,
}

impl Summary {
    /// Counts a deleted file, and keeps its path if it is among the first.
    pub(crate) fn deleted(&mut self, bytes: u64, path: impl FnOnce() -> PathBuf) {
        self.files += 1;
        self.bytes += bytes;
        if self.examples.len() < EXAMPLES {
            self.examples.push(path().display().to_string());
        }
    }

    /// Counts an error, and keeps it if it is among the first.
    pub(crate) fn error(&mut self, text: String) {
        self.errors += 1;
        if self.error_examples.len() < EXAMPLES {
            self.error_examples.push(text);
        }
    }
}
