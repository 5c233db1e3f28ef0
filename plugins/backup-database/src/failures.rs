//! What went wrong, as a retry that names the place and the remedy. Nothing here is a reject: a full disk, a lost
//! mount or a damaged copy says nothing against the task, and its bounded attempts tell if it does not pass.

use rusqlite::ErrorCode;
use std::io::{self, ErrorKind};
use std::path::Path;
use warren_plugin::{Failure, retry};

/// An error on a file of the backup directory.
pub(crate) fn on_directory(directory: &Path, error: &io::Error) -> Failure {
    let directory = directory.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => retry("disk-full", full(&directory)),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => retry(
            "directory-unwritable",
            format!(
                "settings.directory: {directory} cannot be written ({error}); give it to the daemon's user, and \
                     name it in the unit's ReadWritePaths"
            ),
        ),
        ErrorKind::NotFound | ErrorKind::NotADirectory => retry(
            "no-directory",
            format!("settings.directory: {directory} is not there ({error}); make it, or mount its disk"),
        ),
        _ => retry("directory", format!("settings.directory: {directory}: {error}")),
    }
}

/// An SQLite error on the copy.
pub(crate) fn on_copy(directory: &Path, error: &rusqlite::Error) -> Failure {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => retry("disk-full", full(&directory.display())),
        _ => retry("copy", format!("the copy in {} cannot be written: {error}", directory.display())),
    }
}

/// An SQLite error on the database that is backed up.
pub(crate) fn on_database(database: &Path, error: &rusqlite::Error) -> Failure {
    let path = database.display();
    match error.sqlite_error_code() {
        _ if !database.exists() => retry(
            "no-database",
            format!("settings.database: {path} is not there; correct the path, or mount its disk"),
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => retry(
            "database-busy",
            format!("settings.database: {path} is locked by another program for longer than this waits"),
        ),
        Some(ErrorCode::NotADatabase) => retry(
            "not-a-database",
            format!("settings.database: {path} is not an SQLite database, or it is encrypted"),
        ),
        Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => retry(
            "database-unreadable",
            format!(
                "settings.database: {path} cannot be opened ({error}); let the daemon's user read it, and write \
                     its directory if it is in WAL mode"
            ),
        ),
        _ => retry("database", format!("settings.database: {path}: {error}")),
    }
}

fn full(directory: &impl std::fmt::Display) -> String {
    format!(
        "the disk of settings.directory ({directory}) is full; a backup needs room for the database and for its \
         compressed copy while it is made"
    )
}
