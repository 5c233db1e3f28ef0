//! The backup handler against real databases on disk, with writers at work.

#[path = "../../documented.rs"]
mod documented;
mod place;

use documented::documented_settings;
use place::{Place, is_lock};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use warren_backup_database::BackupDatabase;
use warren_plugin::testing::{Ran, TestKit};
use warren_plugin::{Failure, Level};

fn result(ran: &Ran) -> Value {
    serde_json::from_slice(ran.done().bytes()).expect("a JSON result")
}

/// Moves money between two accounts until told to stop; no moment shows another sum. Counts what it committed.
fn keep_writing(database: &Path, stop: &AtomicBool, committed: &AtomicU32) {
    let mut db = Connection::open(database).expect("the writer's connection");
    db.busy_timeout(Duration::from_secs(20)).expect("its timeout");
    db.pragma_update(None, "synchronous", "OFF").expect("fast writes");
    while !stop.load(Ordering::Relaxed) {
        let (from, to) = (account(committed, 7), account(committed, 13));
        let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("a write");
        tx.execute("UPDATE accounts SET balance = balance - 1 WHERE id = ?1", [from]).expect("taken");
        tx.execute("UPDATE accounts SET balance = balance + 1 WHERE id = ?1", [to]).expect("given");
        tx.commit().expect("committed");
        committed.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1)); // Its pace: many commits within one backup, not all of a core.
    }
}

/// An account, spread over the table.
fn account(committed: &AtomicU32, salt: u32) -> u32 {
    committed.load(Ordering::Relaxed).wrapping_mul(2_654_435_761).wrapping_add(salt * 977) % 1500 + 1
}

fn back_up_under_writes(journal: &str) {
    let place = Place::new(journal);
    let (stop, committed) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut backups = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| keep_writing(&place.database(), &stop, &committed));
        let mut kit = place.kit(&json!({})).real_clock();
        for _ in 0..2 {
            // Writing goes on: each backup waits for commits of its own.
            let seen = committed.load(Ordering::Relaxed);
            while committed.load(Ordering::Relaxed) < seen + 5 {
                std::thread::yield_now();
            }
            backups.push(result(&kit.run("Task 4: Backup database")));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(place.files().len(), 2, "{:?}", place.files());
    for backup in backups {
        let db = place.restore(backup["file"].as_str().expect("a path"));
        let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
        let sum: i64 =
            db.query_row("SELECT sum(balance) FROM accounts", [], |row| row.get(0)).expect("a sum");
        assert_eq!((check.as_str(), sum), ("ok", 150_000), "one moment of the database");
    }
}

#[test]
fn a_backup_under_writes_with_a_write_ahead_log_is_one_moment_of_the_database() {
    back_up_under_writes("WAL");
}

#[test]
fn a_backup_under_writes_with_a_rollback_journal_is_one_moment_of_the_database() {
    back_up_under_writes("DELETE");
}

#[test]
fn a_backup_says_where_it_is_and_only_its_owner_can_read_it() {
    let place = Place::new("WAL");
    let ran = place.kit(&json!({})).run("Backup database now");
    let result = result(&ran);
    let file = Path::new(result["file"].as_str().expect("a path"));
    let metadata = file.metadata().expect("the file");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(result["bytes"], metadata.len());
    assert!(result["pages"].as_i64().expect("a number") > 100);
    assert_eq!(result["check"], "full");
    assert_eq!(result["removed"], 0);
    let permilles: Vec<u32> = ran.progress.iter().map(|(permille, _)| *permille).collect();
    assert!(permilles.is_sorted() && permilles.last() == Some(&1000), "{permilles:?}");
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with("shop-") && name.ends_with(".db.gz"), "{name}");
}

#[test]
fn without_compression_the_backup_is_the_database() {
    let place = Place::new("DELETE");
    let result =
        result(&place.kit(&json!({"compress": "none", "name": "{time}.sqlite"})).run("Backup database"));
    let db = Connection::open(result["file"].as_str().expect("a path")).expect("it opens");
    let rows: i64 = db.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0)).expect("a count");
    assert_eq!(rows, 1500);
    assert_eq!(place.files().len(), 1);
}

