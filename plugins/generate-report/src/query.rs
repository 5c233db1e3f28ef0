//! The operator's query: checked to be one read-only SELECT, run within bounds, stopped when the task should stop.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use warren_plugin::{Call, Failure, reject, retry};

/// The most text one report may hold, in bytes: it is built in memory, as a table, as CSV and as HTML.
const MAX_BYTES: usize = 16 << 20;
/// How long to wait for a writer of a database without a write-ahead log.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a running query looks at whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// The only parameter a query may have.
const ARGUMENT: &str = ":argument";

/// What the query gave.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    /// Each as long as `columns`.
    pub(crate) rows: Vec<Vec<Value>>,
    /// When it was asked, as people read it, in UTC.
    pub(crate) asked_at: String,
}

/// Why a query cannot be used as configured; the text names what to do.
#[derive(Debug)]
pub(crate) struct BadQuery(pub(crate) String);

/// Opens the database so that nothing can be written to it.
pub(crate) fn open(database: &Path) -> Result<Connection, Failure> {
    let path = database.display();
    if !database.exists() {
        return Err(retry(
            "no-database",
            format!("settings.database: {path} is not there; correct the path, or mount its disk"),
        ));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(database, flags)?;
        db.busy_timeout(BUSY_TIMEOUT)?;
        db.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF")?;
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
        Ok(db)
    };
    open().map_err(|error| {
        let remedy = match error.sqlite_error_code() {
            // What SQLite says of a write-ahead log whose shared memory it would have to make.
            Some(ErrorCode::ReadOnly) => {
                "it is in WAL mode and no program has it open: the daemon's user needs to write its directory then, or \
                 the database another journal mode"
            }
            _ => "it must be an SQLite database that the daemon's user may read",
        };
        retry("database", format!("settings.database: {path} cannot be read: {error}; {remedy}"))
    })
}

/// Prepares the query, and checks that it is what a report may run.
pub(crate) fn prepare<'a>(db: &'a Connection, sql: &str) -> Result<Statement<'a>, BadQuery> {
    let bad = |problem: &str| BadQuery(format!("settings.query {problem}"));
    // SQLite calls ATTACH and some PRAGMAs read-only as well.
    let word = first_word(sql).to_ascii_uppercase();
    if !["SELECT", "WITH", "VALUES"].contains(&word.as_str()) {
        return Err(bad("must be a SELECT (it may begin with WITH)"));
    }
    let statement = db.prepare(sql).map_err(|error| match error {
        rusqlite::Error::MultipleStatement => bad("must be a single statement; a report runs one"),
        error => bad(&format!("is refused by the database: {error}")),
    })?;
    if !statement.readonly() {
        return Err(bad("must only read; this one would write"));
    }
    let uses_argument = statement.parameter_index(ARGUMENT).is_ok_and(|index| index.is_some());
    if statement.parameter_count() > usize::from(uses_argument) {
        return Err(bad("has a parameter other than :argument, and there is nothing to bind it to"));
    }
    Ok(statement)
}

/// Checks that a column of this name is in the result.
pub(crate) fn check_column(statement: &Statement<'_>, key: &str, name: &str) -> Result<(), BadQuery> {
    let columns: Vec<&str> = statement.column_names().collect();
    if columns.contains(&name) {
        return Ok(());
    }
    Err(BadQuery(format!(
        "settings.chart.{key}: the query has no column {name:?}; it has {}",
        columns.join(", ")
    )))
}

