//! Which waiting task runs next: the workers of a queue are shared fairly between the handlers that have tasks waiting in
//! it, by weighted fair queueing over run time; the tasks of one handler run in the order of arrival.
//!
//! The tasks of one handler in one queue are a flow. Its turn belongs to the handler, not to a generation: a reload changes
//! nobody's turn.
//!
//! A turn of the core asks in rounds: [`begin_round`](Scheduler::begin_round), then [`next`](Scheduler::next) for the flow
//! whose turn it is, and for each either [`start`](Scheduler::start) (its first task starts) or
//! [`pass_over`](Scheduler::pass_over) (no worker takes its tasks in this round). What decides the order is known to this
//! module alone.

mod shares;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use self::shares::{Place, Shares, Virtual};
use super::keys::{EntryKey, HandlerKey, PoolKey, QueueKey};

/// How far a flow may get ahead of one that waits for a worker, by tasks that are queued in hosts that it keeps busy: a
/// host that is changed after every short task costs more than it runs.
const AHEAD: Duration = Duration::from_millis(1);

/// The tasks of one handler that wait in one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlowKey {
    pub(super) handler: HandlerKey,
    pub(super) queue: QueueKey,
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
    round: Round,
    /// The queue that was served last: a handler at its own limit serves its queues in turn.
    last: QueueKey,
}

/// The flows of one queue.
#[derive(Debug, Default, Clone)]
struct QueueFlows {
    shares: Shares,
    /// By handler. An emptied list keeps its memory for as long as its handler is there.
    lists: Vec<Waiting>,
}

/// What waits in one flow.
#[derive(Debug, Default, Clone)]
struct Waiting {
    /// The generation that takes it; one at a time, because a replaced one has nothing waiting.
    pool: PoolKey,
    entries: VecDeque<EntryKey>,
}

/// How far a round is.
#[derive(Debug, Default, Clone)]
struct Round {
    /// The queue that it began with.
    first: QueueKey,
    /// Queues that are done with.
    queues: usize,
    /// The last flow of this queue that was passed over.
    passed: Option<Place>,
    /// The virtual start of the first flow for which this queue had no worker.
    contender: Option<Virtual>,
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

    /// A task that has arrived waits.
    pub(super) fn add(&mut self, flow: FlowKey, pool: PoolKey, entry: EntryKey) {
        self.list(flow, pool).push_back(entry);
    }

    /// A task that was taken and not started waits again, before all others.
    pub(super) fn put_back(&mut self, flow: FlowKey, pool: PoolKey, entry: EntryKey) {
        self.list(flow, pool).push_front(entry);
    }

    /// A task waits no longer.
    pub(super) fn remove(&mut self, flow: FlowKey, entry: EntryKey) {
        self.take_out(flow, |list| list.retain(|waiting| *waiting != entry));
    }

    /// Takes out every task that waits for a handler, queue by queue.
    pub(super) fn remove_all_of(&mut self, handler: HandlerKey) -> Vec<EntryKey> {
        let mut entries = Vec::new();
        for queue in 0..self.queues.len() {
            self.take_out(FlowKey { handler, queue }, |list| entries.extend(list.drain(..)));
        }
        entries
    }

    /// Takes out the task of a flow that came last.
    pub(super) fn remove_newest(&mut self, flow: FlowKey) -> Option<EntryKey> {
        self.take_out(flow, VecDeque::pop_back)?
    }

    /// Takes out the first task of a flow, which does not start.
    pub(super) fn remove_first(&mut self, flow: FlowKey) -> Option<EntryKey> {
        self.take_out(flow, VecDeque::pop_front)?
    }

    /// The handler is gone.
    pub(super) fn forget(&mut self, handler: HandlerKey) {
        if let Some(weight) = self.weights.get_mut(handler) {
            *weight = 1;
        }
        for queue in &mut self.queues {
            queue.shares.forget(handler);
            if let Some(list) = queue.lists.get_mut(handler) {
                *list = Waiting::default();
            }
        }
    }

    /// How many tasks of a flow wait.
    pub(super) fn waiting(&self, flow: FlowKey) -> usize {
        self.waiting_in(flow).map_or(0, |list| list.entries.len())
    }

    /// How many tasks wait for a handler.
    pub(super) fn waiting_for(&self, handler: HandlerKey) -> usize {
        (0..self.queues.len()).map(|queue| self.waiting(FlowKey { handler, queue })).sum()
    }

    /// The first task of a flow.
    pub(super) fn first(&self, flow: FlowKey) -> Option<EntryKey> {
        self.waiting_in(flow)?.entries.front().copied()
    }

    /// The generation that takes the tasks of a flow.
    pub(super) fn pool(&self, flow: FlowKey) -> Option<PoolKey> {
        self.waiting_in(flow).map(|list| list.pool)
    }

    /// The flows of a queue that have tasks waiting, in the order of their turns.
    pub(super) fn flows_of(&self, queue: QueueKey) -> impl Iterator<Item = FlowKey> {
        let shares = self.queues.get(queue).map(|queue| &queue.shares);
        let next = move |place: &Place| shares.and_then(|shares| shares.next_waiting(Some(*place)));
        let first = shares.and_then(|shares| shares.next_waiting(None));
        std::iter::successors(first, next).map(move |place| FlowKey { handler: place.flow, queue })
    }

    /// A new round: every flow may be asked for again.
    pub(super) fn begin_round(&mut self) {
        self.round = Round { first: self.last + 1, ..Round::default() };
    }

