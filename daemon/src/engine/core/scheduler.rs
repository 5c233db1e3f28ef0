//! Which waiting task runs next. Today: the tasks of the oldest generation first, and of one generation those of the
//! queue that was configured first, each in the order of arrival.
//!
//! A turn of the core asks in rounds: [`begin_round`](Scheduler::begin_round), then [`next`](Scheduler::next) for the list
//! whose turn it is, and for each either [`take`](Scheduler::take) (its first task starts) or
//! [`pass_over`](Scheduler::pass_over) (no worker takes its tasks in this round). What decides the order is known to this
//! module alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use super::keys::{EntryKey, PoolKey, QueueKey};

/// The tasks of one queue that wait for one handler pool.
pub(super) type ListKey = (PoolKey, QueueKey);

/// Every waiting task.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    /// An emptied list keeps its memory for as long as its pool lives.
    lists: BTreeMap<ListKey, VecDeque<EntryKey>>,
    /// The lists that are not empty: a pool without tasks costs nothing.
    filled: BTreeSet<ListKey>,
    /// The last list of this round that was passed over.
    passed: Option<ListKey>,
}

impl Scheduler {
    /// A task that has arrived waits.
    pub(super) fn add(&mut self, pool: PoolKey, queue: QueueKey, entry: EntryKey) {
        self.list(pool, queue).push_back(entry);
    }

    /// A task that was taken and not started waits again, before all others.
    pub(super) fn put_back(&mut self, pool: PoolKey, queue: QueueKey, entry: EntryKey) {
        self.list(pool, queue).push_front(entry);
    }

    /// A task waits no longer.
    pub(super) fn remove(&mut self, pool: PoolKey, queue: QueueKey, entry: EntryKey) {
        self.take_out((pool, queue), |list| list.retain(|waiting| *waiting != entry));
    }

    /// Takes out every task that waits for a pool, queue by queue.
    pub(super) fn remove_all_of(&mut self, pool: PoolKey) -> Vec<EntryKey> {
        let mut entries = Vec::new();
        for (key, list) in self.lists.range_mut((pool, 0)..=(pool, QueueKey::MAX)) {
            entries.extend(list.drain(..));
            self.filled.remove(key);
        }
        entries
    }

    /// Takes out the task of a list that came last.
    pub(super) fn remove_newest(&mut self, pool: PoolKey, queue: QueueKey) -> Option<EntryKey> {
        self.take_out((pool, queue), VecDeque::pop_back)?
    }

    /// The pool is gone.
    pub(super) fn forget(&mut self, pool: PoolKey) {
        self.lists.retain(|key, _| key.0 != pool);
        self.filled.retain(|key| key.0 != pool);
    }

    /// How many tasks of one queue wait for a pool.
    pub(super) fn waiting(&self, pool: PoolKey, queue: QueueKey) -> usize {
        self.lists.get(&(pool, queue)).map_or(0, VecDeque::len)
    }

    /// How many tasks wait for a pool.
    pub(super) fn waiting_for(&self, pool: PoolKey) -> usize {
        self.lists.range((pool, 0)..=(pool, QueueKey::MAX)).map(|(_, list)| list.len()).sum()
    }

    /// The pools for which tasks of this queue wait.
    pub(super) fn pools_with(&self, queue: QueueKey) -> impl Iterator<Item = PoolKey> {
        self.filled.iter().filter(move |key| key.1 == queue).map(|key| key.0)
    }

    /// A new round: every list may be asked for again.
    pub(super) fn begin_round(&mut self) {
        self.passed = None;
    }

    /// The list whose first task is to run next; `None`: the round is over.
    pub(super) fn next(&self) -> Option<ListKey> {
        let after = self.passed.map_or(Bound::Unbounded, Bound::Excluded);
        self.filled.range((after, Bound::Unbounded)).next().copied()
    }

    /// Takes out the first task of the list that [`next`](Self::next) named.
    pub(super) fn take(&mut self, key: ListKey) -> Option<EntryKey> {
        self.take_out(key, VecDeque::pop_front)?
    }

