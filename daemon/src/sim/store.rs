//! A model of the store of finished tasks: what was written outlasts the daemon.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::dedup::Segment;

/// A record, and whether it is written.
#[derive(Debug)]
struct StoredRecord {
    daemon: u64,
    queue: Arc<str>,
    generation: u64,
    print: u128,
    at: u64,
    is_written: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Records {
    all: BTreeMap<u64, StoredRecord>,
    next: u64,
    forgotten: HashMap<Arc<str>, u64>,
}

impl Records {
    /// A record is handed to the store; its number.
    pub(super) fn add(&mut self, daemon: u64, queue: Arc<str>, generation: u64, print: u128, at: u64) -> u64 {
        self.next += 1;
        self.all.insert(self.next, StoredRecord { daemon, queue, generation, print, at, is_written: false });
        self.next
    }

    /// A record is written.
    pub(super) fn write(&mut self, daemon: u64, number: u64) {
        if let Some(record) = self.all.get_mut(&number).filter(|record| record.daemon == daemon) {
            record.is_written = true;
        }
    }

    /// Generations before this one are forgotten.
    pub(super) fn forget(&mut self, queue: Arc<str>, oldest: u64) {
        self.forgotten.insert(queue, oldest);
    }

    /// The daemon ended in good order: everything is written.
    pub(super) fn write_all(&mut self) {
        self.all.values_mut().for_each(|record| record.is_written = true);
    }

    /// The daemon was killed: what is not written is lost. How much that was.
    pub(super) fn lose_unwritten(&mut self) -> usize {
        let before = self.all.len();
        self.all.retain(|_, record| record.is_written);
        before - self.all.len()
    }

    /// When a task of a queue was recorded last.
    pub(super) fn recorded(&self, queue: &str, print: u128) -> Option<u64> {
        self.of(queue).filter(|record| record.print == print).map(|record| record.at).max()
    }

    /// What a daemon that starts finds of a queue.
    pub(super) fn found(&self, queue: &str) -> Vec<Segment> {
        let mut generations: BTreeMap<u64, Vec<&StoredRecord>> = BTreeMap::new();
        for record in self.of(queue) {
            generations.entry(record.generation).or_default().push(record);
        }
        generations
            .into_iter()
            .map(|(number, records)| {
                let at = records.iter().map(|record| record.at);
                let (first, newest) = (at.clone().min().unwrap_or(0), at.max().unwrap_or(0));
                Segment::found(number, first, newest, records.iter().map(|record| record.print))
            })
            .collect()
    }

    fn of(&self, queue: &str) -> impl Iterator<Item = &StoredRecord> {
        let oldest = self.forgotten.get(queue).copied().unwrap_or(0);
        self.all.values().filter(move |record| &*record.queue == queue && record.generation >= oldest)
    }
}
