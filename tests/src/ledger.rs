//! What the ledger fixture wrote: every execution of every task, whatever was killed meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds since 1970.
    pub at: u64,
    /// `start`, and then `done`, `retry` or `reject`.
    pub what: String,
    /// The task's id.
    pub id: String,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The broker said that it may have been delivered before.
    pub redelivered: bool,
    /// The plugin host's process.
    pub pid: u32,
    /// The version of the plugin that ran it.
    pub version: u32,
}

/// Everything in the ledger, in the order it was written. No ledger: nothing ran.
///
/// # Panics
/// When a line is not one of the fixture's.
pub fn read(path: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // A line under way has no end yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(parse).collect()
}

/// A ledger that grows while it is read: every line is read once.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    read_to: u64,
    /// What was read so far.
    pub entries: Vec<Entry>,
}

impl Follower {
    /// Follows the ledger at `path`, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read_to: 0, entries: Vec::new() }
    }

    /// Reads what was written since.
    ///
    /// # Panics
    /// When a line is not one of the fixture's.
    pub fn read_on(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        let mut text = String::new();
        file.seek(SeekFrom::Start(self.read_to)).expect("seek");
        file.read_to_string(&mut text).expect("the ledger is text");
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read_to += whole as u64;
        self.entries.extend(text[..whole].lines().map(parse));
    }
}

/// The present time as it stands in the ledger: microseconds since 1970.
///
/// # Panics
/// When the clock is before 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    now.as_micros() as u64
}

/// How often each attempt of each task said `what`.
pub fn count(entries: &[Entry], what: &str) -> BTreeMap<(String, u32), usize> {
    let mut counts = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.what == what) {
        *counts.entry((entry.id.clone(), entry.attempt)).or_default() += 1;
    }
    counts
}

fn parse(line: &str) -> Entry {
    let words: Vec<&str> = line.split(' ').collect();
    let [at, what, id, attempt, redelivered, pid, version] = words[..] else {
        panic!("a line of the ledger: {line:?}")
    };
    let number = |word: &str| word.parse::<u64>().unwrap_or_else(|_| panic!("a number: {line:?}"));
    Entry {
        at: number(at),
        what: what.to_owned(),
        id: id.to_owned(),
        attempt: number(attempt) as u32,
        redelivered: redelivered == "1",
        pid: number(pid) as u32,
        version: number(version) as u32,
    }
}
