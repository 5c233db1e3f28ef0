//! Which waiting task runs next: the workers of a queue are shared fairly between the handlers that have tasks waiting in
//! it, by weighted fair queueing over run time; the tasks of one handler run in the order of arrival, or share what the
//! handler gets by their keys (`waiting.rs`). Tasks that may not run beside another one are held (`exclusion.rs`).
//!
//! The tasks of one handler in one queue are a flow. Its turn belongs to the handler, not to a generation: a reload changes
//! nobody's turn.
//!
//! A turn of the core asks in rounds: [`begin_round`](Scheduler::begin_round), then [`next`](Scheduler::next) for the flow
//! whose turn it is, and for each either [`start`](Scheduler::start) (its first task starts) or
//! [`pass_over`](Scheduler::pass_over) (no worker takes its tasks in this round). What decides the order is known to this
//! module alone.

mod exclusion;
mod round;
mod shares;
#[cfg(test)]
mod tests;
mod waiting;

use std::time::Duration;

use self::exclusion::Exclusions;
use self::round::Round;
pub(super) use self::shares::RunCharge;
use self::shares::{FlowPosition, Shares};
use self::waiting::WaitLists;
use super::keys::{EntryKey, HandlerKey, PoolKey, QueueKey};

/// The tasks of one handler that wait in one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlowKey {
    pub(super) handler: HandlerKey,
    pub(super) queue: QueueKey,
}

/// A task that waits, as far as its turn depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScheduledTask {
    pub(super) entry: EntryKey,
    /// The number of the delivery, counted from the start of the daemon: an older one has a lower number.
    pub(super) order: u64,
    pub(super) keys: TaskKeys,
}

/// What tells a task from others of its handler, as digests; `None`: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TaskKeys {
    /// Of `fair_by`.
    pub(super) fair: Option<u64>,
    /// Of `exclusive_by`.
    pub(super) exclusive: Option<u64>,
}

/// A task with where it waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) flow: FlowKey,
    pub(super) pool: PoolKey,
    pub(super) task: ScheduledTask,
}

/// Why no task of a flow can start in this round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Every worker of the queue is busy.
    NoWorker,
    /// Something of the handler's own: its limit, or hosts that are starting.
    Itself,
}

/// Every waiting task.
#[derive(Debug, Default, Clone)]
pub(super) struct Scheduler {
    queues: Vec<QueueFlows>,
    weights: Vec<u16>,
    exclusions: Exclusions,
    /// Since this round began a task waits for a worker that was held, or a flow has another turn: a flow that the round is
    /// done with may have a place now.
    wants_another_round: bool,
    round: Round,
    /// The queue that was served last: the next round begins behind it.
    last: QueueKey,
    /// Starts of all.
    starts: u64,
}

/// The flows of one queue.
#[derive(Debug, Default, Clone)]
struct QueueFlows {
    shares: Shares,
    /// By handler. An emptied list keeps its memory for as long as its handler is there.
    lists: Vec<WaitLists>,
}

impl Scheduler {
    /// A generation of this handler opens.
    pub(super) fn set_weight(&mut self, handler: HandlerKey, weight: u16) {
        if self.weights.len() <= handler {
            self.weights.resize(handler + 1, 1);
        }
        self.weights[handler] = weight;
        for queue in &mut self.queues {
            queue.shares.set_weight(handler, weight);
        }
    }

    /// A task waits: it has arrived, or was taken and not started. Its place is by its arrival.
    pub(super) fn add(&mut self, flow: FlowKey, pool: PoolKey, task: ScheduledTask) {
        let new = Waiter { flow, pool, task };
        if self.exclusions.enter(new) {
            self.admit(new);
        }
    }

    /// A task waits no longer.
    pub(super) fn remove(&mut self, flow: FlowKey, task: ScheduledTask) {
        self.take_out(flow, |list| list.remove(task));
        self.leave(flow.handler, task);
    }

