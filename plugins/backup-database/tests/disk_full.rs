//! A backup that runs into the end of the disk, for which a limit on file sizes stands in here (as root a test has
//! no other way to make writing fail).

use rusqlite::Connection;
use serde_json::json;
use std::process::Command;
use warren_backup_database::BackupDatabase;
use warren_plugin::testing::TestKit;

/// Tells the child (this test binary again, under the limit) where the database and the directory are.
const ROOT: &str = "WARREN_BACKUP_TEST_ROOT";

#[test]
fn a_backup_that_cannot_be_written_is_retried_and_leaves_nothing() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let backups = root.path().join("backups");
    std::fs::create_dir(&backups).expect("the directory");
    Connection::open(root.path().join("shop.db"))
        .and_then(|db| db.execute_batch("CREATE TABLE t AS SELECT hex(randomblob(1000000)) AS x"))
        .expect("a database of 2 MB");
    // 64 blocks of 512 or 1024 bytes, depending on the shell: less than the database either way.
    let script =
        "ulimit -f 64; trap '' XFSZ; exec \"$0\" --exact child_that_backs_up_under_a_limit --nocapture";
    let child = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().expect("this test's path"))
        .env(ROOT, root.path())
        .output()
        .expect("the child runs");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("retried: "), "{said}");
    let left: Vec<_> = std::fs::read_dir(&backups)
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| !name.to_string_lossy().ends_with(".lock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Not a test of its own: what runs under the limit. Without the environment it has nothing to do.
#[test]
fn child_that_backs_up_under_a_limit() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let settings = json!({"database": format!("{root}/shop.db"), "directory": format!("{root}/backups")});
    let mut kit = TestKit::<BackupDatabase>::new(settings).expect("the settings are good");
    let ran = kit.run("Backup database");
    assert!(ran.failure().is_retry(), "{}", ran.failure());
    println!("retried: {}", ran.failure());
}
