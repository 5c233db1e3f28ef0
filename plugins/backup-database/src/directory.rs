//! The backup directory: one backup at a time in it, temporary files that do not stay, and names that appear whole.

use crate::failures;
use crate::naming::{Moment, Naming, Owner};
use crate::retention::Retention;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use warren_plugin::{Call, Failure, retry};

/// How often, and with which pause, to ask for the directory while another backup runs in it: one minute.
const LOCK_TRIES: u32 = 240;
const LOCK_PAUSE: Duration = Duration::from_millis(250);

/// What became of the backups there were.
pub(crate) struct Retained {
    pub(crate) removed: usize,
    /// Each expired one that could not be removed, and why.
    pub(crate) failed: Vec<String>,
    /// Those that look like this naming's, and are not certainly of this source: never removed.
    pub(crate) unproven: usize,
}

/// The directory, locked against other backups of the same naming and source until it is dropped or the process dies.
pub(crate) struct Directory<'a> {
    path: &'a Path,
    naming: &'a Naming,
    _lock: File,
}

/// A temporary file, removed when this is dropped; together with what SQLite may have left beside it.
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl<'a> Directory<'a> {
    /// Takes the lock, waiting for a backup that is running, and removes what one that died has left.
    pub(crate) fn lock(path: &'a Path, naming: &'a Naming, call: &Call<'_>) -> Result<Self, Failure> {
        let lock = open_lock(path, naming).map_err(|error| failures::on_directory(path, &error))?;
        let mut tries = 0;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => {
                    tries += 1;
                    call.sleep(LOCK_PAUSE)?;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(retry(
                        "backup-running",
                        format!("another backup into {} is still running", path.display()),
                    ));
                }
                Err(TryLockError::Error(error)) => return Err(failures::on_directory(path, &error)),
            }
        }
        let directory = Self { path, naming, _lock: lock };
        directory.remove_stale().map_err(|error| failures::on_directory(path, &error))?;
        Ok(directory)
    }

    /// The name for a backup of now, or of the next moment whose name is free.
    pub(crate) fn free_name(&self, mut moment: Moment, gzip: bool) -> (Moment, PathBuf) {
        loop {
            let path = self.path.join(self.naming.backup(moment, gzip));
            if path.symlink_metadata().is_err() {
                return (moment, path);
            }
            moment = moment.next();
        }
    }

    /// Makes an empty temporary file that only this user can read.
    pub(crate) fn temporary(&self, moment: Moment, stage: &str) -> Result<Temporary, Failure> {
        let path = self.path.join(self.naming.temporary(moment, stage));
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map(|file| Temporary { path, file })
            .map_err(|error| failures::on_directory(self.path, &error))
    }

    /// Gives a finished file its name. When this returns, both survive a power failure.
    pub(crate) fn publish(&self, temporary: &Temporary, path: &Path) -> Result<(), Failure> {
        let publish = || -> io::Result<()> {
            temporary.file.sync_all()?;
            fs::rename(&temporary.path, path)?;
            File::open(self.path)?.sync_all()
        };
        publish().map_err(|error| failures::on_directory(self.path, &error))
    }

    /// Removes the backups of this source that have had their time.
    pub(crate) fn retain(&self, retention: Retention, newest: Moment) -> Retained {
        let mut retained = Retained { removed: 0, failed: Vec::new(), unproven: 0 };
        let found = match self.list(|name| self.naming.owner_of(name)) {
            Ok(found) => found,
            Err(error) => {
                retained.failed.push(format!("{}: {error}", self.path.display()));
                return retained;
            }
        };
        let mut ours = Vec::new();
        for (owner, name) in found {
            match owner {
                Owner::Ours(moment) => ours.push((moment, name)),
                Owner::Unproven => retained.unproven += 1,
            }
        }
        for name in retention.expired(ours, newest) {
            match fs::remove_file(self.path.join(&name)) {
                Ok(()) => retained.removed += 1,
                Err(error) => retained.failed.push(format!("{name}: {error}")),
            }
        }
        retained
    }

    fn remove_stale(&self) -> io::Result<()> {
        for ((), name) in self.list(|name| self.naming.is_temporary(name).then_some(()))? {
            fs::remove_file(self.path.join(name))?;
        }
        Ok(())
    }

    /// The regular files whose name `of` makes something of. A link or a directory of that name is not ours.
    fn list<T>(&self, of: impl Fn(&str) -> Option<T>) -> io::Result<Vec<(T, String)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if let Some(what) = of(&name)
                && entry.file_type()?.is_file()
            {
                found.push((what, name));
            }
        }
        Ok(found)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing is lost if this fails: the next backup removes what is left. After `publish` there is nothing.
        let _ = fs::remove_file(&self.path);
        for end in ["-journal", "-wal", "-shm"] {
            let mut beside = self.path.clone().into_os_string();
            beside.push(end);
            let _ = fs::remove_file(beside);
        }
    }
}

/// Opens the file that is locked while a backup runs. It stays: removing it would let two processes lock two files.
pub(crate) fn open_lock(path: &Path, naming: &Naming) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(naming.lock()))
}
