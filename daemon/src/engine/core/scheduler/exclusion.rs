//! `exclusive_by`: of the tasks of one key one at a time is waiting for a worker or has one; the others are held until it
//! has ended. Mutual exclusion in this daemon, over all queues of the handler, and no more: a task that is to be retried
//! has ended.

use std::collections::BTreeMap;

use super::{FlowKey, ScheduledTask, Waiter};
use crate::engine::core::keys::{EntryKey, HandlerKey, QueueKey};

/// The keys of all handlers.
#[derive(Debug, Default, Clone)]
pub(super) struct Exclusions {
    keys: BTreeMap<(HandlerKey, u64), Exclusion>,
    /// The tasks that have to wait for another one of their key, by queue and arrival.
    held: BTreeMap<(QueueKey, u64), Waiter>,
}

/// One key.
#[derive(Debug, Clone)]
struct Exclusion {
    /// Whose turn it is.
    holder: EntryKey,
    /// The queues of the tasks that are held, by arrival.
    held: BTreeMap<u64, QueueKey>,
}

impl Exclusions {
    /// A task is to wait for a worker. False: it is held, since another one of its key has its turn.
    pub(super) fn enter(&mut self, new: Waiter) -> bool {
        let Waiter { flow: FlowKey { handler, queue }, task, .. } = new;
        let Some(key) = task.keys.exclusive else { return true };
        match self.keys.get_mut(&(handler, key)) {
            None => {
                let exclusion = Exclusion { holder: task.entry, held: BTreeMap::new() };
                self.keys.insert((handler, key), exclusion);
                true
            }
            Some(exclusion) => {
                exclusion.held.insert(task.order, queue);
                self.held.insert((queue, task.order), new);
                false
            }
        }
    }

    /// A task has ended, or waits no longer. Returns the task whose turn it is now.
    pub(super) fn leave(&mut self, handler: HandlerKey, task: ScheduledTask) -> Option<Waiter> {
        let key = (handler, task.keys.exclusive?);
        let exclusion = self.keys.get_mut(&key)?;
        if exclusion.holder != task.entry {
            if let Some(queue) = exclusion.held.remove(&task.order) {
                self.held.remove(&(queue, task.order));
            }
            return None;
        }
        let next = exclusion.held.pop_first().and_then(|(order, queue)| self.held.remove(&(queue, order)));
        match &next {
            Some(next) => exclusion.holder = next.task.entry,
            None => drop(self.keys.remove(&key)),
        }
        next
    }

    /// Takes out all tasks of a handler that are held.
    pub(super) fn remove_held(&mut self, handler: HandlerKey) -> Vec<ScheduledTask> {
        for (_, exclusion) in self.keys.range_mut((handler, 0)..=(handler, u64::MAX)) {
            exclusion.held.clear();
        }
        let removed = self.held.extract_if(.., |_, waiter| waiter.flow.handler == handler);
        removed.map(|(_, waiter)| waiter.task).collect()
    }

    /// The tasks of a queue that are held, in the order of arrival.
    pub(super) fn held_in(&self, queue: QueueKey) -> impl DoubleEndedIterator<Item = &Waiter> {
        self.held.range((queue, 0)..=(queue, u64::MAX)).map(|(_, waiter)| waiter)
    }

    /// All tasks that are held.
    pub(super) fn held(&self) -> impl Iterator<Item = &Waiter> {
        self.held.values()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.held.is_empty()
    }

    /// The handler is gone.
    pub(super) fn forget(&mut self, handler: HandlerKey) {
        self.remove_held(handler);
        self.keys.retain(|(of, _), _| *of != handler);
    }
}
