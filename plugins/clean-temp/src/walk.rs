//! The walk through one directory: by descriptors only, so that whatever is renamed or replaced meanwhile, nothing
//! outside the directory is opened or deleted. Every name is looked up relative to the open directory it was read
//! from, and never through a symbolic link or into another mount.

#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use warren_plugin::Failure;

use crate::open_files::OpenFiles;
use crate::rules::{Rules, Summary};

/// Deepest nesting that is walked; each level holds one descriptor. Deeper ones are reported as errors.
const MAX_DEPTH: usize = 128;

/// Cleans one open directory, `path` being what to call it. `check` is asked at every entry, after it was looked at
/// and before anything is done to it; its error ends the walk at once and comes back.
pub(crate) fn clean(
    top: OwnedFd,
    path: &Path,
    rules: &Rules,
    summary: &mut Summary,
    check: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut walk = Walk {
        rules,
        summary,
        levels: Vec::new(),
        path: path.to_owned(),
        mount: None,
        open_files: OpenFiles::default(),
    };
    if let Err(error) = walk.enter(top, c"") {
        walk.summary.error(format!("{}: {error}", path.display()));
    }
    while let Some(level) = walk.levels.last_mut() {
        match level.dir.read() {
            Some(Ok(entry)) => {
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    walk.entry(name, check)?;
                }
            }
            Some(Err(error)) => {
                walk.summary.error(format!("{}: {error}", walk.path.display()));
                level.has_entries = true;
                walk.leave();
            }
            None => walk.leave(),
        }
        if walk.summary.stopped_at_max_files {
            break;
        }
    }
    Ok(())
}

struct Walk<'a> {
    rules: &'a Rules,
    summary: &'a mut Summary,
    levels: Vec<Level>,
    /// Of the innermost level, for messages only.
    path: PathBuf,
    /// The mount the top directory is on.
    mount: Option<Mount>,
    open_files: OpenFiles,
}

/// One open directory.
struct Level {
    dir: Dir,
    /// Its name in the level above.
    name: CString,
    /// It was last touched before the limit; asked before anything in it was deleted, which changes it.
    old: bool,
    /// Something stays in it, so that it is not empty afterwards.
    has_entries: bool,
}

/// Which mount a directory is on. Kernels before 5.8 do not tell the mount's own number: there a bind mount of the
/// same file system looks like a part of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mount {
    device: (u32, u32),
    number: Option<u64>,
}

