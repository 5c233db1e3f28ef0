//! The end: stop taking tasks, finish what runs, give back the rest.

use std::time::{Duration, Instant};

use crate::failpoint::failpoint;
use crate::model::{CancelCause, TaskError};
use crate::settlement::Settlement;

use super::flight::{Flight, FlightKey, State, Verdict};
use super::{Engine, Event};

/// After the drain's deadline and the handlers' grace, this long for copies and acks on their way. A broker that
/// is away then gets no longer wait: it redelivers.
const LAST_COPIES: Duration = Duration::from_secs(5);

/// How far the engine is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// Taking tasks.
    Running,
    /// Finishing.
    Draining(Drain),
}

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    /// Tasks that still run at this instant are asked to stop.
    deadline: Instant,
    /// From then on tasks that could not be settled for long are not waited for: the broker redelivers them.
    hopeless_from: Instant,
    /// They were asked.
    cancelled: bool,
    /// Every subscription has ended, nothing more arrives.
    consumers_stopped: bool,
    /// Hosts were told to quit; they are killed after this.
    hosts_until: Option<Instant>,
    /// The drain ends here whatever is left.
    give_up: Instant,
}

impl Engine {
    /// Starts a drain; a second call makes what runs stop now.
    pub(super) fn start_drain(&mut self) {
        let now = self.now;
        let grace = self.longest_grace();
        if let Phase::Draining(drain) = &mut self.phase {
            tracing::warn!("second request to stop: giving everything back now");
            drain.deadline = now;
            drain.give_up = now + grace + LAST_COPIES;
            return;
        }
        let deadline = now + self.config.daemon.drain_timeout;
        tracing::info!(running = self.running(), waiting = self.flights.len() - self.running(), "draining");
        self.phase = Phase::Draining(Drain {
            deadline,
            hopeless_from: now + LAST_COPIES,
            cancelled: false,
            consumers_stopped: false,
            hosts_until: None,
            give_up: deadline + grace + LAST_COPIES,
        });
        let stopped = self.link.stop_consuming();
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            stopped.await;
            let _ = sender.send(Event::ConsumersStopped);
        });
        let waiting: Vec<FlightKey> = self
            .flights
            .iter()
            .filter(|(_, flight)| matches!(flight.state, State::Waiting))
            .map(|(key, _)| key)
            .collect();
        for key in waiting {
            self.give_back(key);
        }
        for slot in self.lanes.hosts.values_mut() {
            for queued in slot.sent.iter_mut().skip(1) {
                queued.recalled = true;
                slot.host.recall(queued.seq);
            }
        }
        failpoint!("drain::started");
    }

    /// Hands a task back to the broker, un-counted.
    pub(super) fn give_back(&mut self, key: FlightKey) {
        let flight = &self.flights[key];
        if let Some(lane) = self.lanes.all.get_mut(&flight.lane) {
            lane.waiting_of(flight.queue).retain(|waiting| *waiting != key);
        }
        let flight = &self.flights[key];
        self.losses.unstarted(flight.queue, &flight.delivery);
        let error = TaskError::default();
        self.carry_out(key, Verdict { settlement: Settlement::Requeue, error, follow_ups: Vec::new() });
    }

    pub(super) fn on_consumers_stopped(&mut self) {
        if let Phase::Draining(drain) = &mut self.phase {
            drain.consumers_stopped = true;
        }
    }

    /// At the deadline, asks what still runs to stop.
    pub(super) fn expire_drain(&mut self) {
        let now = self.now;
        let Phase::Draining(drain) = &mut self.phase else { return };
        if drain.cancelled || now < drain.deadline {
            return;
        }
        drain.cancelled = true;
        for slot in self.lanes.hosts.values_mut() {
            if let Some(head) = slot.sent.front()
                && slot.cancelled_at.is_none()
            {
                slot.cancelled_at = Some(now);
                slot.host.cancel(head.seq);
                self.flights[head.flight].cancelled.get_or_insert(CancelCause::Drain);
            }
        }
    }

    /// Whether everything is settled and every host has ended, or there is no use in waiting longer.
    pub(super) fn drained(&mut self) -> bool {
        let Phase::Draining(drain) = &self.phase else { return false };
        let (grace, now) = (self.longest_grace(), self.now);
        // One that is done would run again: its follow-ups are worth the wait.
        let hopeless = |flight: &Flight| now >= drain.hopeless_from && !flight.done && self.is_stuck(flight);
        let settled = |state: &State| matches!(state, State::Finished(_) | State::Copied);
        let open = self.flights.iter().any(|(_, flight)| !settled(&flight.state) && !hopeless(flight));
        let Phase::Draining(drain) = &mut self.phase else { return false };
        if now >= drain.give_up {
            tracing::warn!(
                left = self.flights.len(),
                "the drain's time is up; the broker redelivers what is left"
            );
            return true;
        }
        if open || !drain.consumers_stopped {
            return false;
        }
        let Some(until) = drain.hosts_until else {
            drain.hosts_until = Some(now + grace);
            for slot in self.lanes.hosts.values_mut() {
                slot.leaving = true;
                slot.host.quit();
                slot.host.flush();
            }
            return self.lanes.hosts.is_empty();
        };
        self.lanes.hosts.is_empty() || now >= until
    }

    /// Tasks that hosts hold.
    pub(super) fn running(&self) -> usize {
        self.lanes.hosts.values().map(|slot| slot.sent.len()).sum()
    }

    fn longest_grace(&self) -> Duration {
        self.lanes.all.values().map(|lane| lane.generation.limits.grace).max().unwrap_or_default()
    }
}
