//! The control socket as a file: made without a moment of wrong permissions, never taken from a living daemon,
//! removed only while it is still ours.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections the kernel holds while we serve as many as we allow; beyond it a client is told to try again.
const BACKLOG: i32 = 64;

/// Two daemons that start at once take turns by a lock on the directory; nobody holds it for longer than a few
/// system calls.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The file of a listening socket. Dropping it removes the file, if it is still the one that was made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    group: u32,
}

impl SocketFile {
    /// The group that the file belongs to.
    pub(super) fn group(&self) -> u32 {
        self.group
    }
}

/// Listens at `path`. A socket that a dead daemon left is replaced; a living one is an error that names its pid.
pub(super) fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let _lock = lock_directory(path)?;
    clear_the_way(path)?;
    let fd = bind(path, mode).map_err(|e| explain(path, &e.into()))?;
    // The umask may have taken the group's bits away.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    rustix::net::listen(&fd, BACKLOG)?;
    let meta = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), device: meta.dev(), inode: meta.ino(), group: meta.gid() };
    Ok((UnixListener::from(fd), file))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Ok(_lock) = lock_directory(&self.path) else { return };
        if let Ok(meta) = fs::symlink_metadata(&self.path)
            && (meta.dev(), meta.ino()) == (self.device, self.inode)
        {
            // Best effort: a socket left behind is recognised as dead by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn bind(path: &Path, mode: u32) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The kernel takes the mode of the file from the socket: it never exists with wider permissions.
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(fd)
}

fn lock_directory(path: &Path) -> io::Result<File> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(parent).map_err(|e| match e.kind() {
        ErrorKind::NotFound => io::Error::new(
            ErrorKind::NotFound,
            format!(
                "the directory {} of the control socket does not exist; create it, or set `daemon.socket` \
                 (under systemd RuntimeDirectory= makes it)",
                parent.display()
            ),
        ),
        kind => io::Error::new(kind, format!("cannot open {}: {e}", parent.display())),
    })?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(directory.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            // A file system without locks: starting two daemons at the same instant is then the operator's risk.
            Ok(()) | Err(_) => return Ok(directory),
        }
    }
    Err(io::Error::new(
        ErrorKind::WouldBlock,
        format!("another process holds a lock on {}; choose another `daemon.socket`", parent.display()),
    ))
}

fn clear_the_way(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(explain(path, &e)),
    };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            format!("{} exists and is not a socket; move it away, or set `daemon.socket`", path.display()),
        ));
    }
    match UnixStream::connect(path) {
        Ok(peer) => {
            // On the connecting side these are the credentials of the process that listens.
            let who = rustix::net::sockopt::socket_peercred(&peer)
                .map_or_else(|_| String::new(), |cred| format!(" (pid {})", cred.pid.as_raw_nonzero()));
            Err(io::Error::new(
                ErrorKind::AddrInUse,
                format!("another warrend is running{who}: it answers on {}", path.display()),
            ))
        }
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| explain(path, &e))
        }
        Err(e) if e.kind() == ErrorKind::WouldBlock => Err(io::Error::new(
            ErrorKind::AddrInUse,
            format!("another warrend is running: it listens on {} and is busy", path.display()),
        )),
        Err(e) => Err(explain(path, &e)),
    }
}

fn explain(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_the_mode_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        for mode in [0o600, 0o660, 0o666] {
            let (_listener, _file) = listen(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a closed listener leaves its file");
        let (listener, file) = listen(&path, 0o660).unwrap();
        let error = listen(&path, 0o660).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
        drop((listener, file));
        assert!(!path.exists(), "the last one out removes the file");
    }

    #[test]
    fn a_file_of_another_is_neither_replaced_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(listen(&path, 0o660).unwrap_err().to_string().contains("is not a socket"));
        fs::remove_file(&path).unwrap();

        let (_listener, file) = listen(&path, 0o660).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists(), "the successor's socket stays");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = listen(Path::new("/nonexistent/warren/control.sock"), 0o660).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/warren"), "{error}");
        assert!(error.to_string().contains("daemon.socket"), "{error}");
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = listen(&dir.path().join("x".repeat(200)), 0o660).unwrap_err();
        assert!(error.to_string().contains("cannot listen on"), "{error}");
    }
}
