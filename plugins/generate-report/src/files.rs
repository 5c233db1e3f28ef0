//! Where a report is written: a name that cannot leave the directory, files that appear whole, and nothing replaced
//! but a report of the same handler.

use crate::page;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use warren_plugin::{Call, Failure, retry};

/// The longest part of title and argument that a file name keeps, in bytes.
const MAX_NAME: usize = 80;
/// Locked while files of the directory are written; stays, because removing it would let two processes lock two.
const LOCK: &str = ".warren-report.lock";
/// What is being written; nobody else uses it while the lock is held.
const TEMPORARY: &str = ".warren-report.tmp";
/// How often, and with which pause, to ask for the lock: half a minute. It is held for a few milliseconds.
const LOCK_TRIES: u32 = 600;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The name of a report's files, without extension: the same for the same title and argument. Words stay as they
/// are; anything else becomes `-`, and then eight hexadecimal digits of a hash keep two such reports apart.
pub(crate) fn name(title: &str, argument: &str) -> String {
    let text = if argument.is_empty() { title.to_owned() } else { format!("{title} {argument}") };
    let mut name: String = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    let plain = name.replace('-', " ") == text;
    if plain && name.len() <= MAX_NAME {
        return name;
    }
    name.truncate(MAX_NAME);
    format!("{}-{:08x}", name.trim_end_matches('-'), hash(&text))
}

/// Whose reports these are, as their pages say: by database and title, which an operator changes less often than the
/// query.
pub(crate) fn owner(database: &Path, title: &str) -> String {
    format!("{:08x}", hash(&format!("{}\0{title}", database.display())))
}

/// A report to write.
pub(crate) struct Report<'a> {
    /// From [`name`].
    pub(crate) name: &'a str,
    /// From [`owner`].
    pub(crate) owner: &'a str,
    pub(crate) csv: &'a str,
    pub(crate) html: &'a str,
}

/// The files of a report that was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) csv: PathBuf,
    pub(crate) html: PathBuf,
    /// The name that is another's, for which the files have another one.
    pub(crate) taken: Option<PathBuf>,
}

/// Writes both files whole, or not at all: the page first, which says whose they are.
pub(crate) fn write(directory: &Path, report: &Report<'_>, call: &Call<'_>) -> Result<Written, Failure> {
    let on_directory = |error: io::Error| explain(directory, &error);
    let lock = open_lock(directory).map_err(on_directory)?;
    let mut tries = 0;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => {
                tries += 1;
                call.sleep(LOCK_PAUSE)?;
            }
            Err(TryLockError::WouldBlock) => {
                let place = directory.display();
                return Err(retry("directory-busy", format!("another report is being written to {place}")));
            }
            Err(TryLockError::Error(error)) => return Err(on_directory(error)),
        }
    }
    let files = place(directory, report)?;
    for (path, content) in [(&files.html, report.html), (&files.csv, report.csv)] {
        call.check()?;
        replace(directory, path, content).map_err(on_directory)?;
    }
    Ok(files)
}

/// Where the report goes: under its name, or, where that is not this handler's, under one with its owner added.
fn place(directory: &Path, report: &Report<'_>) -> Result<Written, Failure> {
    let mut taken = None;
    for name in [report.name.to_owned(), format!("{}-{}", report.name, report.owner)] {
        let path = |end: &str| directory.join(format!("{name}.{end}"));
        let (csv, html) = (path("csv"), path("html"));
        match is_free(&csv, &html, report.owner) {
            Ok(true) => return Ok(Written { csv, html, taken }),
            Ok(false) => taken = taken.or(Some(html)),
            Err(error) => return Err(explain(directory, &error)),
        }
    }
    Err(retry(
        "name-taken",
        format!(
            "{} and the name beside it are not reports of this handler; move them away, or change settings.title or \
             settings.directory",
            directory.join(report.name).display()
        ),
    ))
}

/// Whether nothing would be lost: there is nothing, or the page is a report of this owner.
fn is_free(csv: &Path, html: &Path, owner: &str) -> io::Result<bool> {
    match html.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => {
            let mut beginning = Vec::new();
            File::open(html)?.take(page::CLAIM_BYTES).read_to_end(&mut beginning)?;
            Ok(page::is_replaceable(&beginning, owner))
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Err(_) => match csv.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            other => other.map(|_| false),
        },
    }
}

/// Opens the file that is locked while reports are written.
pub(crate) fn open_lock(directory: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join(LOCK))
}

/// The caller holds the lock. What a killed process left under the temporary name is overwritten.
fn replace(directory: &Path, path: &Path, content: &str) -> io::Result<()> {
    let temporary = directory.join(TEMPORARY);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary); // If this fails too, the next report does it.
    })
}

fn explain(directory: &Path, error: &io::Error) -> Failure {
    let directory = directory.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => retry(
            "disk-full",
            format!("the disk of settings.directory ({directory}) is full; make room there"),
        ),
        ErrorKind::NotFound => retry(
            "no-directory",
            format!("settings.directory: {directory} is not there; make it, or mount its disk"),
        ),
        _ => retry(
            "directory",
            format!(
                "settings.directory: {directory} cannot be written ({error}); give it to the daemon's user"
            ),
        ),
    }
}

/// FNV-1a: not against an attacker, who could at most replace one report by another of the same handler.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_make_plain_names() {
        for (title, argument, expected) in [
            ("Sales", "Q3", "Sales-Q3"),
            ("Sales by region", "", "Sales-by-region"),
            ("x_1", "2026", "x_1-2026"),
        ] {
            assert_eq!(name(title, argument), expected);
        }
    }

    #[test]
    fn no_argument_leaves_the_directory_or_hides_the_file() {
        let long = "x".repeat(500);
        for argument in
            ["../../etc/passwd", "/etc/passwd", "..", ".", ".hidden", "a\0b", "a\nb", "ä/ö", long.as_str()]
        {
            for title in ["Sales", "../.."] {
                let name = name(title, argument);
                assert!(!name.is_empty() && name.len() <= 100, "{name}");
                let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
                assert!(name.bytes().all(allowed), "{argument:?} became {name}");
            }
        }
    }

    #[test]
    fn arguments_that_differ_have_names_that_differ() {
        let arguments = ["Q3", "Q 3", "Q-3", "Q/3", "Q  3", "q3", "Q3 ", "", "ä", "ö"];
        let mut names: Vec<String> = arguments.iter().map(|argument| name("Sales", argument)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), arguments.len(), "{names:?}");
        assert_eq!(name("Sales", "ä"), name("Sales", "ä"), "and the same has the same");
    }
}
