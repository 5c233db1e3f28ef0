//! What the ledger fixture wrote: every execution of every task, whatever was killed meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

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