    /// Takes out every task that waits for a handler, in the order of arrival.
    pub(super) fn remove_all_of(&mut self, handler: HandlerKey) -> Vec<EntryKey> {
        let mut tasks = self.exclusions.remove_held(handler);
        for queue in 0..self.queues.len() {
            let waiting =
                self.take_out(FlowKey { handler, queue }, WaitLists::remove_all).unwrap_or_default();
            for task in &waiting {
                self.leave(handler, *task);
            }
            tasks.extend(waiting);
        }
        tasks.sort_unstable_by_key(|task| task.order);
        tasks.into_iter().map(|task| task.entry).collect()
    }

    /// Takes out the task of a flow that came last.
    pub(super) fn remove_newest(&mut self, flow: FlowKey) -> Option<EntryKey> {
        let task = self.take_out(flow, WaitLists::remove_newest)??;
        self.leave(flow.handler, task);
        Some(task.entry)
    }

    /// The task of a queue that came last, of those that are held for another one of their key.
    pub(super) fn newest_held(&self, queue: QueueKey) -> Option<Waiter> {
        self.exclusions.held_in(queue).next_back().copied()
    }

    /// Takes out the first task of a flow, which does not start.
    pub(super) fn remove_first(&mut self, flow: FlowKey) -> Option<EntryKey> {
        let task = self.take_out(flow, WaitLists::remove_first)??;
        self.leave(flow.handler, task);
        Some(task.entry)
    }

    /// The handler is gone.
    pub(super) fn forget(&mut self, handler: HandlerKey) {
        if let Some(weight) = self.weights.get_mut(handler) {
            *weight = 1;
        }
        self.exclusions.forget(handler);
        for queue in &mut self.queues {
            queue.shares.forget(handler);
            if let Some(list) = queue.lists.get_mut(handler) {
                *list = WaitLists::default();
            }
        }
    }

    /// How many tasks of a flow wait for a worker.
    pub(super) fn waiting(&self, flow: FlowKey) -> usize {
        self.waiting_in(flow).map_or(0, WaitLists::len)
    }

    /// How many tasks of a queue are held for another one of their key.
    pub(super) fn held_in(&self, queue: QueueKey) -> usize {
        self.exclusions.held_in(queue).count()
    }

    /// How many tasks wait for a handler, those included that are held.
    pub(super) fn waiting_for(&self, handler: HandlerKey) -> usize {
        let waiting =
            (0..self.queues.len()).map(|queue| self.waiting(FlowKey { handler, queue })).sum::<usize>();
        waiting + self.exclusions.held().filter(|held| held.flow.handler == handler).count()
    }

    /// Whether a task of a handler waits for a worker.
    pub(super) fn is_waiting(&self, handler: HandlerKey) -> bool {
        (0..self.queues.len()).any(|queue| self.waiting(FlowKey { handler, queue }) > 0)
    }

    /// The first task of a flow.
    pub(super) fn first(&self, flow: FlowKey) -> Option<EntryKey> {
        self.waiting_in(flow)?.first().map(|task| task.entry)
    }

    /// The generation that takes the tasks of a flow.
    pub(super) fn pool(&self, flow: FlowKey) -> Option<PoolKey> {
        self.waiting_in(flow).map(|list| list.pool)
    }

    /// The flows of a queue that have tasks waiting, in the order of their turns.
    pub(super) fn flows_of(&self, queue: QueueKey) -> impl Iterator<Item = FlowKey> {
        let shares = self.queues.get(queue).map(|queue| &queue.shares);
        let next =
            move |position: &FlowPosition| shares.and_then(|shares| shares.next_waiting(Some(*position)));
        let first = shares.and_then(|shares| shares.next_waiting(None));
        std::iter::successors(first, next).map(move |position| FlowKey { handler: position.flow, queue })
    }

    /// The first task of the flow that [`next`](Self::next) named starts.
    pub(super) fn start(&mut self, flow: FlowKey, charge: RunCharge) -> Option<EntryKey> {
        self.last = flow.queue;
        self.starts += 1;
        let starts = self.starts;
        self.queues.get_mut(flow.queue)?.shares.start(flow.handler, charge);
        let start = |list: &mut WaitLists| {
            list.started = starts;
            list.start(charge)
        };
        self.take_out(flow, start)?.map(|task| task.entry)
    }