    /// The flow whose first task is to run next; `None`: the round is over. Once a queue has no worker left, only flows
    /// that keep workers of it busy are asked for: their tasks may be queued there.
    pub(super) fn next(&mut self) -> Option<FlowKey> {
        while self.round.queues < self.queues.len() {
            let queue = self.queue_in_turn();
            let shares = &self.queues[queue].shares;
            let next = match self.round.contender {
                None => shares.next_waiting(self.round.passed),
                Some(_) => shares.next_running(self.round.passed),
            };
            if let Some(place) = next {
                return Some(FlowKey { handler: place.flow, queue });
            }
            let Round { first, queues, .. } = self.round;
            self.round = Round { first, queues: queues + 1, ..Round::default() };
        }
        None
    }

    /// Whether the flow that [`next`](Self::next) named may queue its tasks in workers that it keeps busy: not when it
    /// gets too far ahead of a flow that waits for a worker.
    pub(super) fn may_queue(&self, flow: FlowKey) -> bool {
        let Some(contender) = self.round.contender else { return true };
        let Some(QueueFlows { shares, .. }) = self.queues.get(flow.queue) else { return true };
        let ahead = contender.saturating_add(shares.price(flow.handler, AHEAD));
        shares.place_of(flow.handler).start <= ahead
    }

    /// Whether a flow of this queue waits for a worker, and comes before the flow that [`next`](Self::next) named.
    pub(super) fn has_contender(&self) -> bool {
        self.round.contender.is_some()
    }

    /// The first task of the flow that [`next`](Self::next) named starts, and is expected to run so long.
    pub(super) fn start(&mut self, flow: FlowKey, expected: Duration) -> Option<EntryKey> {
        self.last = flow.queue;
        self.queues.get_mut(flow.queue)?.shares.start(flow.handler, expected);
        self.remove_first(flow)
    }

    /// A task was charged for another run time than it has had by now.
    pub(super) fn correct(&mut self, flow: FlowKey, charged: Duration, real: Duration) {
        if let Some(queue) = self.queues.get_mut(flow.queue) {
            queue.shares.correct(flow.handler, charged, real);
        }
    }

    /// A task that was started, and charged for so long, has ended.
    pub(super) fn ended(&mut self, flow: FlowKey, charged: Duration, real: Duration) {
        self.correct(flow, charged, real);
        if let Some(queue) = self.queues.get_mut(flow.queue) {
            queue.shares.end(flow.handler);
        }
    }

    /// No task of the flow that [`next`](Self::next) named can start in this round.
    pub(super) fn pass_over(&mut self, flow: FlowKey, why: Blocked) {
        let Some(queue) = self.queues.get_mut(flow.queue) else { return };
        let place = queue.shares.place_of(flow.handler);
        self.round.passed = Some(place);
        match why {
            Blocked::NoWorker => {
                self.round.contender.get_or_insert(place.start);
            }
            Blocked::Itself => queue.shares.limited(flow.handler),
        }
    }

    /// Every task that waits, each list in ascending order.
    #[cfg(any(test, feature = "simulate"))]
    pub(super) fn listed(&self) -> std::collections::BTreeMap<(PoolKey, QueueKey), Vec<EntryKey>> {
        let mut listed = std::collections::BTreeMap::new();
        for (key, queue) in self.queues.iter().enumerate() {
            let mut filled: Vec<HandlerKey> = self.flows_of(key).map(|flow| flow.handler).collect();
            filled.sort_unstable();
            let lists = || queue.lists.iter().enumerate().filter(|(_, list)| !list.entries.is_empty());
            assert!(
                lists().map(|(handler, _)| handler).eq(filled),
                "the flows that are noted as waiting are"
            );
            for (_, list) in lists() {
                let mut entries: Vec<EntryKey> = list.entries.iter().copied().collect();
                entries.sort_unstable();
                assert!(listed.insert((list.pool, key), entries).is_none(), "one list a pool and queue");
            }
        }
        listed
    }

    /// The queue whose turn it is in this round.
    fn queue_in_turn(&self) -> QueueKey {
        (self.round.first + self.round.queues) % self.queues.len()
    }

    fn waiting_in(&self, flow: FlowKey) -> Option<&Waiting> {
        self.queues.get(flow.queue)?.lists.get(flow.handler)
    }

    /// The list of a flow to which a task is added now.
    fn list(&mut self, flow: FlowKey, pool: PoolKey) -> &mut VecDeque<EntryKey> {
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
            queue.lists.resize_with(flow.handler + 1, Waiting::default);
        }
        let list = &mut queue.lists[flow.handler];
        list.pool = pool;
        if list.entries.is_empty() {
            queue.shares.wait(flow.handler);
        }
        &mut list.entries
    }

    fn take_out<T>(&mut self, flow: FlowKey, take: impl FnOnce(&mut VecDeque<EntryKey>) -> T) -> Option<T> {
        let list = self.queues.get_mut(flow.queue)?.lists.get_mut(flow.handler)?;
        let taken = take(&mut list.entries);
        self.note_waiting(flow);
        Some(taken)
    }

    fn note_waiting(&mut self, flow: FlowKey) {
        let queue = &mut self.queues[flow.queue];
        if queue.lists[flow.handler].entries.is_empty() {
            queue.shares.stop_waiting(flow.handler);
        }
    }
}
