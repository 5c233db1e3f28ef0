//! The walk through one directory: by descriptors only, so that whatever is renamed or replaced meanwhile, nothing
//! outside the directory is opened or deleted. Every name is looked up relative to the open directory it was read
//! from, and never through a symbolic link or into another mount.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use warren_plugin::Failure;

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
    let mut walk = Walk { rules, summary, levels: Vec::new(), path: path.to_owned(), mount: None };
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
}

/// One open directory.
struct Level {
    dir: Dir,
    /// Its name in the level above.
    name: CString,
    /// It was last changed before the limit; asked before anything in it was deleted, which changes it.
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
    /// Makes an open directory the innermost level, unless it is on another mount.
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
        let old = stat.stx_mtime.tv_sec < self.rules.before;
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
        stat.stx_mtime.tv_sec < self.rules.before
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

/// What is asked of every entry.
const FIELDS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::SystemTime;

    /// Everything that exists is old enough.
    const ALL: Rules = Rules {
        before: i64::MAX,
        patterns: Vec::new(),
        remove_empty_directories: true,
        dry_run: false,
        max_files: u64::MAX,
    };

    fn run(top: &Path, rules: &Rules, mut before_entry: impl FnMut()) -> Summary {
        let mut summary = Summary::default();
        let open = fs::File::open(top).expect("it is there").into();
        clean(open, top, rules, &mut summary, &mut || {
            before_entry();
            Ok(())
        })
        .expect("never stopped");
        summary
    }

    /// A directory to clean and one outside of it, both with a file that is old enough.
    fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let place = tempfile::tempdir().expect("a directory");
        let (top, outside) = (place.path().join("top"), place.path().join("outside"));
        for directory in [&top.join("sub"), &outside] {
            fs::create_dir_all(directory).expect("new");
            fs::write(directory.join("file"), "12345").expect("new");
        }
        (place, top, outside)
    }

    #[test]
    fn a_directory_replaced_by_a_link_leads_nowhere() {
        let (_place, top, outside) = place();
        let mut first = true;
        let summary = run(&top, &ALL, || {
            if std::mem::take(&mut first) {
                fs::rename(top.join("sub"), top.join("moved")).expect("same file system");
                symlink(&outside, top.join("sub")).expect("the name is free");
            }
        });
        assert!(outside.join("file").exists(), "the walk left its directory");
        assert!(top.join("sub").is_symlink());
        assert_eq!((summary.skipped, summary.errors), (1, 0), "{summary:?}");
    }

    #[test]
    fn a_directory_replaced_by_a_link_after_it_was_entered_leads_nowhere() {
        let (_place, top, outside) = place();
        let mut asked = 0;
        run(&top, &ALL, || {
            asked += 1;
            if asked == 2 {
                fs::rename(top.join("sub"), top.join("moved")).expect("same file system");
                symlink(&outside, top.join("sub")).expect("the name is free");
            }
        });
        assert!(outside.join("file").exists(), "the walk left its directory");
        assert!(!top.join("moved/file").exists(), "the entered directory was cleaned under its new name");
    }

    #[test]
    fn what_vanishes_meanwhile_is_no_error() {
        for vanishes_at in 1..=2 {
            let (_place, top, _) = place();
            let mut asked = 0;
            let summary = run(&top, &ALL, || {
                asked += 1;
                if asked == vanishes_at {
                    fs::remove_dir_all(top.join("sub")).expect("it was there");
                }
            });
            assert_eq!((summary.files, summary.errors), (0, 0), "at {vanishes_at}: {summary:?}");
        }
    }

    #[test]
    fn links_and_sockets_are_left_alone() {
        let (_place, top, outside) = place();
        symlink(&outside, top.join("to-directory")).expect("new");
        symlink(outside.join("file"), top.join("to-file")).expect("new");
        let _socket = std::os::unix::net::UnixListener::bind(top.join("socket")).expect("new");
        let summary = run(&top, &ALL, || {});
        assert_eq!((summary.files, summary.skipped, summary.errors), (1, 3, 0), "{summary:?}");
        assert!(
            outside.join("file").exists() && top.join("to-file").is_symlink() && top.join("socket").exists()
        );
    }

    #[test]
    fn another_mount_is_not_entered() {
        let (dev, shm) = (Path::new("/dev"), Path::new("/dev/shm"));
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
        let (Ok(outer), Ok(inner)) = (device(dev), device(shm)) else { return };
        assert_ne!(outer, inner, "this test needs a /dev/shm that is a mount, as Linux systems have it");
        let file = tempfile::NamedTempFile::with_prefix_in("warren-clean-temp-", shm).expect("a file");
        let name = file.path().file_name().and_then(OsStr::to_str).expect("plain");
        let patterns = vec![Pattern::parse(name).expect("plain")];
        let rules = Rules { patterns, dry_run: true, ..ALL };
        assert_eq!(run(shm, &rules, || {}).files, 1, "the file can be found");
        let summary = run(dev, &rules, || {});
        assert_eq!(summary.files, 0, "the walk entered another mount");
        assert!(summary.skipped > 0);
    }

    #[test]
    fn directories_are_removed_when_empty_and_old() {
        let (_place, top, _) = place();
        fs::create_dir_all(top.join("a/b/c")).expect("new");
        let young = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs())
            .expect("fits")
            - 60;
        assert_eq!(
            run(&top, &Rules { before: young, ..ALL }, || {}).directories,
            0,
            "they were made just now"
        );
        assert_eq!(run(&top, &Rules { remove_empty_directories: false, ..ALL }, || {}).directories, 0);
        let dry = run(&top, &Rules { dry_run: true, ..ALL }, || {});
        // `sub` lost its file above and is empty.
        assert_eq!((dry.directories, top.join("a/b/c").exists()), (4, true), "{dry:?}");
        let summary = run(&top, &ALL, || {});
        assert_eq!((summary.directories, summary.errors), (4, 0), "{summary:?}");
        assert!(top.exists() && fs::read_dir(&top).expect("readable").next().is_none());
    }

    #[test]
    fn a_directory_with_something_left_in_it_stays() {
        let (_place, top, outside) = place();
        symlink(outside, top.join("sub/link")).expect("new");
        let summary = run(&top, &ALL, || {});
        assert_eq!((summary.files, summary.directories, summary.errors), (1, 0, 0), "{summary:?}");
    }

    #[test]
    fn nesting_beyond_the_bound_is_an_error_and_not_a_crash() {
        let place = tempfile::tempdir().expect("a directory");
        let deep: PathBuf = std::iter::repeat_n("d", MAX_DEPTH + 5).collect();
        fs::create_dir_all(place.path().join(&deep)).expect("new");
        fs::write(place.path().join(&deep).join("file"), "x").expect("new");
        let summary = run(place.path(), &ALL, || {});
        assert_eq!((summary.files, summary.errors), (0, 1), "{summary:?}");
        assert!(summary.error_examples[0].contains("nested too deep"), "{summary:?}");
    }
}