/// Runs the query. More than `max_rows` rows are a reject: a shortened report would be a wrong one.
pub(crate) fn run(
    db: &Connection,
    statement: &mut Statement<'_>,
    argument: Option<&str>,
    max_rows: usize,
    call: &Call<'_>,
) -> Result<Table, Failure> {
    interruptible(db, call, || {
        let asked_at = db
            .query_row("SELECT strftime('%Y-%m-%d %H:%M UTC', 'now')", [], |row| row.get(0))
            .map_err(|error| explain(&error))?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        if let Ok(Some(index)) = statement.parameter_index(ARGUMENT) {
            statement.raw_bind_parameter(index, argument).map_err(|error| explain(&error))?;
        }
        let mut rows = Vec::new();
        let mut bytes = 0;
        let mut found = statement.raw_query();
        loop {
            call.check()?;
            let row = match found.next() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) => {
                    // An interrupted query says so; the reason is that the task should stop.
                    call.check()?;
                    return Err(explain(&error));
                }
            };
            if rows.len() == max_rows {
                return Err(reject(
                    "too-many-rows",
                    format!(
                        "the query gives more than {max_rows} rows; add a LIMIT to it, or raise settings.max_rows"
                    ),
                ));
            }
            let cells: Vec<ValueRef<'_>> = (0..columns.len())
                .map(|index| row.get_ref(index))
                .collect::<Result<_, _>>()
                .map_err(|error| explain(&error))?;
            bytes += cells.iter().map(size).sum::<usize>();
            if bytes > MAX_BYTES {
                return Err(reject(
                    "too-large",
                    format!(
                        "the query gives more than {} MiB; select fewer rows or columns",
                        MAX_BYTES >> 20
                    ),
                ));
            }
            rows.push(cells.into_iter().map(value).collect());
        }
        Ok(Table { columns, rows, asked_at })
    })
}

fn explain(error: &rusqlite::Error) -> Failure {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => retry(
            "database-busy",
            "settings.database stays locked by a writer; give it a write-ahead log (WAL)",
        ),
        _ => retry("query", format!("settings.query failed: {error}")),
    }
}

/// The cell as it is, but text that is not UTF-8, which SQLite allows, made readable.
fn value(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// Bytes of a cell as they will stand in a report.
fn size(cell: &ValueRef<'_>) -> usize {
    match cell {
        ValueRef::Text(text) => text.len(),
        ValueRef::Blob(bytes) => 2 * bytes.len(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
    }
}

/// Does the work, and interrupts the database when the task should stop.
fn interruptible<T>(db: &Connection, call: &Call<'_>, work: impl FnOnce() -> T) -> T {
    let handle = db.get_interrupt_handle();
    thread::scope(|scope| {
        // Dropped when the work ends, by a panic too: that wakes the watcher at once.
        let (_working, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if call.check().is_err() {
                    handle.interrupt();
                }
            }
        });
        work()
    })
}

/// The first word of a statement, behind blanks and comments.
fn first_word(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    loop {
        let after = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else {
            break;
        };
        rest = after.trim_start();
    }
    rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(sql: &str) -> String {
        let db = Connection::open_in_memory().expect("a database");
        db.execute_batch("CREATE TABLE sales (quarter, amount)").expect("a table");
        prepare(&db, sql).err().map_or(String::new(), |error| error.0)
    }

    #[test]
    fn one_statement_that_only_reads_is_taken() {
        for sql in [
            "SELECT * FROM sales",
            "  -- by quarter\n/* and amount */ select quarter, sum(amount) FROM sales GROUP BY 1;",
            "WITH q AS (SELECT 1) SELECT * FROM q",
            "VALUES (1), (2)",
            "SELECT * FROM sales WHERE quarter = :argument OR :argument IS NULL",
        ] {
            assert_eq!(problem(sql), "", "{sql}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        for (sql, expected) in [
            ("", "must be a SELECT"),
            ("-- SELECT 1", "must be a SELECT"),
            ("DELETE FROM sales", "must be a SELECT"),
            ("ATTACH '/etc/x' AS y", "must be a SELECT"),
            ("PRAGMA journal_mode = DELETE", "must be a SELECT"),
            ("EXPLAIN SELECT 1", "must be a SELECT"),
            ("WITH x AS (SELECT 1) INSERT INTO sales SELECT 1, 2", "must only read"),
            ("SELECT 1; SELECT 2", "must be a single statement"),
            ("SELECT 1; DELETE FROM sales", "must be a single statement"),
            ("SELECT town FROM sales", "is refused by the database: no such column"),
            ("SELECT ?", "has a parameter other than :argument"),
            ("SELECT :argument, :other", "has a parameter other than :argument"),
        ] {
            assert!(problem(sql).contains(expected), "{sql}: {}", problem(sql));
        }
    }
}
