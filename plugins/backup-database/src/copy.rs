//! A consistent copy of a live database, by SQLite's online backup.

use crate::failures;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;
use warren_plugin::{Call, Failure, retry};

/// Pages copied between two looks at whether to stop: 1 MiB of the usual page size.
const PAGES_PER_STEP: i32 = 256;
/// Pause between steps while a lock is released in between, so that a waiting writer gets it.
const PAUSE: Duration = Duration::from_millis(2);
/// Pause before a step that found the database locked is tried again, and how often in a row: half a minute.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
const BUSY_LIMIT: u32 = 600;
/// How often writers may make a copy start again before it holds them off; see [`copy`].
const RESTARTS: u32 = 3;
/// How long SQLite itself waits for a lock when a read begins.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Copies the database into the empty file `to`, and gives the number of pages. `report` gets thousandths.
///
/// With a write-ahead log one read transaction spans the copy: it sees one moment, and writers go on. Without one, a
/// read lock held for the whole copy would hold off writers, so it is released between steps; SQLite then starts
/// again when somebody wrote meanwhile. After [`RESTARTS`] the lock is held after all: a copy that never ends under
/// steady writing is worse than writers that wait once.
pub(crate) fn copy(
    database: &Path,
    to: &Path,
    call: &Call<'_>,
    report: &dyn Fn(u32),
) -> Result<i32, Failure> {
    let on_database = |error: rusqlite::Error| failures::on_database(database, &error);
    let directory = to.parent().unwrap_or(to);
    let on_copy = |error: rusqlite::Error| failures::on_copy(directory, &error);

    let source = Connection::open_with_flags(
        database,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(on_database)?;
    source.busy_timeout(BUSY_TIMEOUT).map_err(on_database)?;
    let journal: String =
        source.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(on_database)?;
    let mut target =
        Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(on_copy)?;
    // The copy is thrown away unless it is complete and verified, so it needs no journal and no flush of its own.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").map_err(on_copy)?;

    if !journal.eq_ignore_ascii_case("wal") {
        match steps(&source, &mut target, call, report, Some(RESTARTS))
            .map_err(|e| e.explain(database, to))?
        {
            Some(pages) => return Ok(pages),
            None => call.logger().info("writers keep changing the database: holding them off for one copy"),
        }
    }
    source.execute_batch("BEGIN").map_err(on_database)?;
    source
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .map_err(on_database)?;
    let pages = steps(&source, &mut target, call, report, None).map_err(|e| e.explain(database, to))?;
    pages.ok_or_else(|| retry("copy", "the copy did not end"))
}

enum StepError {
    Stop(Failure),
    /// The lock was not to be had for [`BUSY_LIMIT`] tries.
    Busy,
    Sql(rusqlite::Error),
}

impl StepError {
    fn explain(self, database: &Path, to: &Path) -> Failure {
        match self {
            StepError::Stop(failure) => failure,
            StepError::Busy => retry(
                "database-busy",
                format!("settings.database: {} stayed locked by another program", database.display()),
            ),
            // SQLite reports either side's error here; a full disk can only be the copy's, damage only the original's.
            StepError::Sql(error) => match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                    failures::on_database(database, &error)
                }
                _ if failures::is_of_reading(&error) => failures::on_database(database, &error),
                _ => failures::on_copy(to.parent().unwrap_or(to), &error),
            },
        }
    }
}

/// Runs the backup to its end and gives the pages; `None` when it had to start again more than `restarts` times.
fn steps(
    source: &Connection,
    target: &mut Connection,
    call: &Call<'_>,
    report: &dyn Fn(u32),
    restarts: Option<u32>,
) -> Result<Option<i32>, StepError> {
    let backup = Backup::new(source, target).map_err(StepError::Sql)?;
    let (mut busy, mut started_again, mut remaining_before) = (0, 0, i32::MAX);
    loop {
        call.check().map_err(StepError::Stop)?;
        let step = backup.step(PAGES_PER_STEP).map_err(StepError::Sql)?;
        let progress = backup.progress();
        match step {
            // An empty file is a database without pages; its copy gets the first page, which SQLite puts off otherwise.
            StepResult::Done => return Ok(Some(progress.pagecount.max(1))),
            StepResult::Busy | StepResult::Locked if busy >= BUSY_LIMIT => return Err(StepError::Busy),
            StepResult::Busy | StepResult::Locked => {
                busy += 1;
                call.sleep(BUSY_PAUSE).map_err(StepError::Stop)?;
                continue;
            }
            _ => busy = 0,
        }
        // A step always lowers what remains, unless the copy began again because the database had changed.
        started_again += u32::from(progress.remaining >= remaining_before);
        remaining_before = progress.remaining;
        if let Some(restarts) = restarts {
            if started_again > restarts {
                return Ok(None);
            }
            call.sleep(PAUSE).map_err(StepError::Stop)?;
        }
        let copied = i64::from(progress.pagecount - progress.remaining);
        report((copied * 1000 / i64::from(progress.pagecount.max(1))) as u32);
    }
}
