//! Snapshots, discovery and the report on real files.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, SealFlags};
use sha2::{Digest as _, Sha256};

use super::sample::{ENTRY, MANIFEST, good, shared};
use super::*;

/// A directory as an administrator makes it, whatever the umask of the tests.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o755);
    dir
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    chmod(&path, 0o644);
    path
}

fn named(name: &str) -> Vec<u8> {
    shared(&[&MANIFEST.replace("demo", name)], ENTRY, &["-nostdlib"])
}

fn refusal(path: &Path) -> String {
    Snapshot::take(path).expect_err("refused").to_string()
}

#[test]
fn snapshot_is_sealed_and_digested() {
    let dir = directory();
    let snapshot = Snapshot::take(&put(dir.path(), "demo.so", good())).unwrap();
    assert_eq!(snapshot.manifest.name, "demo");
    assert_eq!(snapshot.len, good().len() as u64);
    assert_eq!(snapshot.sha256, crate::text::hex(&Sha256::digest(good())));

    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    assert_eq!(rustix::fs::fcntl_get_seals(&snapshot.memfd).unwrap() & all, all);
    assert!(rustix::io::fcntl_getfd(&snapshot.memfd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    let memfd = File::from(snapshot.memfd);
    assert!(memfd.write_at(b"x", 0).is_err());
    assert!(memfd.set_len(0).is_err());
}

#[test]
fn overwriting_or_deleting_the_file_does_not_touch_the_snapshot() {
    let dir = directory();
    let path = put(dir.path(), "demo.so", good());
    let snapshot = Snapshot::take(&path).unwrap();
    fs::write(&path, b"garbage").unwrap();
    fs::remove_file(&path).unwrap();
    let mut bytes = vec![0; good().len()];
    File::from(snapshot.memfd).read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == good());
}

#[test]
fn same_bytes_have_the_same_digest_and_others_another() {
    let dir = directory();
    let digest = |name: &str, bytes: &[u8]| Snapshot::take(&put(dir.path(), name, bytes)).unwrap().sha256;
    assert_eq!(digest("a.so", good()), digest("b.so", good()));
    assert_ne!(digest("a.so", good()), digest("c.so", &named("other")));
}

#[test]
fn files_that_others_could_change_are_refused_with_the_remedy() {
    let dir = directory();
    let path = put(dir.path(), "demo.so", good());
    for mode in [0o664, 0o646, 0o666] {
        chmod(&path, mode);
        assert_eq!(refusal(&path), format!("others may write to it (mode {mode:03o}); `chmod go-w` it"));
    }
    chmod(&path, 0o755);
    assert!(Snapshot::take(&path).is_ok());

    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    let inside = put(&open, "demo.so", good());
    chmod(&open, 0o777);
    assert!(refusal(&inside).starts_with("everyone may replace files in its directory (mode 777)"));
    chmod(&open, 0o1777);
    assert!(Snapshot::take(&inside).is_ok(), "sticky: only the owner replaces files");
}

#[test]
fn a_link_is_followed_where_nobody_else_can_turn_it() {
    let (dir, elsewhere) = (directory(), directory());
    // As volumes of Kubernetes are laid out, and then as package managers link files.
    fs::create_dir(dir.path().join("..v1")).unwrap();
    put(&dir.path().join("..v1"), "demo.so", good());
    symlink("..v1", dir.path().join("..data")).unwrap();
    let link = dir.path().join("demo.so");
    symlink("..data/demo.so", &link).unwrap();
    let snapshot = Snapshot::take(&link).unwrap();
    assert_eq!((snapshot.path.as_path(), snapshot.manifest.name.as_str()), (link.as_path(), "demo"));
    let far = dir.path().join("far.so");
    symlink(put(elsewhere.path(), "demo.so", good()), &far).unwrap();
    assert!(Snapshot::take(&far).is_ok());
    let up = dir.path().join("up.so");
    symlink(format!("../{}/demo.so", elsewhere.path().file_name().unwrap().display()), &up).unwrap();
    assert!(Snapshot::take(&up).is_ok());

    for mode in [0o777, 0o775] {
        chmod(elsewhere.path(), mode);
        let expected = format!(
            "it is a symbolic link, and {} on its way may be changed by others (mode {mode:03o})",
            elsewhere.path().display()
        );
        assert!(refusal(&far).starts_with(&expected), "{}", refusal(&far));
    }
    chmod(elsewhere.path(), 0o1777);
    assert!(Snapshot::take(&far).is_ok(), "sticky: only the owner replaces files");
    chmod(&elsewhere.path().join("demo.so"), 0o664);
    assert!(refusal(&far).starts_with("others may write to it"));
}

#[test]
fn a_link_that_leads_nowhere_or_in_a_circle_is_refused_or_not_there() {
    let dir = directory();
    let link = |name: &str, target: &str| {
        let link = dir.path().join(name);
        symlink(target, &link).unwrap();
        link
    };
    assert_eq!(refusal(&link("gone.so", "nothing.so")), "there is no such file");
    assert_eq!(refusal(&link("not.so", "gone.so/x")), "there is no such file");
    assert_eq!(refusal(&link("self.so", ".")), "it is a directory, not a regular file");
    assert!(refusal(&link("circle.so", "circle.so")).contains("too many links"));
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("fifo"), Mode::from_raw_mode(0o644)).unwrap();
    assert_eq!(refusal(&link("fifo.so", "fifo")), "it is a FIFO, not a regular file");
}

