//! Tasks that have ended and cannot be settled: the broker rejects their copies. A queue whose window is full of them takes
//! no more tasks, and is not ready.

use std::time::{Duration, Instant};

use crate::model::status::BrokerState;

use super::entry::{Entry, Ownership, Publishing, Purpose};
use super::keys::QueueKey;
use super::queues::Stuck;
use super::{Core, Turn};

/// A copy that is not confirmed within this time is reported: the broker answers in milliseconds, and a new quorum queue is
/// waited for ([`crate::broker::SETTLE`]).
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How often settling tasks are looked through: each look is at all that is in hand.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Publishing {
    /// Its task is done; only its follow-ups and its reply are not confirmed yet.
    pub(super) fn is_of_done_task(&self) -> bool {
        matches!(self.purpose, Purpose::FollowUps(_))
    }
}

impl Entry {
    /// Its copy is unconfirmed for longer than [`STUCK_AFTER`], and this daemon holds the delivery's tag.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        let is_late = self.publishing().is_some_and(|publishing| now >= publishing.since + STUCK_AFTER);
        is_late && matches!(self.ownership, Ownership::Held(..))
    }

    /// Why the broker refused its copy last.
    fn refused(&self) -> Option<&String> {
        self.publishing()?.refused.as_ref()
    }
}

impl Core {
    /// Looks for tasks that cannot be settled.
    pub(super) fn look_for_stuck(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        if now < self.last.look_for_stuck + LOOK_EVERY {
            return;
        }
        self.last.look_for_stuck = now;
        let mut found: Vec<Stuck> = std::iter::repeat_with(Stuck::default).take(self.queues.len()).collect();
        for (_, entry) in self.in_flight.iter().filter(|(_, entry)| entry.is_stuck(now)) {
            let queue = &mut found[entry.queue];
            queue.tasks += 1;
            if queue.why.is_none() {
                queue.why = entry.refused().cloned();
            }
        }
        for (queue, mut stuck) in found.into_iter().enumerate() {
            if stuck.tasks > 0 && stuck.why.is_none() {
                stuck.why = Some(self.why_stuck());
            }
            let was_stuck = self.queues[queue].is_stuck();
            self.queues[queue].stuck = stuck;
            self.report_stuck(queue, was_stuck);
        }
    }

    /// Why a task cannot be settled, if it cannot.
    pub(super) fn why_unsettled(&self, entry: &Entry, turn: &Turn<'_>) -> Option<String> {
        let is_stuck = entry.is_stuck(turn.now.instant);
        entry.refused().cloned().or_else(|| is_stuck.then(|| self.why_stuck()))
    }

    fn why_stuck(&self) -> String {
        if self.broker.state == BrokerState::Blocked {
            return "the broker blocks publishing: it is short of memory or disk".to_owned();
        }
        match (&self.not_taken, &self.broker.last_error) {
            (Some(why), _) => why.clone(),
            (None, Some(why)) if self.broker.state != BrokerState::Connected => why.clone(),
            _ => "the broker has not confirmed a copy".to_owned(),
        }
    }

    fn report_stuck(&self, queue: QueueKey, was_stuck: bool) {
        let state = &self.queues[queue];
        match (was_stuck, state.is_stuck()) {
            (false, true) => {
                let (name, why) = (&state.config.name, state.stuck.why.as_deref().unwrap_or_default());
                tracing::error!(queue = %name, tasks = state.stuck.tasks, why, "the queue is stuck: none of the tasks that it may hold can be settled");
            }
            (true, false) => tracing::info!(queue = %state.config.name, "the queue is not stuck any more"),
            _ => {}
        }
    }
}