    /// No task of the list that [`next`](Self::next) named can start in this round.
    pub(super) fn pass_over(&mut self, key: ListKey) {
        self.passed = Some(key);
    }

    /// Every task that waits, each list in ascending order.
    #[cfg(any(test, feature = "simulate"))]
    pub(super) fn listed(&self) -> BTreeMap<ListKey, Vec<EntryKey>> {
        let filled: Vec<ListKey> =
            self.lists.iter().filter(|(_, list)| !list.is_empty()).map(|(key, _)| *key).collect();
        assert!(filled.iter().eq(&self.filled), "the lists that are noted as filled are");
        let sorted = |key: &ListKey| {
            let mut entries: Vec<EntryKey> = self.lists[key].iter().copied().collect();
            entries.sort_unstable();
            (*key, entries)
        };
        self.filled.iter().map(sorted).collect()
    }

    fn list(&mut self, pool: PoolKey, queue: QueueKey) -> &mut VecDeque<EntryKey> {
        let list = self.lists.entry((pool, queue)).or_default();
        if list.is_empty() {
            self.filled.insert((pool, queue));
        }
        list
    }

    fn take_out<T>(&mut self, key: ListKey, take: impl FnOnce(&mut VecDeque<EntryKey>) -> T) -> Option<T> {
        let list = self.lists.get_mut(&key)?;
        let taken = take(list);
        if list.is_empty() {
            self.filled.remove(&key);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What runs when every list may start so many tasks.
    fn round(scheduler: &mut Scheduler, mut room: impl FnMut(ListKey) -> bool) -> Vec<EntryKey> {
        let mut order = Vec::new();
        scheduler.begin_round();
        while let Some(list) = scheduler.next() {
            if room(list) {
                order.extend(scheduler.take(list));
            } else {
                scheduler.pass_over(list);
            }
        }
        order
    }

    #[test]
    fn the_oldest_generation_runs_first_and_each_list_in_the_order_of_arrival() {
        let mut scheduler = Scheduler::default();
        for (pool, queue, entry) in [(7, 1, 0), (3, 1, 1), (7, 0, 2), (3, 1, 3), (7, 0, 4)] {
            scheduler.add(pool, queue, entry);
        }
        scheduler.put_back(7, 0, 5);
        assert_eq!((scheduler.waiting(7, 0), scheduler.waiting_for(7), scheduler.waiting_for(3)), (3, 4, 2));
        assert_eq!(scheduler.pools_with(1).collect::<Vec<_>>(), [3, 7]);
        assert_eq!(round(&mut scheduler, |_| true), [1, 3, 5, 2, 4, 0]);
        assert!(round(&mut scheduler, |_| true).is_empty());
    }

    #[test]
    fn a_list_that_is_passed_over_comes_again_in_the_next_round_only() {
        let mut scheduler = Scheduler::default();
        for entry in 0..3 {
            scheduler.add(1, 0, entry);
            scheduler.add(2, 0, 10 + entry);
        }
        let mut room = 1;
        let order = round(&mut scheduler, |(pool, _)| {
            let has_room = pool == 2 || room > 0;
            room -= i32::from(pool == 1 && room > 0);
            has_room
        });
        assert_eq!(order, [0, 10, 11, 12]);
        assert_eq!(round(&mut scheduler, |_| true), [1, 2]);
    }

    #[test]
    fn what_is_taken_out_in_any_way_waits_no_more() {
        let mut scheduler = Scheduler::default();
        for entry in 0..6 {
            scheduler.add(1, entry % 2, entry);
        }
        scheduler.remove(1, 0, 2);
        assert_eq!(scheduler.remove_newest(1, 1), Some(5));
        assert_eq!(scheduler.remove_all_of(1), [0, 4, 1, 3]);
        assert_eq!((scheduler.next(), scheduler.waiting_for(1)), (None, 0));
        scheduler.add(1, 0, 9);
        scheduler.remove(1, 0, 9);
        assert_eq!(scheduler.next(), None);
        scheduler.add(1, 0, 9);
        scheduler.forget(1);
        assert_eq!((scheduler.next(), scheduler.waiting_for(1)), (None, 0));
    }
}