#[test]
fn a_link_that_others_own_or_lies_among_theirs_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return crate::stderr::print("not tested: only root can make files of others");
    }
    let (dir, theirs) = (directory(), directory());
    let link = dir.path().join("demo.so");
    symlink(put(theirs.path(), "demo.so", good()), &link).unwrap();
    std::os::unix::fs::chown(theirs.path(), Some(4242), None).unwrap();
    let expected =
        format!("it is a symbolic link, and {} on its way belongs to user id 4242", theirs.path().display());
    assert!(refusal(&link).starts_with(&expected), "{}", refusal(&link));
    std::os::unix::fs::chown(theirs.path(), Some(0), None).unwrap();
    std::os::unix::fs::lchown(&link, Some(4242), None).unwrap();
    let expected =
        format!("it is a symbolic link, and {} on its way belongs to user id 4242", link.display());
    assert!(refusal(&link).starts_with(&expected), "{}", refusal(&link));
}

#[test]
fn foreign_owner_is_refused() {
    let dir = directory();
    let mut stat = rustix::fs::stat(put(dir.path(), "demo.so", good())).unwrap();
    let me = stat.st_uid;
    assert!(snapshot::check_trust(&stat).is_ok());
    stat.st_uid = 0;
    assert!(snapshot::check_trust(&stat).is_ok());
    stat.st_uid = me + 4242;
    let error = snapshot::check_trust(&stat).expect_err("refused").to_string();
    assert!(error.starts_with(&format!("it belongs to user id {}", me + 4242)), "{error}");
    stat.st_uid = me;
    stat.st_size = i64::try_from(MAX_PLUGIN_BYTES).unwrap() + 1;
    assert!(matches!(snapshot::check_trust(&stat), Err(SnapshotError::TooLarge { .. })));
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let dir = directory();
    assert_eq!(refusal(dir.path()), "it is a directory, not a regular file");
    let fifo = dir.path().join("fifo.so");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::from_raw_mode(0o644)).unwrap();
    assert_eq!(refusal(&fifo), "it is a FIFO, not a regular file");
    assert_eq!(refusal(&dir.path().join("none.so")), "there is no such file");
    assert_eq!(refusal(&dir.path().join("none/x.so")), "there is no such file");
    assert_eq!(refusal(Path::new("/")), "it is a directory, not a regular file");
}

#[test]
fn broken_plugin_is_refused_with_what_is_wrong() {
    let dir = directory();
    let cut = put(dir.path(), "cut.so", &good()[..good().len() / 2]);
    assert!(refusal(&cut).starts_with("the file is truncated"));
    assert!(refusal(&put(dir.path(), "empty.so", b"")).starts_with("the file is empty"));
    assert!(refusal(&put(dir.path(), "text.so", b"hello\n")).starts_with("this is a text file"));
}

#[test]
fn change_while_reading_shows_in_the_times() {
    let dir = directory();
    let path = put(dir.path(), "demo.so", good());
    for round in 0..10 {
        let file = File::open(&path).unwrap();
        let before = snapshot::settled(&file).unwrap();
        assert!(snapshot::same(&before, &rustix::fs::fstat(&file).unwrap()));
        File::options().write(true).open(&path).unwrap().write_all(&[round]).unwrap(); // same size, same inode
        assert!(!snapshot::same(&before, &rustix::fs::fstat(&file).unwrap()), "round {round}");
    }
}

#[test]
fn discovery_takes_plugins_in_name_order_and_leaves_copies_under_way_alone() {
    let (one, two) = (directory(), directory());
    put(one.path(), "b.so", &named("beta"));
    put(one.path(), "a.so", &named("alpha"));
    put(two.path(), "0.so", &named("gamma"));
    for name in [".hidden.so", ".x.so.part", "x.so.tmp", "x.so~", "x.so.1", "README", "so"] {
        put(one.path(), name, b"not looked at");
    }
    let found = discover(&[one.path().to_owned(), two.path().to_owned()]).unwrap();
    let names: Vec<String> = found.into_iter().map(|snapshot| snapshot.unwrap().manifest.name).collect();
    assert_eq!(names, ["alpha", "beta", "gamma"]);
}