impl Walk<'_> {
    /// Makes an open directory the innermost level, unless it is on another mount or somebody has it locked. It stays
    /// locked while it is walked.
    fn enter(&mut self, directory: OwnedFd, name: &CStr) -> Result<(), Errno> {
        let stat = rustix::fs::statx(&directory, c"", AtFlags::EMPTY_PATH, FIELDS)?;
        let mount = Mount {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            number: (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id),
        };
        if *self.mount.get_or_insert(mount) != mount {
            self.stays();
            self.summary.skipped += 1;
            return Ok(());
        }
        if is_locked(&directory) {
            self.stays();
            self.summary.in_use += 1;
            return Ok(());
        }
        let old = self.rules.age_by.touched(&stat) < self.rules.before;
        let dir = Dir::new(directory)?;
        if !self.levels.is_empty() {
            self.path.push(OsStr::from_bytes(name.to_bytes()));
        }
        self.levels.push(Level { dir, name: name.to_owned(), old, has_entries: false });
        Ok(())
    }

    /// Ends the innermost level, and removes its directory if that is wanted.
    fn leave(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        let Some(parent) = self.levels.last() else { return };
        let rules = self.rules;
        let wanted = rules.remove_empty_directories && level.old && !level.has_entries;
        let removed = match parent.dir.fd() {
            Ok(_) if wanted && rules.dry_run => Ok(()),
            Ok(parent) if wanted => rustix::fs::unlinkat(parent, &level.name, AtFlags::REMOVEDIR),
            Ok(_) => Err(Errno::NOTEMPTY),
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => self.summary.directories += 1,
            Err(Errno::NOENT) => {}
            // Something came into it meanwhile, or something else is in its place: it stays.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => self.stays(),
            Err(error) => {
                self.summary.error(format!("{}: {error}", self.path.display()));
                self.stays();
            }
        }
        self.path.pop();
    }

    /// Deals with one entry of the innermost level. One that is not there any more is nobody's error.
    fn entry(&mut self, name: &CStr, check: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        let looked = self.look(name);
        check()?;
        if let Err(error) = looked.and_then(|stat| self.act(name, &stat))
            && error != Errno::NOENT
        {
            self.summary.error(format!("{}: {error}", self.shown(name)));
            self.stays();
        }
        Ok(())
    }

    fn look(&self, name: &CStr) -> Result<Statx, Errno> {
        let level = self.levels.last().ok_or(Errno::NOENT)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        rustix::fs::statx(level.dir.fd()?, name, flags, FIELDS)
    }

    /// Enters a directory, deletes a file. By now the name may mean something else than what was looked at.
    fn act(&mut self, name: &CStr, stat: &Statx) -> Result<(), Errno> {
        let fd = self.levels.last().ok_or(Errno::NOENT)?.dir.fd()?;
        match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::Directory => {
                if self.levels.len() >= MAX_DEPTH {
                    self.summary.error(format!("{}: nested too deep, not entered", self.shown(name)));
                    self.stays();
                    return Ok(());
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(fd, name, flags, Mode::empty()) {
                    Ok(directory) => self.enter(directory, name)?,
                    // Replaced by a link or a file since it was looked at.
                    Err(Errno::NOTDIR | Errno::LOOP) => {
                        self.stays();
                        self.summary.skipped += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
            FileType::RegularFile if self.is_wanted(name, stat) => {
                if self.summary.files >= self.rules.max_files {
                    self.summary.stopped_at_max_files = true;
                    return Ok(());
                }
                // Asked before the file is opened here, too.
                let is_open = self.open_files.contain(stat);
                let lock = if is_open { None } else { open_to_lock(fd, name, stat)? };
                if is_open || lock.as_ref().is_some_and(is_locked) {
                    self.stays();
                    self.summary.in_use += 1;
                    return Ok(());
                }
                if !self.rules.dry_run {
                    rustix::fs::unlinkat(fd, name, AtFlags::empty())?;
                }
                self.summary.deleted(stat.stx_size, || self.path.join(OsStr::from_bytes(name.to_bytes())));
            }
            FileType::RegularFile => {
                self.stays();
                self.summary.kept += 1;
            }
            _ => {
                self.stays();
                self.summary.skipped += 1;
            }
        }
        Ok(())
    }

    fn is_wanted(&self, name: &CStr, stat: &Statx) -> bool {
        let patterns = &self.rules.patterns;
        self.rules.age_by.touched(stat) < self.rules.before
            && (patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name.to_bytes())))
    }

    /// The innermost level keeps an entry.
    fn stays(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.has_entries = true;
        }
    }

    fn shown(&self, name: &CStr) -> String {
        self.path.join(OsStr::from_bytes(name.to_bytes())).display().to_string()
    }
}

/// Opens a file so that it can be locked; `None` where this user may not. Something else in its place by now is an error.
fn open_to_lock(directory: BorrowedFd<'_>, name: &CStr, stat: &Statx) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(directory, name, flags, Mode::empty()) else { return Ok(None) };
    let now = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, FIELDS)?;
    let identity = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
    if identity(&now) == identity(stat) { Ok(Some(file)) } else { Err(Errno::NOENT) }
}

/// Takes the BSD lock that programs hold on what they want to keep, as systemd-tmpfiles does; whether somebody has it. Where
/// there are no locks, nobody has.
fn is_locked(file: &OwnedFd) -> bool {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
}

/// What is asked of every entry.
const FIELDS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);
