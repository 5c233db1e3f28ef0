//! When a handler runs: it writes a byte into a FIFO, and this side reads it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

/// A FIFO of this process's own.
pub(crate) struct Stamps {
    directory: TempDir,
    file: File,
}

impl Stamps {
    pub(crate) fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = path_in(&directory);
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)?;
        // Opened for both, so that neither end waits for the other.
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self { directory, file })
    }

    pub(crate) fn path(&self) -> PathBuf {
        path_in(&self.directory)
    }

    /// Waits for one byte: a task runs.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<Instant> {
        let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
        let ready = rustix::event::poll(&mut fds, Some(&timeout))?;
        let now = Instant::now();
        ensure!(ready == 1, "no task ran within {limit:?}");
        self.file.read_exact(&mut [0])?;
        Ok(now)
    }
}

fn path_in(directory: &TempDir) -> PathBuf {
    let directory: &Path = directory.path();
    directory.join("stamps")
}
