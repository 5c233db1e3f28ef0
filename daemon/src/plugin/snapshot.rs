//! A plugin file's bytes in a sealed memfd: once taken, whatever happens to the file cannot hurt what runs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, SealFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::inspect::{self, inspect};
use super::links::{self, FILE};
use super::snapshot_error::{MAX_PLUGIN_BYTES, SnapshotError, system};
use super::{Manifest, Snapshot};
use crate::text::hex;

/// File times advance in ticks of up to 10 ms. A file is left alone until its last change is this old, so that any
/// change while it is read gives it another time.
const SETTLED_AGE: Duration = Duration::from_millis(20);

impl Snapshot {
    /// A plugin without a file, for what starts no host.
    ///
    /// # Panics
    /// When there is no `/dev/null`.
    #[cfg(any(test, feature = "simulate"))]
    pub(crate) fn stub(name: &str) -> Self {
        Self {
            path: format!("/{name}.so").into(),
            memfd: File::open("/dev/null").expect("/dev/null is there").into(),
            sha256: "ab12".to_owned(),
            len: 0,
            manifest: Manifest {
                name: name.to_owned(),
                version: "1.0.0".to_owned(),
                abi_major: 1,
                abi_minor: 0,
                prefixes: Vec::new(),
                timeout: None,
                settings: Vec::new(),
                targets: super::Targets::default(),
            },
        }
    }

    /// Copies a plugin file into a sealed memfd, digests and inspects the copy. Blocks for the time that takes, never
    /// on a FIFO.
    pub fn take(path: &Path) -> Result<Self, SnapshotError> {
        let file = open_trusted(path)?;
        let before = settled(&file)?;
        let memfd = File::from(create_memfd(path)?);
        let len = copy(&file, &memfd)?;
        let after = stat(&file)?;
        if len != size(&before) || !same(&before, &after) {
            return Err(SnapshotError::Changed);
        }
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&memfd, seals).map_err(system("seal the copy"))?;
        // Digested and inspected is what hosts will load, not what was read from the disk.
        let bytes = read_back(&memfd, len)?;
        let sha256 = hex(&Sha256::digest(&bytes));
        let manifest = inspect(&bytes)?;
        Ok(Self { path: path.to_owned(), memfd: OwnedFd::from(memfd), sha256, len, manifest })
    }
}

/// What a refused file says of itself. It is read as it is, through a link as well: this is never run.
pub(super) fn claim(path: &Path, refusal: &SnapshotError) -> Option<Manifest> {
    if matches!(
        refusal,
        SnapshotError::Missing | SnapshotError::NotRegular(_) | SnapshotError::TooLarge { .. }
    ) {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_PLUGIN_BYTES).read_to_end(&mut bytes).ok()?;
    inspect::claim(&bytes)
}

/// Opens a plugin file, and checks on the open file that nobody but root and the daemon's own user can change it. A link
/// is followed where the same holds for all of its way.
pub(super) fn open_trusted(path: &Path) -> Result<File, SnapshotError> {
    let (directory, name) = split(path)?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let parent = rustix::fs::open(&directory, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => SnapshotError::Missing,
        errno => system("open its directory")(errno),
    })?;
    let mode = rustix::fs::fstat(&parent).map_err(system("examine its directory"))?.st_mode;
    if mode & 0o1002 == 0o002 {
        return Err(SnapshotError::Directory { directory, mode: mode & 0o7777 });
    }
    let file = match rustix::fs::openat(&parent, name, FILE, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => links::open(path)?,
        Err(Errno::NOENT) => return Err(SnapshotError::Missing),
        Err(Errno::NXIO) => return Err(SnapshotError::NotRegular("a socket or a device")),
        Err(errno) => return Err(system("open it")(errno)),
    };
    check_trust(&stat(&file)?)?;
    Ok(file)
}

fn split(path: &Path) -> Result<(PathBuf, &OsStr), SnapshotError> {
    let name = path.file_name().ok_or(SnapshotError::NotRegular("a directory"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((directory.unwrap_or(Path::new(".")).to_owned(), name))
}

pub(super) fn check_trust(stat: &Stat) -> Result<(), SnapshotError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(SnapshotError::NotRegular("a directory")),
        FileType::Fifo => return Err(SnapshotError::NotRegular("a FIFO")),
        _ => return Err(SnapshotError::NotRegular("a socket or a device")),
    }
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(SnapshotError::Owner { owner: stat.st_uid });
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(SnapshotError::Writable { mode: stat.st_mode & 0o7777 });
    }
    if size(stat) > MAX_PLUGIN_BYTES {
        return Err(SnapshotError::TooLarge { len: size(stat) });
    }
    Ok(())
}

/// Waits until the file's times can tell a further change from the last one.
pub(super) fn settled(file: &File) -> Result<Stat, SnapshotError> {
    let age = file.metadata().and_then(|metadata| metadata.modified()).ok();
    let age = age.and_then(|modified| SystemTime::now().duration_since(modified).ok());
    if let Some(rest) = age.and_then(|age| SETTLED_AGE.checked_sub(age)) {
        std::thread::sleep(rest);
    }
    stat(file)
}

fn create_memfd(path: &Path) -> Result<OwnedFd, SnapshotError> {
    // Only a name for /proc/PID/maps, at most 249 bytes.
    let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(60).collect();
    let name = format!("warren:{name}");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(&*name, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3, where every memfd may be executed.
        Err(Errno::INVAL) => rustix::fs::memfd_create(&*name, flags),
        result => result,
    }
    .map_err(system("create a memfd (is sysctl `vm.memfd_noexec` 2?)"))
}

fn copy(file: &File, memfd: &File) -> Result<u64, SnapshotError> {
    let (mut from, mut to) = (file.take(MAX_PLUGIN_BYTES + 1), memfd);
    io::copy(&mut from, &mut to).map_err(|error| SnapshotError::System { doing: "copy it", error })
}

fn read_back(memfd: &File, len: u64) -> Result<Vec<u8>, SnapshotError> {
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| SnapshotError::TooLarge { len })?];
    memfd
        .read_exact_at(&mut bytes, 0)
        .map_err(|error| SnapshotError::System { doing: "read the copy", error })?;
    Ok(bytes)
}

fn stat(file: &File) -> Result<Stat, SnapshotError> {
    rustix::fs::fstat(file).map_err(system("examine it"))
}

pub(super) fn same(a: &Stat, b: &Stat) -> bool {
    let key = |stat: &Stat| {
        let times = (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
        (stat.st_dev, stat.st_ino, stat.st_size, times)
    };
    key(a) == key(b)
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}
