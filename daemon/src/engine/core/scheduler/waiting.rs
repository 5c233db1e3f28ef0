//! What waits in one flow: the tasks of one handler in one queue. Without keys they start in the order of arrival. With
//! `fair_by` those of each key have a list of their own, and the keys share what the flow gets, as flows share a queue.

use std::collections::{BTreeMap, VecDeque};

use super::ScheduledTask;
use super::shares::{FlowIndex, RunCharge, Shares};
use crate::engine::core::keys::PoolKey;

/// The list of the tasks without a key; the only one where no key is asked for.
const KEYLESS: FlowIndex = 0;
/// Keys that are remembered. Beyond it, what idle ones have had is forgotten.
const MAX_KEYS: usize = 4096;

#[derive(Debug, Default, Clone)]
pub(super) struct WaitLists {
    /// The generation that takes them; one at a time, because a replaced one has nothing waiting.
    pub(super) pool: PoolKey,
    lists: Vec<VecDeque<ScheduledTask>>,
    keys: BTreeMap<u64, FlowIndex>,
    /// Lists that belong to no key.
    free: Vec<FlowIndex>,
    /// Between the lists; of no interest while there is one.
    shares: Shares,
    len: usize,
    /// At so many keys those that are idle are looked for again; 0: at [`MAX_KEYS`].
    look_at: usize,
    /// When a task of it was started last, counted in starts of all.
    pub(super) started: u64,
}

impl WaitLists {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The task that is to start next.
    pub(super) fn first(&self) -> Option<ScheduledTask> {
        self.lists.get(self.first_list()?)?.front().copied()
    }

    /// Adds a task where it belongs by its arrival.
    pub(super) fn insert(&mut self, task: ScheduledTask) {
        let index = self.index_for(task.keys.fair);
        let list = &mut self.lists[index];
        let at = list.partition_point(|other| other.order < task.order);
        list.insert(at, task);
        self.len += 1;
        if self.is_shared() {
            self.shares.wait(index);
        }
    }

    /// Takes a task out, if it is there.
    pub(super) fn remove(&mut self, task: ScheduledTask) {
        let Some(index) = self.index_of(task.keys.fair) else { return };
        let Some(list) = self.lists.get_mut(index) else { return };
        if let Ok(at) = list.binary_search_by_key(&task.order, |other| other.order) {
            list.remove(at);
            self.took_from(index);
        }
    }

    /// Takes out the task that [`first`](Self::first) names.
    pub(super) fn remove_first(&mut self) -> Option<ScheduledTask> {
        let index = self.first_list()?;
        self.take_first(index)
    }

    /// Takes out the task that came last.
    pub(super) fn remove_newest(&mut self) -> Option<ScheduledTask> {
        let newest = |index: &FlowIndex| self.lists[*index].back().map(|task| task.order);
        let index = (0..self.lists.len()).filter(|index| newest(index).is_some()).max_by_key(newest)?;
        let task = self.lists[index].pop_back()?;
        self.took_from(index);
        Some(task)
    }

    /// Takes out all of them.
    pub(super) fn remove_all(&mut self) -> Vec<ScheduledTask> {
        std::iter::from_fn(|| self.remove_first()).collect()
    }

    /// The task that [`first`](Self::first) names starts.
    pub(super) fn start(&mut self, charge: RunCharge) -> Option<ScheduledTask> {
        let index = self.first_list()?;
        if self.is_shared() {
            self.shares.start(index, charge);
        }
        self.take_first(index)
    }

    /// More is known of what a task of this key runs.
    pub(super) fn correct(&mut self, fair: Option<u64>, was: RunCharge, is: RunCharge) {
        if let Some(index) = self.account_of(fair) {
            self.shares.correct(index, was, is);
        }
    }

    /// A task of this key that was started has ended.
    pub(super) fn ended(&mut self, fair: Option<u64>) {
        if let Some(index) = self.account_of(fair) {
            self.shares.end(index);
            self.forget_idle_key(index, fair);
        }
    }

    #[cfg(any(test, feature = "simulate"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = &ScheduledTask> {
        self.lists.iter().flatten()
    }

    /// Keys that are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.keys.len()
    }

    fn is_shared(&self) -> bool {
        self.lists.len() > 1
    }

    fn first_list(&self) -> Option<FlowIndex> {
        if self.is_shared() { Some(self.shares.next_waiting(None)?.flow) } else { Some(KEYLESS) }
    }

    fn index_of(&self, fair: Option<u64>) -> Option<FlowIndex> {
        fair.map_or(Some(KEYLESS), |key| self.keys.get(&key).copied())
    }

    /// The account of a key, where accounts are kept.
    fn account_of(&self, fair: Option<u64>) -> Option<FlowIndex> {
        self.index_of(fair).filter(|index| self.shares.has(*index))
    }

    fn index_for(&mut self, fair: Option<u64>) -> FlowIndex {
        if self.lists.is_empty() {
            self.lists.push(VecDeque::new());
        }
        let Some(key) = fair else { return KEYLESS };
        if let Some(index) = self.keys.get(&key) {
            return *index;
        }
        if self.keys.len() >= self.look_at.max(MAX_KEYS) {
            self.forget_idle_keys();
            self.look_at = self.keys.len() * 2;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.lists.push(VecDeque::new());
            self.lists.len() - 1
        });
        self.keys.insert(key, index);
        if !self.lists[KEYLESS].is_empty() {
            self.shares.wait(KEYLESS);
        }
        index
    }

    fn take_first(&mut self, index: FlowIndex) -> Option<ScheduledTask> {
        let task = self.lists.get_mut(index)?.pop_front()?;
        self.took_from(index);
        Some(task)
    }

    fn took_from(&mut self, index: FlowIndex) {
        self.len -= 1;
        if self.lists[index].is_empty() {
            self.shares.stop_waiting(index);
        }
    }

    /// Forgets a key that owes nothing, so that keys that never come again take no memory.
    fn forget_idle_key(&mut self, index: FlowIndex, fair: Option<u64>) {
        if let Some(key) = fair
            && self.shares.is_settled(index)
        {
            self.forget_key(key, index);
        }
    }

    /// Forgets what idle keys have had.
    fn forget_idle_keys(&mut self) {
        let keys = self.keys.iter().map(|(key, index)| (*key, *index));
        let idle: Vec<_> = keys.filter(|(_, index)| !self.shares.is_active(*index)).collect();
        for (key, index) in idle {
            self.forget_key(key, index);
        }
    }

    fn forget_key(&mut self, key: u64, index: FlowIndex) {
        self.keys.remove(&key);
        self.shares.forget(index);
        self.lists[index] = VecDeque::new();
        self.free.push(index);
    }
}
