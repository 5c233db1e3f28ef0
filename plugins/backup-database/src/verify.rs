//! Compressing a copy, reading it back, and checking that what was read is a whole database.

use crate::failures;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use warren_plugin::{Call, Failure, retry};

/// Bytes between two looks at whether to stop.
const CHUNK: usize = 256 * 1024;
/// How often a running check looks at whether to stop.
const LOOK: Duration = Duration::from_millis(200);

/// Compresses `from` into the empty file `to`.
pub(crate) fn compress(from: &Path, to: &File, call: &Call<'_>, report: &dyn Fn(u32)) -> Result<(), Failure> {
    let directory = from.parent().unwrap_or(from);
    let mut encoder = GzEncoder::new(to, Compression::default());
    pump(&mut File::open(from)?, &mut encoder, length(from)?, directory, call, report)?;
    encoder.finish().map_err(|error| failures::on_directory(directory, &error))?;
    Ok(())
}

/// Reads `from` back into the empty file `to`, through the checksum of the compression.
pub(crate) fn restore(
    from: &Path,
    to: &mut File,
    size: u64,
    call: &Call<'_>,
    report: &dyn Fn(u32),
) -> Result<(), Failure> {
    let directory = from.parent().unwrap_or(from);
    pump(&mut MultiGzDecoder::new(File::open(from)?), to, size, directory, call, report)
}

/// How a copy was found to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// `PRAGMA integrity_check`.
    Full,
    /// The number of pages only (and the checksum of the compression).
    Pages,
}

/// Checks that a file is a whole SQLite database of this many pages, as thoroughly as can be: a schema with
/// collations, functions or modules of the application's own cannot be checked without them, damaged or not.
pub(crate) fn check(copy: &Path, pages: i32, call: &Call<'_>) -> Result<Verdict, Failure> {
    let damaged = |what: &str| {
        retry(
            "damaged",
            format!(
                "the copy fails its check: {what}; if that repeats, run PRAGMA integrity_check on the database"
            ),
        )
    };
    // Immutable: no lock and no -wal or -shm file beside a copy whose original has a write-ahead log.
    let uri = format!("file:{}?immutable=1", percent_encoded(copy));
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(uri, flags).map_err(|error| damaged(&error.to_string()))?;
    let found: i32 = db
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .map_err(|error| damaged(&error.to_string()))?;
    if found != pages {
        return Err(damaged(&format!("it has {found} pages, {pages} were copied")));
    }
    let answer = interruptible(&db, call, || {
        db.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0))
    });
    call.check()?;
    match answer {
        Ok(text) if text == "ok" => Ok(Verdict::Full),
        Ok(text) => Err(damaged(text.lines().next().unwrap_or_default())),
        Err(error) if is_unknown_to_us(&error) => Ok(Verdict::Pages),
        Err(error) => Err(damaged(&error.to_string())),
    }
}

/// Whether a check could not run for want of what the application adds to SQLite. It has no error code of its own.
fn is_unknown_to_us(error: &rusqlite::Error) -> bool {
    let text = error.to_string();
    ["no such collation sequence", "no such module", "unknown function", "no such function"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// The size of a file, in bytes.
pub(crate) fn length(path: &Path) -> io::Result<u64> {
    Ok(path.metadata()?.len())
}

fn pump(
    from: &mut impl Read,
    to: &mut impl Write,
    size: u64,
    directory: &Path,
    call: &Call<'_>,
    report: &dyn Fn(u32),
) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    loop {
        call.check()?;
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(retry("damaged", format!("the copy cannot be read back: {error}"))),
        };
        to.write_all(&buffer[..read]).map_err(|error| failures::on_directory(directory, &error))?;
        done += read as u64;
        report((done * 1000 / size.max(1)).min(1000) as u32);
    }
    to.flush().map_err(|error| failures::on_directory(directory, &error))
}

/// Runs one long statement, and interrupts it when the task should stop.
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

/// A path for an SQLite URI.
fn percent_encoded(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    path.as_os_str().as_bytes().iter().fold(String::new(), |text, byte| {
        if plain(*byte) { text + &char::from(*byte).to_string() } else { format!("{text}%{byte:02X}") }
    })
}
