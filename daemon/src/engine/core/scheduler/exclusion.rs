//! `exclusive_by`: of the tasks of one key one at a time is waiting for a worker or has one; the others are held until it
//! has ended. Mutual exclusion in this daemon, over all queues of the handler, and no more: a task that is to be retried
//! has ended.

use std::collections::{BTreeMap, VecDeque};

use super::{FlowKey, Task, Waiter};
use crate::engine::core::keys::{EntryKey, HandlerKey, QueueKey};

/// The keys of all handlers.
#[derive(Debug, Default, Clone)]
pub(super) struct Exclusions(BTreeMap<(HandlerKey, u64), Exclusion>);

/// One key.
#[derive(Debug, Clone)]
struct Exclusion {
    /// Whose turn it is.
    holder: EntryKey,
    /// In the order of arrival.
    held: VecDeque<Waiter>,
}

impl Exclusions {
    /// A task is to wait for a worker. False: it is held, since another one of its key has its turn.
    pub(super) fn enter(&mut self, new: Waiter) -> bool {
        let Some(key) = new.task.keys.exclusive else { return true };
        match self.0.get_mut(&(new.flow.handler, key)) {
            None => {
                let exclusion = Exclusion { holder: new.task.entry, held: VecDeque::new() };
                self.0.insert((new.flow.handler, key), exclusion);
                true
            }
            Some(exclusion) => {
                let at = exclusion.held.partition_point(|held| held.task.order < new.task.order);
                exclusion.held.insert(at, new);
                false
            }
        }
    }

    /// A task has ended, or waits no longer. Returns the task whose turn it is now.
    pub(super) fn leave(&mut self, handler: HandlerKey, key: Option<u64>, entry: EntryKey) -> Option<Waiter> {
        let key = (handler, key?);
        let exclusion = self.0.get_mut(&key)?;
        if exclusion.holder != entry {
            exclusion.held.retain(|held| held.task.entry != entry);
            return None;
        }
        let next = exclusion.held.pop_front();
        match &next {
            Some(next) => exclusion.holder = next.task.entry,
            None => drop(self.0.remove(&key)),
        }
        next
    }

    /// Takes out all tasks of a handler that are held.
    pub(super) fn remove_held(&mut self, handler: HandlerKey) -> Vec<Task> {
        let exclusions = self.0.range_mut((handler, 0)..=(handler, u64::MAX));
        exclusions.flat_map(|(_, exclusion)| exclusion.held.drain(..)).map(|held| held.task).collect()
    }

    /// The task of a queue that came last, of those that are held.
    pub(super) fn newest(&self, queue: QueueKey) -> Option<Waiter> {
        let newest =
            |exclusion: &Exclusion| exclusion.held.iter().rfind(|held| held.flow.queue == queue).copied();
        self.0.values().filter_map(newest).max_by_key(|held| held.task.order)
    }

    /// How many are held of those that `wanted` takes.
    pub(super) fn held(&self, wanted: impl Fn(FlowKey) -> bool) -> usize {
        self.iter().filter(|held| wanted(held.flow)).count()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.0.values().flat_map(|exclusion| &exclusion.held)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The handler is gone.
    pub(super) fn forget(&mut self, handler: HandlerKey) {
        self.0.retain(|(of, _), _| *of != handler);
    }
}
