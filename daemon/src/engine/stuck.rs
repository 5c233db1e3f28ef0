//! Tasks that have ended and cannot be settled: their copies are not taken. A queue whose window is full of them takes no
//! more tasks, and is not ready.

use std::time::Duration;

use super::Engine;
use super::flight::{Claim, Flight, FlightKey};

/// A copy that is not confirmed within this time is told: the broker answers in milliseconds, and a new quorum queue is
/// waited for ([`crate::broker::SETTLE`]).
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How often settling tasks are looked through: each look is at all flights.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tasks of one queue that cannot be settled.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    /// How many.
    pub(super) tasks: usize,
    /// Why one of them cannot.
    pub(super) why: Option<String>,
}

impl Engine {
    /// Looks for tasks that cannot be settled.
    pub(super) fn look_for_stuck(&mut self) {
        if self.now < self.stuck_at + LOOK_EVERY {
            return;
        }
        self.stuck_at = self.now;
        let mut found: Vec<Stuck> = std::iter::repeat_with(Stuck::default).take(self.queues.len()).collect();
        for (_, flight) in &self.flights {
            if self.is_stuck(flight) {
                let queue = &mut found[flight.queue];
                queue.tasks += 1;
                if queue.why.is_none() {
                    queue.why.clone_from(&flight.refused);
                }
            }
        }
        for (queue, mut stuck) in found.into_iter().enumerate() {
            if stuck.tasks > 0 && stuck.why.is_none() {
                stuck.why = Some(self.why_stuck());
            }
            let was_stuck = self.queues[queue].is_stuck();
            self.queues[queue].stuck = stuck;
            self.tell_stuck(queue, was_stuck);
        }
    }

    /// A copy of it is on its way for longer than that takes, while it is this daemon's to settle.
    pub(super) fn is_stuck(&self, flight: &Flight) -> bool {
        let is_late = flight.publishing.is_some_and(|since| self.now >= since + STUCK_AFTER);
        is_late && matches!(flight.claim, Claim::Held(..))
    }

    /// Why a task cannot be settled, if it cannot.
    pub(super) fn why_unsettled(&self, key: FlightKey) -> Option<String> {
        let flight = &self.flights[key];
        let refused = || flight.refused.clone().unwrap_or_else(|| self.why_stuck());
        (flight.refused.is_some() || self.is_stuck(flight)).then(refused)
    }

    fn why_stuck(&self) -> String {
        if self.broker.state == "blocked" {
            return "the broker blocks publishing: it is short of memory or disk".to_owned();
        }
        match (&self.not_taken, &self.broker.last_error) {
            (Some((_, why)), _) => why.clone(),
            (None, Some(why)) if self.broker.state != "connected" => why.clone(),
            _ => "the broker has not confirmed a copy".to_owned(),
        }
    }

    fn tell_stuck(&mut self, queue: usize, was_stuck: bool) {
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
