//! The walk on real directories: what is replaced, locked, open or old meanwhile.

use super::*;
use crate::pattern::Pattern;
use crate::rules::AgeBy;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::SystemTime;

/// Everything that exists is old enough.
const ALL: Rules = Rules {
    before: i64::MAX,
    age_by: AgeBy::Changed,
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
    assert!(outside.join("file").exists() && top.join("to-file").is_symlink() && top.join("socket").exists());
}

#[test]
fn what_is_locked_or_open_is_left_alone() {
    let (_place, top, _) = place();
    fs::create_dir(top.join("held")).expect("new");
    for name in ["locked", "open", "plain", "held/file"] {
        fs::write(top.join(name), "12345").expect("new");
    }
    let locked = fs::File::open(top.join("locked")).expect("it is there");
    locked.lock_shared().expect("nobody has it");
    let held = fs::File::open(top.join("held")).expect("it is there");
    held.lock().expect("nobody has it");
    let open = fs::File::open(top.join("open")).expect("it is there");
    let dry = run(&top, &Rules { dry_run: true, ..ALL }, || {});
    assert_eq!((dry.files, dry.in_use, dry.errors), (2, 3, 0), "{dry:?}");
    let summary = run(&top, &ALL, || {});
    assert_eq!((summary.files, summary.in_use, summary.errors), (2, 3, 0), "{summary:?}");
    assert!(top.join("locked").exists() && top.join("open").exists() && top.join("held/file").exists());
    drop((locked, held, open));
    assert_eq!(run(&top, &ALL, || {}).files, 3);
}

#[test]
fn the_age_is_by_the_newest_of_the_times_that_count() {
    let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()).expect("fits");
    // When each of the file's times was set; its ctime is now, which nobody can set.
    let old = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let (_place, top, _) = place();
    for (age_by, before, modified, is_deleted) in [
        (AgeBy::Changed, now - 60, old, false),
        (AgeBy::Changed, now + 60, old, true),
        (AgeBy::Changed, now + 60, old + std::time::Duration::from_secs(4_000_000_000), false),
        (AgeBy::Modified, now - 60, old, true),
        (AgeBy::Modified, 999_999_999, old, false),
        (AgeBy::Used, now + 60, old, true),
    ] {
        let path = top.join("file");
        fs::write(&path, "12345").expect("new");
        let times = fs::FileTimes::new().set_modified(modified).set_accessed(old);
        fs::File::options().write(true).open(&path).and_then(|file| file.set_times(times)).expect("ours");
        let patterns = vec![Pattern::parse("file").expect("plain")];
        let rules = Rules { age_by, before, patterns, remove_empty_directories: false, ..ALL };
        run(&top, &rules, || {});
        assert_eq!(!path.exists(), is_deleted, "{age_by:?} {before} {modified:?}");
    }
    let path = top.join("file");
    fs::write(&path, "12345").expect("new");
    let read = SystemTime::now() + std::time::Duration::from_secs(3600);
    let times = fs::FileTimes::new().set_modified(old).set_accessed(read);
    fs::File::options().write(true).open(&path).and_then(|file| file.set_times(times)).expect("ours");
    assert_eq!(
        run(&top, &Rules { age_by: AgeBy::Used, before: now + 60, ..ALL }, || {}).kept,
        1,
        "it was read"
    );
}

#[test]
fn another_mount_is_not_entered() {
    let (dev, shm) = (Path::new("/dev"), Path::new("/dev/shm"));
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    let (Ok(outer), Ok(inner)) = (device(dev), device(shm)) else { return };
    assert_ne!(outer, inner, "this test needs a /dev/shm that is a mount, as Linux systems have it");
    let file = tempfile::NamedTempFile::with_prefix_in("warren-clean-temp-", shm).expect("a file");
    let file = file.into_temp_path(); // Closed: an open one is left alone.
    let name = file.file_name().and_then(OsStr::to_str).expect("plain");
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
    let young =
        i64::try_from(SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()).expect("fits") - 60;
    assert_eq!(run(&top, &Rules { before: young, ..ALL }, || {}).directories, 0, "they were made just now");
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