#[test]
fn retention_keeps_the_newest_and_touches_no_file_that_is_not_its_own() {
    let place = Place::new("WAL");
    let limits = json!({"keep": 2, "keep_for": "365d"});
    let source = place.source(&limits);
    let ours = |time: &str| format!("shop-{time}-{source}.db.gz");
    let strangers = [
        "notes.txt".to_owned(),
        "shop-2020.db.gz".to_owned(),
        format!("{}.part", ours("20200101T000000.000Z")),
        ours("20200101T000000.000Z").replace("shop", "other"),
        // Of another database, and of version 0.1, which did not tell.
        "shop-20200101T000000.000Z-0123456789.db.gz".to_owned(),
        "shop-20200101T000000.000Z.db.gz".to_owned(),
    ];
    for name in &strangers {
        fs::write(place.directory().join(name), "keep me").expect("a stranger's file");
    }
    symlink(place.database(), place.directory().join(ours("20200102T000000.000Z"))).expect("a link");
    fs::create_dir(place.directory().join(ours("20200103T000000.000Z"))).expect("a directory");
    fs::write(place.directory().join(ours("20200101T000000.000Z")), "old").expect("an old backup");

    let mut kit = place.kit(&limits);
    let ran = kit.run("Backup database");
    let first = result(&ran);
    assert_eq!(
        (&first["removed"], &first["unproven"]),
        (&json!(1), &json!(2)),
        "too old, and not certainly ours"
    );
    let said = |line: &warren_plugin::testing::LogLine| line.fields.contains(&("FILES".into(), "2".into()));
    assert!(ran.logs.iter().any(said), "{:?}", ran.logs);
    assert_eq!(result(&kit.run("Backup database"))["removed"], 0);
    let third = result(&kit.run("Backup database"));
    assert_eq!(third["removed"], 1, "one too many");
    let files = place.files();
    assert_eq!(files.len(), strangers.len() + 2 + 2, "{files:?}");
    assert!(strangers.iter().all(|name| files.contains(name)));
    assert!(Path::new(third["file"].as_str().expect("a path")).exists());
    assert!(place.database().exists());
}

#[test]
fn handlers_with_one_directory_keep_their_own_backups_of_databases_of_one_name() {
    let place = Place::new("WAL");
    let crm = place.root.path().join("crm");
    fs::create_dir(&crm).expect("a directory");
    fs::copy(place.database(), crm.join("shop.db")).expect("another database of that name");
    let handlers = [
        (json!({"keep": 7}), 5),
        (json!({"keep": 2, "database": crm.join("shop.db")}), 2),
        // The same path on another machine that has the directory mounted.
        (json!({"keep": 1, "host": "another machine"}), 1),
        // The same database a second time, under names of its own.
        (json!({"keep": 3, "name": "shop-{time}.db"}), 3),
    ];
    let mut kits: Vec<_> = handlers.iter().map(|(settings, _)| place.kit(settings)).collect();
    let mut sources = Vec::new();
    for round in 0..5 {
        for kit in &mut kits {
            let result = result(&kit.run("Backup database"));
            let file = result["file"].as_str().expect("a path");
            if round == 0 {
                sources.push(file[file.len() - "0123456789.db.gz".len()..].to_owned());
            }
        }
    }
    for (source, (settings, kept)) in sources.iter().zip(&handlers) {
        let files = place.files();
        assert_eq!(
            files.iter().filter(|file| file.ends_with(source)).count(),
            *kept,
            "{settings}: {files:?}"
        );
    }
}

#[test]
fn what_a_killed_backup_left_is_removed_by_the_next_and_nothing_of_another() {
    let place = Place::new("WAL");
    let source = place.source(&json!({}));
    let of_others = [
        ".other-20200101T000000.000Z-0123456789.db.gz.tmp".to_owned(),
        // Another machine may be making this one.
        ".shop-20200101T000000.000Z-0123456789.db.copy.tmp".to_owned(),
    ];
    for end in ["copy.tmp", "copy.tmp-journal", "gz.tmp"] {
        let name = format!(".shop-20200101T000000.000Z-{source}.db.{end}");
        fs::write(place.directory().join(name), "half").expect("a temporary file");
    }
    for name in &of_others {
        fs::write(place.directory().join(name), "half").expect("a temporary file");
    }
    place.kit(&json!({})).run("Backup database").done();
    let files = place.files();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(of_others.iter().all(|name| files.contains(name)), "{files:?}");
}

#[test]
fn a_cancelled_backup_leaves_nothing() {
    let place = Place::new("WAL");
    let mut kit = place.kit(&json!({}));
    for checks in [0, 1, 3, 6] {
        kit.cancel_after(checks);
        assert!(kit.run("Backup database").failure().is_cancelled(), "after {checks} looks");
        assert_eq!(place.files(), [] as [&str; 0], "after {checks} looks");
    }
    kit.run("Backup database").done();
}

#[test]
fn a_missing_database_is_retried_and_found_when_it_is_there_again() {
    let place = Place::empty();
    let mut kit = place.kit(&json!({}));
    assert!(kit.logs().iter().any(|line| line.level == Level::Warn), "start-up warns");
    let ran = kit.run("Backup database");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("no-database", true));
    assert_eq!(place.files(), [] as [&str; 0]);
    Connection::open(place.database()).and_then(|db| db.execute_batch("CREATE TABLE t (x)")).expect("made");
    kit.run("Backup database").done();
}

#[test]
fn a_file_that_is_no_database_is_retried_with_the_reason() {
    let place = Place::empty();
    fs::write(place.database(), "certainly no database, whatever its name says\n".repeat(100)).expect("text");
    let ran = place.kit(&json!({})).run("Backup database");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("not-a-database", true));
    assert!(ran.failure().message().contains("not an SQLite database"), "{}", ran.failure());
    assert_eq!(place.files(), [] as [&str; 0]);
}

