//! A round: each flow that has tasks waiting is asked for in turn.

use std::time::Duration;

use super::shares::{FlowPosition, Virtual};
use super::{Blocked, FlowKey, QueueFlows, Scheduler};
use crate::engine::core::keys::QueueKey;

/// How far a flow may get ahead of one that waits for a worker, by tasks that are queued in hosts that it keeps busy: a
/// host that is changed after every short task costs more than it runs.
const AHEAD: Duration = Duration::from_millis(1);

/// How far a round is.
#[derive(Debug, Default, Clone)]
pub(super) struct Round {
    /// The queue that it began with.
    first: QueueKey,
    /// Queues that are done with.
    queues: usize,
    /// The last flow of this queue that was passed over.
    passed: Option<FlowPosition>,
    /// The virtual start of the first flow for which this queue had no worker.
    contender: Option<Virtual>,
    /// A flow gave way to another queue of its handler. It is asked for in a second pass over all queues.
    has_given_way: bool,
    is_second_pass: bool,
}

impl Scheduler {
    /// A new round: every flow may be asked for again.
    pub(in crate::engine::core) fn begin_round(&mut self) {
        self.round = Round { first: self.last + 1, ..Round::default() };
        self.wants_another_round = false;
    }

    /// Whether a flow that this round is done with may have a place now.
    pub(in crate::engine::core) fn wants_another_round(&self) -> bool {
        self.wants_another_round
    }

    /// The flow whose first task is to run next; `None`: the round is over. Once a queue has no worker left, only flows
    /// that keep workers of it busy are asked for: their tasks may be queued there.
    pub(in crate::engine::core) fn next(&mut self) -> Option<FlowKey> {
        while self.round.queues < self.queues.len() {
            let queue = self.queue_in_turn();
            let shares = &self.queues[queue].shares;
            let next = match self.round.contender {
                None => shares.next_waiting(self.round.passed),
                Some(_) => shares.next_running(self.round.passed),
            };
            if let Some(position) = next {
                let flow = FlowKey { handler: position.flow, queue };
                if self.round.is_second_pass || !self.gives_way(flow) {
                    return Some(flow);
                }
                self.round.passed = Some(position);
                self.round.has_given_way = true;
                continue;
            }
            let Round { first, queues, has_given_way, is_second_pass, .. } = self.round;
            self.round =
                Round { queues: queues + 1, has_given_way, is_second_pass, first, ..Round::default() };
            if self.round.queues == self.queues.len() && has_given_way {
                self.round = Round { first, is_second_pass: true, ..Round::default() };
            }
        }
        None
    }

    /// Whether a handler at its own limit has tasks in another queue that was served before this one.
    fn gives_way(&self, flow: FlowKey) -> bool {
        let started = |queue: &QueueFlows| {
            let is_limited = queue.shares.is_limited(flow.handler);
            is_limited.then(|| queue.lists.get(flow.handler).map_or(0, |list| list.started))
        };
        let Some(this) = self.queues.get(flow.queue).and_then(started) else { return false };
        self.queues.iter().filter_map(started).any(|other| other < this)
    }

    /// Whether the flow that [`next`](Self::next) named may queue its tasks in workers that it keeps busy: not when it
    /// gets too far ahead of a flow that waits for a worker.
    pub(in crate::engine::core) fn may_queue(&self, flow: FlowKey) -> bool {
        let Some(contender) = self.round.contender else { return true };
        let Some(QueueFlows { shares, .. }) = self.queues.get(flow.queue) else { return true };
        let ahead = contender.saturating_add(shares.price(flow.handler, AHEAD));
        shares.position_of(flow.handler).start <= ahead
    }

    /// Whether a flow of this queue waits for a worker, and comes before the flow that [`next`](Self::next) named.
    pub(in crate::engine::core) fn has_contender(&self) -> bool {
        self.round.contender.is_some()
    }

    /// No task of the flow that [`next`](Self::next) named can start in this round.
    pub(in crate::engine::core) fn pass_over(&mut self, flow: FlowKey, why: Blocked) {
        let Some(queue) = self.queues.get_mut(flow.queue) else { return };
        let position = queue.shares.position_of(flow.handler);
        self.round.passed = Some(position);
        match why {
            Blocked::NoWorker => {
                queue.shares.contend(flow.handler);
                let contends_at = queue.shares.position_of(flow.handler);
                self.wants_another_round |= contends_at != position;
                self.round.contender.get_or_insert(contends_at.start);
            }
            Blocked::Itself => queue.shares.limited(flow.handler),
        }
    }

    /// The queue whose turn it is in this round.
    fn queue_in_turn(&self) -> QueueKey {
        (self.round.first + self.round.queues) % self.queues.len()
    }
}