    /// More is known of what a task runs.
    pub(super) fn correct(&mut self, flow: FlowKey, fair: Option<u64>, was: RunCharge, is: RunCharge) {
        let Some(queue) = self.queues.get_mut(flow.queue) else { return };
        queue.shares.correct(flow.handler, was, is);
        if let Some(list) = queue.lists.get_mut(flow.handler) {
            list.correct(fair, was, is);
        }
    }

    /// A task that was started has ended, after it ran for so long.
    pub(super) fn ended(&mut self, flow: FlowKey, task: ScheduledTask, charge: RunCharge, ran: Duration) {
        self.correct(flow, task.keys.fair, charge, RunCharge::ended(ran));
        if let Some(queue) = self.queues.get_mut(flow.queue) {
            queue.shares.end(flow.handler);
            if let Some(list) = queue.lists.get_mut(flow.handler) {
                list.ended(task.keys.fair);
            }
        }
        self.leave(flow.handler, task);
    }

    /// Every task that waits, each list in ascending order.
    #[cfg(any(test, feature = "simulate"))]
    pub(super) fn listed(&self) -> std::collections::BTreeMap<(PoolKey, QueueKey), Vec<EntryKey>> {
        let mut listed = std::collections::BTreeMap::<_, Vec<EntryKey>>::new();
        for (key, queue) in self.queues.iter().enumerate() {
            let mut filled: Vec<HandlerKey> = self.flows_of(key).map(|flow| flow.handler).collect();
            filled.sort_unstable();
            let lists = || queue.lists.iter().enumerate().filter(|(_, list)| !list.is_empty());
            assert!(
                lists().map(|(handler, _)| handler).eq(filled),
                "the flows that are noted as waiting are"
            );
            for (_, list) in lists() {
                assert_eq!(list.iter().count(), list.len());
                assert!(list.first().is_some(), "what waits has a first");
                let entries = list.iter().map(|task| task.entry).collect();
                assert!(listed.insert((list.pool, key), entries).is_none(), "one list a pool and queue");
            }
        }
        for Waiter { flow, pool, task } in self.exclusions.held() {
            listed.entry((*pool, flow.queue)).or_default().push(task.entry);
        }
        for entries in listed.values_mut() {
            entries.sort_unstable();
        }
        listed
    }

    fn waiting_in(&self, flow: FlowKey) -> Option<&WaitLists> {
        self.queues.get(flow.queue)?.lists.get(flow.handler)
    }

    /// A task waits for a worker from now on.
    fn admit(&mut self, new: Waiter) {
        let Waiter { flow, pool, task } = new;
        let weights = &self.weights;
        while self.queues.len() <= flow.queue {
            let mut queue = QueueFlows::default();
            weights
                .iter()
                .enumerate()
                .for_each(|(handler, weight)| queue.shares.set_weight(handler, *weight));
            self.queues.push(queue);
        }
        let queue = &mut self.queues[flow.queue];
        if queue.lists.len() <= flow.handler {
            queue.lists.resize_with(flow.handler + 1, WaitLists::default);
        }
        let list = &mut queue.lists[flow.handler];
        list.pool = pool;
        if list.is_empty() {
            queue.shares.wait(flow.handler);
        }
        list.insert(task);
    }

    /// A task of the handler has ended or waits no longer: the next one of its key may.
    fn leave(&mut self, handler: HandlerKey, task: ScheduledTask) {
        if let Some(next) = self.exclusions.leave(handler, task) {
            self.wants_another_round = true;
            self.admit(next);
        }
    }

    fn take_out<T>(&mut self, flow: FlowKey, take: impl FnOnce(&mut WaitLists) -> T) -> Option<T> {
        let queue = self.queues.get_mut(flow.queue)?;
        let list = queue.lists.get_mut(flow.handler)?;
        let taken = take(list);
        if list.is_empty() {
            queue.shares.stop_waiting(flow.handler);
        }
        Some(taken)
    }
}