#[test]
fn an_empty_database_is_backed_up_like_any_other() {
    for gzip in ["gzip", "none"] {
        let place = Place::empty();
        File::create(place.database()).expect("SQLite makes a file like this until its first table");
        let result = result(&place.kit(&json!({"compress": gzip})).run("Backup database"));
        assert_eq!((&result["pages"], &result["check"]), (&json!(1), &json!("full")));
        let file = result["file"].as_str().expect("a path");
        let db = if gzip == "gzip" { place.restore(file) } else { Connection::open(file).expect("it opens") };
        let tables: i64 =
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).expect("readable");
        assert_eq!(tables, 0);
    }
}

#[test]
fn a_damaged_database_makes_no_backup_and_removes_none() {
    let place = Place::new("DELETE");
    let mut kit = place.kit(&json!({"keep": 1}));
    let good = result(&kit.run("Backup database"));
    let mut bytes = fs::read(place.database()).expect("the database");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xA5);
    fs::write(place.database(), bytes).expect("damage");
    let ran = kit.run("Backup database");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("damaged", true));
    assert_eq!(place.files().len(), 1);
    assert!(Path::new(good["file"].as_str().expect("a path")).exists(), "the good one is still there");
}

#[test]
fn a_schema_with_the_applications_own_collation_is_backed_up_and_checked_as_far_as_can_be() {
    let place = Place::new("DELETE");
    Connection::open(place.database())
        .and_then(|db| {
            db.execute_batch(
                "CREATE INDEX by_filler ON accounts (filler COLLATE NOCASE); PRAGMA writable_schema = ON;
                 UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'phonebook') WHERE name = 'by_filler';",
            )
        })
        .expect("an index that only the application can read");
    let result = result(&place.kit(&json!({})).run("Backup database"));
    assert_eq!(result["check"], "pages");
    let db = place.restore(result["file"].as_str().expect("a path"));
    let count = "SELECT count(*) FROM accounts NOT INDEXED";
    let rows: i64 = db.query_row(count, [], |row| row.get(0)).expect("a count");
    assert_eq!(rows, 1500);
}

#[test]
fn a_directory_that_went_away_is_retried_with_the_remedy() {
    let place = Place::new("WAL");
    let mut kit = place.kit(&json!({}));
    fs::remove_dir_all(place.directory()).expect("unmounted");
    let ran = kit.run("Backup database");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("no-directory", true));
    assert!(ran.failure().message().contains("mount its disk"), "{}", ran.failure());
}

#[test]
fn a_second_backup_waits_for_the_first_and_is_retried_if_it_does_not_end() {
    let place = Place::new("WAL");
    let mut kit = place.kit(&json!({}));
    let name =
        fs::read_dir(place.directory()).expect("the directory").map(|entry| entry.expect("an entry").path());
    let lock =
        File::open(name.into_iter().find(|path| is_lock(path)).expect("a lock")).expect("the lock file");
    lock.lock().expect("another backup runs");
    let ran = kit.run("Backup database");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("backup-running", true));
    drop(lock);
    kit.run("Backup database").done();
}

#[test]
fn wrong_settings_are_refused_with_the_key_and_the_remedy() {
    let place = Place::new("WAL");
    for (settings, expected) in [
        (json!({"database": "shop.db"}), "settings.database must be an absolute path"),
        (json!({"directory": "backups"}), "settings.directory must be an absolute path"),
        (json!({"directory": "/nowhere/at/all"}), "/nowhere/at/all is not a directory; make it"),
        (json!({"name": "backup.db"}), "settings.name has no {time}; write for example"),
        (json!({"name": "../{time}"}), "settings.name has a slash"),
        (json!({"compress": "zip"}), "compress"),
        (json!({"keep": 0}), "settings.keep must be at least 1"),
        (json!({"keep_for": "5s"}), "settings.keep_for must be at least 1m"),
        (json!({"keep_for": "soon"}), "keep_for"),
        (json!({"host": " "}), "settings.host is empty; leave it out"),
        (json!({"kep": 3}), "kep"),
    ] {
        let failure: Failure = TestKit::<BackupDatabase>::new(place.settings(&settings))
            .err()
            .unwrap_or_else(|| panic!("{settings} is refused"));
        assert!(failure.message().contains(expected), "{settings}: {}", failure.message());
    }
}

#[test]
fn the_documented_settings_are_taken() {
    let place = Place::new("WAL");
    let mut settings = documented_settings(include_str!("../src/lib.rs"));
    settings["database"] = json!(place.database());
    settings["directory"] = json!(place.directory());
    TestKit::<BackupDatabase>::new(settings).expect("they are good").run("Backup database").done();
    assert_eq!(place.files().len(), 1);
}
