//! Opens a plugin that lies behind symbolic links, as package managers and mounted volumes lay files out. Every link and
//! every directory on the way is checked, and what was checked is what is opened: nobody but root and the daemon's own
//! user may decide where it leads.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::snapshot_error::{SnapshotError, system};

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

/// How a plugin file is opened: never through a link, and without waiting for the other end of a FIFO.
pub(super) const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// A step on the way.
enum PathStep {
    Root,
    Up,
    Name(OsString),
}

/// Where the way has led so far.
struct Way {
    directory: OwnedFd,
    /// For errors.
    path: PathBuf,
}

/// Opens the file that `path` leads to. Its own owner and mode are not checked here.
pub(super) fn open(path: &Path) -> Result<File, SnapshotError> {
    let path =
        std::path::absolute(path).map_err(|error| SnapshotError::System { doing: "name it", error })?;
    let mut ahead: VecDeque<PathStep> = steps(&path).collect();
    let mut way = Way::root()?;
    let mut links = 0;
    while let Some(step) = ahead.pop_front() {
        let name = match step {
            PathStep::Root => {
                way = Way::root()?;
                continue;
            }
            PathStep::Up => {
                way = way.enter(OsStr::new(".."))?;
                continue;
            }
            PathStep::Name(name) => name,
        };
        let stat = way.look_at(&name)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(way.fault(&name, "leads through too many links".to_owned()));
                }
                if let Some(fault) = owned_by_others(&stat) {
                    return Err(way.fault(&name, fault));
                }
                let target = rustix::fs::readlinkat(&way.directory, &*name, Vec::new());
                let target =
                    PathBuf::from(OsString::from_vec(target.map_err(system("read the link"))?.into_bytes()));
                for step in steps(&target).collect::<Vec<_>>().into_iter().rev() {
                    ahead.push_front(step);
                }
            }
            _ if ahead.is_empty() => return way.open(&name),
            _ => way = way.enter(&name)?,
        }
    }
    Err(SnapshotError::NotRegular("a directory"))
}

fn steps(path: &Path) -> impl Iterator<Item = PathStep> {
    path.components().filter_map(|component| match component {
        Component::RootDir => Some(PathStep::Root),
        Component::ParentDir => Some(PathStep::Up),
        Component::Normal(name) => Some(PathStep::Name(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    })
}

impl Way {
    fn root() -> Result<Self, SnapshotError> {
        Self::at(rustix::fs::CWD, OsStr::new("/"), PathBuf::from("/"))
    }

    fn enter(&self, name: &OsStr) -> Result<Self, SnapshotError> {
        Self::at(&self.directory, name, self.path.join(name))
    }

    /// Opens a directory, and checks on what was opened who may put files there. In a sticky one, the owner of each file
    /// alone may replace it.
    fn at(from: impl AsFd, name: &OsStr, path: PathBuf) -> Result<Self, SnapshotError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(from, name, flags, Mode::empty())
            .map_err(missing("open a directory on its way"))?;
        let stat = rustix::fs::fstat(&directory).map_err(system("examine a directory on its way"))?;
        let open_to_others = (stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0)
            .then(|| format!("may be changed by others (mode {:03o})", stat.st_mode & 0o7777));
        match owned_by_others(&stat).or(open_to_others) {
            Some(fault) => Err(SnapshotError::Symlink { place: path, fault }),
            None => Ok(Self { directory, path }),
        }
    }

    fn look_at(&self, name: &OsStr) -> Result<Stat, SnapshotError> {
        rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(missing("examine what it leads to"))
    }

    fn open(&self, name: &OsStr) -> Result<File, SnapshotError> {
        let file = rustix::fs::openat(&self.directory, name, FILE, Mode::empty());
        Ok(File::from(file.map_err(missing("open what it leads to"))?))
    }

    fn fault(&self, name: &OsStr, fault: String) -> SnapshotError {
        SnapshotError::Symlink { place: self.path.join(name), fault }
    }
}

fn owned_by_others(stat: &Stat) -> Option<String> {
    let trusted = [0, rustix::process::geteuid().as_raw()].contains(&stat.st_uid);
    (!trusted).then(|| format!("belongs to user id {}", stat.st_uid))
}

fn missing(doing: &'static str) -> impl Fn(Errno) -> SnapshotError {
    move |errno| match errno {
        Errno::NOENT | Errno::NOTDIR => SnapshotError::Missing,
        Errno::NXIO => SnapshotError::NotRegular("a socket or a device"),
        errno => system(doing)(errno),
    }
}
