//! A database whose directory the daemon's user may not write, as another user's usually is.

use rusqlite::Connection;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use warren_backup_database::BackupDatabase;
use warren_plugin::testing::TestKit;

/// Tells the child (this test binary again, without the right to pass over modes) where the database is.
const ROOT: &str = "WARREN_BACKUP_TEST_ROOT";

/// What a backup of a database of this journal mode says, in a directory that may only be read.
fn backed_up_without_leave_to_write(journal: &str) -> String {
    let root = tempfile::tempdir().expect("a temporary directory");
    let shop = root.path().join("shop");
    fs::create_dir(&shop).expect("the database's directory");
    fs::create_dir(root.path().join("backups")).expect("the directory");
    let db = Connection::open(shop.join("shop.db")).expect("a database");
    db.pragma_update(None, "journal_mode", journal).expect("its journal mode");
    db.execute_batch("CREATE TABLE t (x)").expect("a table");
    drop(db);
    assert_eq!(fs::read_dir(&shop).expect("the directory").count(), 1, "no -wal and -shm: it is idle");
    fs::set_permissions(&shop, PermissionsExt::from_mode(0o555)).expect("for reading only");
    let me = std::env::current_exe().expect("this test's path");
    let mut child = if root.path().metadata().expect("its owner").uid() == 0 {
        // Root may write anywhere by a capability, which the child has not.
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--bounding-set", "-dac_override,-dac_read_search", "--"]).arg(me);
        setpriv
    } else {
        Command::new(me)
    };
    let child = child
        .args(["--exact", "child_that_backs_up_what_it_may_only_read", "--nocapture"])
        .env(ROOT, root.path())
        .output()
        .expect("the child runs");
    fs::set_permissions(&shop, PermissionsExt::from_mode(0o755)).expect("it can be removed again");
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{said} {}", String::from_utf8_lossy(&child.stderr));
    said
}

#[test]
fn an_idle_write_ahead_log_in_a_directory_that_cannot_be_written_is_named_with_the_remedy() {
    let said = backed_up_without_leave_to_write("WAL");
    for part in
        ["directory-of-database", "write-ahead log", "/shop (", "ReadWritePaths", "journal_mode = DELETE"]
    {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
}

#[test]
fn a_rollback_journal_needs_no_leave_to_write() {
    assert!(backed_up_without_leave_to_write("DELETE").contains("done"));
}

/// Not a test of its own: what runs as the other user. Without the environment it has nothing to do.
#[test]
fn child_that_backs_up_what_it_may_only_read() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let settings =
        json!({"database": format!("{root}/shop/shop.db"), "directory": format!("{root}/backups")});
    let ran = TestKit::<BackupDatabase>::new(settings).expect("the settings are good").run("Backup database");
    match &ran.outcome {
        Ok(_) => println!("done"),
        Err(failure) => println!("{}: {}", failure.code(), failure.message()),
    }
}
