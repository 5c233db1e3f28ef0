//! Why a file cannot be taken as a plugin.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;

use super::inspect::InspectError;

/// A larger file is no plugin: each snapshot is held in memory as long as a generation uses it.
pub const MAX_PLUGIN_BYTES: u64 = 256 * 1024 * 1024;

/// Why a file cannot be taken as a plugin. The text does not repeat the path.
#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error("there is no such file")]
    Missing,
    /// A symbolic link that others could turn to another file behind the daemon's back.
    #[error(
        "it is a symbolic link, and {} on its way {fault}: only root and the daemon's user may decide where it leads; \
         `chown root` and `chmod go-w` that, or put the plugin itself there with `install -m 644`",
        .place.display()
    )]
    Symlink {
        /// What on the way is not to be trusted.
        place: PathBuf,
        fault: String,
    },
    /// A directory, a FIFO, a device.
    #[error("it is {0}, not a regular file")]
    NotRegular(&'static str),
    /// Its owner could put other code there.
    #[error("it belongs to user id {owner}, who could change it under the daemon; `chown root` it")]
    Owner { owner: u32 },
    /// Others could put other code there.
    #[error("others may write to it (mode {mode:03o}); `chmod go-w` it")]
    Writable { mode: u32 },
    /// Everyone could rename files in its directory.
    #[error("everyone may replace files in its directory (mode {mode:03o}); `chmod o-w {}`", .directory.display())]
    Directory { directory: PathBuf, mode: u32 },
    /// Over [`MAX_PLUGIN_BYTES`].
    #[error("it has {len} bytes, the bound is {MAX_PLUGIN_BYTES}; `strip` it")]
    TooLarge { len: u64 },
    /// Somebody was writing to it.
    #[error(
        "it changed while it was read; reload again when the copy is complete, or better: copy it under another \
         name and `mv` it into place"
    )]
    Changed,
    /// Its bytes are no plugin.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Another file is a plugin of the same name.
    #[error("its plugin name is `{name}`, which {} has already; remove one of them", .first.display())]
    Duplicate {
        /// The name of both.
        name: String,
        /// The file that keeps it.
        first: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing}: {error}")]
    System { doing: &'static str, error: io::Error },
}

/// What the system says to a call that failed.
pub(super) fn system(doing: &'static str) -> impl Fn(Errno) -> SnapshotError {
    move |errno| SnapshotError::System { doing, error: errno.into() }
}
