//! The configured directories: which may be cleaned, and how one is opened without following any symbolic link on
//! the way to it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// Directories that the system lives in: never cleaned themselves. What lies below them may be.
const SYSTEM: [&str; 28] = [
    "/",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lost+found",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/usr",
    "/usr/bin",
    "/usr/include",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/spool",
];

/// Never cleaned, nor anything below them: no place for temporary files.
const SYSTEM_TREES: [&str; 9] =
    ["/bin", "/boot", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/dev"];

/// In spite of [`SYSTEM_TREES`].
const SHARED_MEMORY: &str = "/dev/shm";

/// A directory to clean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Top {
    path: PathBuf,
    names: Vec<OsString>,
}

/// Why a directory cannot be opened.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// It is not there.
    Missing,
    /// One line that says what is wrong.
    Failed(String),
}

impl Top {
    /// Checks one of `directories`; the error says what to write instead.
    pub(crate) fn parse(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        if !path.is_absolute() {
            return Err(format!("{shown} is not an absolute path: write one that begins with /"));
        }
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => names.push(name.to_owned()),
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(format!("{shown} has a \"..\": write the path without it"));
                }
            }
        }
        let path: PathBuf = Path::new("/").join(names.iter().collect::<PathBuf>());
        let is_system = SYSTEM.iter().any(|system| path == Path::new(system))
            || SYSTEM_TREES.iter().any(|tree| path.starts_with(tree)) && !path.starts_with(SHARED_MEMORY);
        if is_system {
            return Err(format!(
                "{shown} belongs to the system and is not cleaned: name the directory inside it"
            ));
        }
        if let Some(link) = path.ancestors().find(|part| part.is_symlink()) {
            let real =
                path.canonicalize().map_or("the real path".to_owned(), |real| real.display().to_string());
            let link = link.display();
            return Err(format!(
                "{shown} leads through the symbolic link {link}: write {real} if that is meant"
            ));
        }
        if path.exists() && !path.is_dir() {
            return Err(format!("{shown} is not a directory: name one"));
        }
        Ok(Self { path, names })
    }

    /// Its path, without `.` and double slashes.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it, following no symbolic link at any place of the path, whoever may have put one there since.
    pub(crate) fn open(&self) -> Result<OwnedFd, NotOpened> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut part = PathBuf::from("/");
        let failed = |part: &Path, error: Errno| match error {
            Errno::NOENT => NotOpened::Missing,
            Errno::NOTDIR | Errno::LOOP => {
                NotOpened::Failed(format!("{} is a symbolic link or no directory", part.display()))
            }
            error => NotOpened::Failed(format!("{}: {error}", part.display())),
        };
        let root = rustix::fs::openat(CWD, "/", flags | OFlags::PATH, Mode::empty());
        let mut open = root.map_err(|error| failed(&part, error))?;
        for (index, name) in self.names.iter().enumerate() {
            part.push(name);
            let access = if index + 1 == self.names.len() { OFlags::RDONLY } else { OFlags::PATH };
            open = rustix::fs::openat(&open, name.as_os_str(), flags | access, Mode::empty())
                .map_err(|error| failed(&part, error))?;
        }
        Ok(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_harm_the_system_are_refused() {
        for path in [
            "/",
            "//",
            "/.",
            "/etc",
            "/etc/",
            "/usr/./bin",
            "/var/lib",
            "/proc/1",
            "/sys/kernel",
            "/dev",
            "/dev/pts",
            "/boot/efi",
            "/home",
        ] {
            let error = Top::parse(Path::new(path)).expect_err(path);
            assert!(error.contains("belongs to the system"), "{path}: {error}");
        }
        for path in ["tmp", "", "./x", "/tmp/../etc"] {
            let error = Top::parse(Path::new(path)).expect_err(path);
            assert!(error.contains("absolute path") || error.contains(".."), "{path}: {error}");
        }
    }

    #[test]
    fn ordinary_places_for_temporary_files_are_taken() {
        for path in
            ["/tmp", "/var/tmp", "/var/cache/app", "/home/app/tmp", "/dev/shm/app", "/usr/local/app/tmp"]
        {
            assert!(Top::parse(Path::new(path)).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_symbolic_link_anywhere_in_the_path_is_refused_with_the_real_path() {
        let place = tempfile::tempdir().expect("a directory");
        let real = place.path().canonicalize().expect("it exists");
        std::fs::create_dir_all(real.join("real/sub")).expect("new");
        std::os::unix::fs::symlink(real.join("real"), real.join("link")).expect("new");
        for path in ["link", "link/sub"] {
            let error = Top::parse(&real.join(path)).expect_err(path);
            let meant = real.join(path.replace("link", "real"));
            assert!(
                error.contains("symbolic link") && error.contains(&meant.display().to_string()),
                "{error}"
            );
        }
    }

    #[test]
    fn a_link_that_came_later_is_not_followed() {
        let place = tempfile::tempdir().expect("a directory");
        let real = place.path().canonicalize().expect("it exists");
        std::fs::create_dir_all(real.join("a/b")).expect("new");
        let top = Top::parse(&real.join("a/b")).expect("a directory");
        top.open().expect("nothing in the way");
        std::fs::rename(real.join("a"), real.join("c")).expect("same file system");
        assert!(matches!(top.open(), Err(NotOpened::Missing)));
        std::os::unix::fs::symlink(real.join("c"), real.join("a")).expect("new");
        assert!(matches!(top.open(), Err(NotOpened::Failed(why)) if why.contains("symbolic link")));
    }
}
