//! The table of the deliveries in hand: which of them are the same task, which are held back, which have no tag.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::time::Duration;

use slab::Slab;

use super::entry::{Entry, EntryStage, Ownership};
use super::keys::{EntryKey, QueueKey};
use crate::broker::Delivery;
use crate::dedup::Fingerprint;

#[derive(Debug, Default)]
pub(super) struct InFlight {
    all: Slab<Entry>,
    /// The first entry of every task that has a fingerprint.
    first: HashMap<(QueueKey, Fingerprint), EntryKey>,
    /// Entries that are held back. Some may have left since, and their place may be another's.
    held_back: Vec<EntryKey>,
    /// What is held back should be looked at again.
    look_again: bool,
    /// Entries without a tag. At most a window per queue and link; see `losses::REDELIVERED_WITHIN`.
    detached: Vec<Detached>,
}

/// An entry without a tag.
#[derive(Debug, Clone, Copy)]
struct Detached {
    entry: EntryKey,
    /// The digest of its message: a redelivery is compared with the entries of the same digest only.
    digest: u64,
}

impl InFlight {
    pub(super) fn insert(&mut self, entry: Entry) -> EntryKey {
        let task = entry.fingerprint.map(|fingerprint| (entry.queue, fingerprint));
        let key = self.all.insert(entry);
        if let Some(task) = task {
            self.first.entry(task).or_insert(key);
        }
        key
    }

    /// Takes an entry out for good.
    pub(super) fn remove(&mut self, key: EntryKey) -> Entry {
        self.is_first_no_more(key);
        let entry = self.all.remove(key);
        if let Ownership::Detached(_) = entry.ownership {
            self.detached.retain(|detached| detached.entry != key);
        }
        entry
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (EntryKey, &Entry)> {
        self.all.iter()
    }

    /// The entries that a condition is true of.
    pub(super) fn keys_where(&self, is_true: impl Fn(&Entry) -> bool) -> Vec<EntryKey> {
        self.iter().filter(|(_, entry)| is_true(entry)).map(|(key, _)| key).collect()
    }

    /// Whether no other entry in hand is the first of this one's task. Where there is none, this one becomes the first.
    pub(super) fn is_first_of_task(&mut self, key: EntryKey) -> bool {
        let entry = &self.all[key];
        let Some(fingerprint) = entry.fingerprint else { return true };
        *self.first.entry((entry.queue, fingerprint)).or_insert(key) == key
    }

    /// What was held back for this entry need not wait for it any more: the entry is taken out, or everything of its task is
    /// confirmed and only the acknowledgement is left.
    pub(super) fn is_first_no_more(&mut self, key: EntryKey) {
        let entry = &self.all[key];
        let Some(fingerprint) = entry.fingerprint else { return };
        let task = (entry.queue, fingerprint);
        if self.first.get(&task) == Some(&key) {
            self.first.remove(&task);
            self.look_again = true;
        }
    }

    /// Holds an entry back.
    pub(super) fn hold_back(&mut self, key: EntryKey) {
        self.all[key].stage = EntryStage::HeldBack;
        self.held_back.push(key);
    }

    /// Says that what is held back should be looked at again.
    pub(super) fn look_again(&mut self) {
        self.look_again = true;
    }

    /// What was held back and should be looked at again, in the order it came. Each entry has just arrived.
    pub(super) fn take_held_back(&mut self) -> Vec<EntryKey> {
        if !std::mem::take(&mut self.look_again) {
            return Vec::new();
        }
        let mut keys = std::mem::take(&mut self.held_back);
        keys.retain(|key| match self.all.get_mut(*key) {
            Some(entry) if matches!(entry.stage, EntryStage::HeldBack) => {
                entry.stage = EntryStage::Arrived;
                true
            }
            _ => false,
        });
        keys
    }

    /// Nobody holds a tag for this entry any more.
    pub(super) fn detach(&mut self, key: EntryKey, consumed: Duration, digest: u64) {
        self.all[key].ownership = Ownership::Detached(consumed);
        self.detached.push(Detached { entry: key, digest });
    }

    /// Whether a redelivery may belong to an entry without a tag.
    pub(super) fn has_detached(&self) -> bool {
        !self.detached.is_empty()
    }

    /// Gives the tag of a redelivery to the entry of the same message.
    pub(super) fn reattach(&mut self, queue: QueueKey, digest: u64, again: &Delivery) -> Option<EntryKey> {
        let at = self.detached.iter().position(|detached| {
            let entry = &self.all[detached.entry];
            detached.digest == digest && entry.queue == queue && entry.is_same_message(again)
        })?;
        let key = self.detached.swap_remove(at).entry;
        self.all[key].ownership = Ownership::Held(again.consumer, again.tag);
        Some(key)
    }

    #[cfg(any(test, feature = "simulate"))]
    pub(super) fn get(&self, key: EntryKey) -> Option<&Entry> {
        self.all.get(key)
    }

    #[cfg(any(test, feature = "simulate"))]
    pub(super) fn is_listed_as_detached(&self, key: EntryKey) -> bool {
        self.detached.iter().any(|detached| detached.entry == key)
    }

    /// The entries without a tag whose outcome is known, and when they were detached.
    pub(super) fn ended_and_detached(&self) -> Vec<(EntryKey, QueueKey, Duration)> {
        let ended = |detached: &Detached| {
            let entry = &self.all[detached.entry];
            let Ownership::Detached(since) = entry.ownership else { return None };
            let ended = matches!(entry.stage, EntryStage::Decided(_) | EntryStage::Confirmed);
            ended.then_some((detached.entry, entry.queue, since))
        };
        self.detached.iter().filter_map(ended).collect()
    }
}

impl Index<EntryKey> for InFlight {
    type Output = Entry;

    fn index(&self, key: EntryKey) -> &Entry {
        &self.all[key]
    }
}

impl IndexMut<EntryKey> for InFlight {
    fn index_mut(&mut self, key: EntryKey) -> &mut Entry {
        &mut self.all[key]
    }
}