#[test]
fn discovery_reports_bad_files_beside_good_ones() {
    let dir = directory();
    let first = put(dir.path(), "a.so", &named("alpha"));
    let broken = put(dir.path(), "b.so", b"text");
    let second = put(dir.path(), "c.so", &named("alpha"));
    put(dir.path(), "d.so", &named("delta"));
    let found = discover(&[dir.path().to_owned()]).unwrap();
    let rows: Vec<Result<String, (PathBuf, String)>> = found
        .into_iter()
        .map(|row| match row {
            Ok(snapshot) => Ok(snapshot.manifest.name),
            Err(refused) => Err((refused.path, refused.error.to_string())),
        })
        .collect();
    let [Ok(alpha), Err((text, why)), Err((double, taken)), Ok(delta)] = &rows[..] else {
        panic!("{rows:?}")
    };
    assert_eq!((alpha.as_str(), delta.as_str()), ("alpha", "delta"));
    assert_eq!((text, double), (&broken, &second));
    assert!(why.starts_with("this is a text file"));
    let expected =
        format!("its plugin name is `alpha`, which {} has already; remove one of them", first.display());
    assert_eq!(*taken, expected);
}

#[test]
fn what_a_refused_file_says_of_itself_is_known_and_whether_that_can_be_trusted() {
    let dir = directory();
    let of = |edit: &str| shared(&[&MANIFEST.replace(r#""major":1"#, edit)], ENTRY, &[]);
    chmod(&put(dir.path(), "a-open.so", good()), 0o664);
    put(dir.path(), "b-abi.so", &of(r#""major":2"#));
    put(dir.path(), "c-half.so", &good()[..good().len() / 2]);
    put(dir.path(), "d-start.so", &good()[..100]);
    put(dir.path(), "e-empty.so", b"");
    put(dir.path(), "f-text.so", b"hello");
    let mut machine = good().to_vec();
    machine[18] = 20;
    put(dir.path(), "g-machine.so", &machine);
    let elsewhere = directory();
    symlink(put(elsewhere.path(), "demo.so", good()), dir.path().join("h-link.so")).unwrap();
    chmod(elsewhere.path(), 0o777);
    let rows: Vec<(String, bool, bool, bool)> = discover(&[dir.path().to_owned()])
        .unwrap()
        .into_iter()
        .map(|row| {
            let refused = row.expect_err("refused");
            let claims = refused.claim.as_ref().is_some_and(|claim| claim.prefixes == ["Demo task"]);
            let name = refused.path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, claims, refused.is_trusted(), refused.may_be_half())
        })
        .collect();
    let table = [
        ("a-open", true, false, false),
        ("b-abi", true, true, false),
        ("c-half", true, true, true),
        ("d-start", false, true, true),
        ("e-empty", false, true, true),
        ("f-text", false, true, false),
        ("g-machine", true, true, false),
        ("h-link", true, false, false),
    ];
    let table: Vec<_> = table.map(|(name, a, b, c)| (name.to_owned(), a, b, c)).into();
    assert_eq!(rows, table);
}

#[test]
fn missing_directory_fails_the_discovery_as_a_whole() {
    let dir = directory();
    put(dir.path(), "a.so", good());
    let gone = dir.path().join("gone");
    let error = discover(&[dir.path().to_owned(), gone.clone()]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read the plugins directory {}: ", gone.display())), "{error}");
    assert!(discover(&[]).unwrap().is_empty());
}

#[test]
fn too_many_files_fail_the_discovery() {
    let dir = directory();
    for number in 0..=MAX_PLUGINS {
        File::create(dir.path().join(format!("{number}.so"))).unwrap();
    }
    assert!(matches!(discover(&[dir.path().to_owned()]), Err(DiscoverError::TooMany { .. })));
}

#[test]
fn report_tells_every_fact_and_every_problem() {
    let dir = directory();
    let path = put(dir.path(), "demo.so", good());
    let good_report = report(&path).unwrap();
    assert!(good_report.ok && good_report.problems.is_empty(), "{good_report:?}");
    assert_eq!(good_report.name.as_deref(), Some("demo"));
    assert_eq!(good_report.abi.as_deref(), Some("1.0"));
    assert_eq!(good_report.timeout_ms, Some(900_000));
    assert_eq!(good_report.sha256, Snapshot::take(&path).unwrap().sha256);

    chmod(&path, 0o666);
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    chmod(&open, 0o777);
    let link = dir.path().join("link.so");
    symlink(put(&open, "demo.so", good()), &link).unwrap();
    assert_eq!(report(&path).unwrap().problems.len(), 1);
    let linked = report(&link).unwrap();
    assert!(!linked.ok && linked.problems[0].starts_with("it is a symbolic link"));
    assert_eq!(linked.name.as_deref(), Some("demo"), "the facts are there");

    let text = report(&put(dir.path(), "text.so", b"hello")).unwrap();
    assert!(text.name.is_none() && text.size == 5 && text.problems[0].starts_with("this is a text file"));
    assert!(report(&dir.path().join("none")).is_err());
    assert!(report(dir.path()).is_err());
}
