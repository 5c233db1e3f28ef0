//! Databases and a directory for their backups.

use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use warren_backup_database::BackupDatabase;
use warren_plugin::testing::TestKit;

pub(super) struct Place {
    pub(super) root: TempDir,
}

impl Place {
    /// A database of some hundred pages, and an empty directory for its backups.
    pub(super) fn new(journal: &str) -> Self {
        let place = Self::empty();
        let db = Connection::open(place.database()).expect("a database");
        db.execute_batch("PRAGMA synchronous = OFF").expect("fast writes");
        db.pragma_update(None, "journal_mode", journal).expect("its journal mode");
        db.execute_batch(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, filler TEXT NOT NULL);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
             INSERT INTO accounts SELECT i, 100, hex(randomblob(200)) FROM n;",
        )
        .expect("1500 accounts");
        place
    }

    pub(super) fn empty() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(root.path().join("backups")).expect("the directory");
        Self { root }
    }

    pub(super) fn database(&self) -> PathBuf {
        self.root.path().join("shop.db")
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.root.path().join("backups")
    }

    pub(super) fn settings(&self, more: &Value) -> Value {
        let mut settings = json!({"database": self.database(), "directory": self.directory()});
        settings.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
        settings
    }

    pub(super) fn kit(&self, more: &Value) -> TestKit<BackupDatabase> {
        TestKit::new(self.settings(more)).expect("the settings are good")
    }

    /// The digest that the names of its backups have.
    pub(super) fn source(&self, more: &Value) -> String {
        let lock = self.lock(more);
        let source = lock.strip_prefix(".shop-time-").and_then(|rest| rest.strip_suffix(".db.lock"));
        source.expect("the lock's name has it").to_owned()
    }

    /// The name of the lock that a handler of these settings makes when it starts.
    pub(super) fn lock(&self, more: &Value) -> String {
        let all = || fs::read_dir(self.directory()).expect("the directory");
        for entry in all().map(|entry| entry.expect("an entry")).filter(|entry| is_lock(&entry.path())) {
            fs::remove_file(entry.path()).expect("nobody holds it");
        }
        drop(self.kit(more));
        let entry = all().map(|entry| entry.expect("an entry")).find(|entry| is_lock(&entry.path()));
        entry.expect("a lock").file_name().into_string().expect("UTF-8")
    }

    /// The directory's files but the lock, in the order of their names.
    pub(super) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.directory())
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .filter(|name| !is_lock(Path::new(name)))
            .collect();
        names.sort();
        names
    }

    pub(super) fn restore(&self, file: &str) -> Connection {
        let mut bytes = Vec::new();
        let file = File::open(file).expect("the backup");
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("it decompresses");
        let restored = self.root.path().join("restored.db");
        fs::write(&restored, bytes).expect("it is written");
        Connection::open(restored).expect("it opens")
    }
}

pub(super) fn is_lock(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "lock")
}
