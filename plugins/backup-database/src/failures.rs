//! What went wrong, as a retry that names the place and the remedy. Nothing here is a reject: a full disk, a lost
//! mount or a damaged copy says nothing against the task, and its bounded attempts tell if it does not pass.

use rusqlite::{ErrorCode, ffi};
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
    let shown = directory.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => retry("disk-full", full(&shown)),
        Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => retry(
            "directory-unwritable",
            format!(
                "the copy in settings.directory ({shown}) cannot be written ({error}); give the directory to the \
                 daemon's user, and name it in the unit's ReadWritePaths"
            ),
        ),
        Some(ErrorCode::SystemIoFailure) => {
            retry("disk-error", disk("the copy in settings.directory", &shown, error))
        }
        Some(ErrorCode::OutOfMemory) => retry("out-of-memory", OUT_OF_MEMORY),
        _ => retry("copy", format!("the copy in {shown} cannot be written: {error}")),
    }
}

/// An SQLite error on the database that is backed up.
pub(crate) fn on_database(database: &Path, error: &rusqlite::Error) -> Failure {
    let path = database.display();
    let of = |code: &str, what: String| retry(code, format!("settings.database: {path} {what}"));
    match error.sqlite_error_code() {
        _ if !database.exists() => {
            of("no-database", "is not there; correct the path, or mount its disk".into())
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            of("database-busy", "is locked by another program for longer than this waits".into())
        }
        Some(ErrorCode::NotADatabase) => {
            of("not-a-database", "is not an SQLite database, or it is encrypted".into())
        }
        Some(ErrorCode::DatabaseCorrupt) => of(
            "damaged",
            format!(
                "is damaged ({error}); run PRAGMA integrity_check on it, and restore it from its last backup"
            ),
        ),
        // Read-only is what SQLite says of a write-ahead log whose shared memory it would have to make.
        Some(ErrorCode::ReadOnly) => of("directory-of-database", unwritable_log(database, error)),
        Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => of(
            "database-unreadable",
            format!(
                "cannot be opened ({error}); let the daemon's user read it, and write its directory if it is in WAL \
                 mode"
            ),
        ),
        Some(ErrorCode::SystemIoFailure) => retry("disk-error", disk("settings.database:", &path, error)),
        Some(ErrorCode::FileLockingProtocolFailed) => of(
            "locking",
            format!(
                "cannot be locked ({error}); a file system without locks, such as some network shares, does not carry \
                 an SQLite database that is in use"
            ),
        ),
        Some(ErrorCode::OutOfMemory) => retry("out-of-memory", OUT_OF_MEMORY),
        Some(ErrorCode::DiskFull) => of(
            "disk-full",
            format!(
                "needs room for SQLite's temporary files ({error}); make room on its disk and in /var/tmp"
            ),
        ),
        Some(ErrorCode::SchemaChanged) => {
            of("database-changing", "changes its schema at the moment; the backup is made later".into())
        }
        _ => of("database", format!("cannot be read: {error}")),
    }
}

/// Whether an I/O error came up while reading, which is done on the original, and not while writing the copy.
pub(crate) fn is_of_reading(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(code, _) = error else { return false };
    [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ, ffi::SQLITE_IOERR_RDLOCK, ffi::SQLITE_IOERR_LOCK]
        .contains(&code.extended_code)
}

const OUT_OF_MEMORY: &str = "SQLite was refused memory; raise or remove the handler's `memory`";

fn unwritable_log(database: &Path, error: &rusqlite::Error) -> String {
    let directory = database.parent().unwrap_or(database).display();
    format!(
        "has a write-ahead log, and no program has it open: to read it, SQLite must make the files -wal and -shm beside it, \
         and the daemon's user may not write {directory} ({error}); let its user or group write there, and name the \
         directory in the unit's ReadWritePaths, or take the database out of WAL mode (PRAGMA journal_mode = DELETE)"
    )
}

fn disk(what: &str, place: &impl std::fmt::Display, error: &rusqlite::Error) -> String {
    format!("{what} {place}: {error}; look for errors of its disk or network share in the kernel's log")
}

fn full(directory: &impl std::fmt::Display) -> String {
    format!(
        "the disk of settings.directory ({directory}) is full; a backup needs room for the database and for its \
         compressed copy while it is made"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi::Error as Code;

    fn error(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(Code::new(code), None)
    }

    /// Every primary code that SQLite has, with what is said of the database and of the copy.
    #[test]
    fn every_code_of_sqlite_has_its_cause_or_its_own_text() {
        let file = tempfile::NamedTempFile::new().expect("a file that is there");
        for (code, database, copy) in [
            (ffi::SQLITE_ERROR, "database", "copy"),
            (ffi::SQLITE_INTERNAL, "database", "copy"),
            (ffi::SQLITE_PERM, "database-unreadable", "directory-unwritable"),
            (ffi::SQLITE_ABORT, "database", "copy"),
            (ffi::SQLITE_BUSY, "database-busy", "copy"),
            (ffi::SQLITE_LOCKED, "database-busy", "copy"),
            (ffi::SQLITE_NOMEM, "out-of-memory", "out-of-memory"),
            (ffi::SQLITE_READONLY, "directory-of-database", "directory-unwritable"),
            (ffi::SQLITE_READONLY_DIRECTORY, "directory-of-database", "directory-unwritable"),
            (ffi::SQLITE_INTERRUPT, "database", "copy"),
            (ffi::SQLITE_IOERR, "disk-error", "disk-error"),
            (ffi::SQLITE_IOERR_READ, "disk-error", "disk-error"),
            (ffi::SQLITE_CORRUPT, "damaged", "copy"),
            (ffi::SQLITE_NOTFOUND, "database", "copy"),
            (ffi::SQLITE_FULL, "disk-full", "disk-full"),
            (ffi::SQLITE_CANTOPEN, "database-unreadable", "directory-unwritable"),
            (ffi::SQLITE_PROTOCOL, "locking", "copy"),
            (ffi::SQLITE_SCHEMA, "database-changing", "copy"),
            (ffi::SQLITE_TOOBIG, "database", "copy"),
            (ffi::SQLITE_CONSTRAINT, "database", "copy"),
            (ffi::SQLITE_MISMATCH, "database", "copy"),
            (ffi::SQLITE_MISUSE, "database", "copy"),
            (ffi::SQLITE_NOLFS, "database", "copy"),
            (ffi::SQLITE_AUTH, "database", "copy"),
            (ffi::SQLITE_RANGE, "database", "copy"),
            (ffi::SQLITE_NOTADB, "not-a-database", "copy"),
        ] {
            let of_database = on_database(file.path(), &error(code));
            assert_eq!((of_database.code(), of_database.is_retry()), (database, true), "{code}");
            assert!(
                of_database.message().contains(';')
                    || database == "database"
                    || database == "database-busy"
                    || database == "not-a-database",
                "no remedy: {of_database}"
            );
            let of_copy = on_copy(Path::new("/backups"), &error(code));
            assert_eq!((of_copy.code(), of_copy.is_retry()), (copy, true), "{code}");
        }
        assert_eq!(on_database(Path::new("/nowhere"), &error(ffi::SQLITE_IOERR)).code(), "no-database");
        assert!(is_of_reading(&error(ffi::SQLITE_IOERR_SHORT_READ)));
        assert!(!is_of_reading(&error(ffi::SQLITE_IOERR_WRITE)) && !is_of_reading(&error(ffi::SQLITE_FULL)));
    }
}
