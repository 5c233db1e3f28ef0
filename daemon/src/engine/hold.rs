//! Handlers and queues that are given no tasks for a while. AMQP cannot hold back one handler's tasks in a shared
//! queue, so they are parked: a confirmed copy to a delay queue, the attempt unchanged, then the acknowledgement.

use std::time::Duration;

use crate::model::TaskError;
use crate::model::status::HoldReply;
use crate::settlement::Settlement;

use super::Engine;
use super::flight::{Flight, FlightKey, State, Verdict};
use super::lane::{Lane, LaneKey};
use super::queues::QueueKey;
use super::standing::Hold;

/// The longest a parked task stays away: what an operator who resumes a handler has to wait at most, and how often a
/// task costs a copy while nobody does.
const PARK: Duration = Duration::from_secs(30);

/// How long a task stays away that would crowd the window of a handler at its limit.
const CROWD: Duration = Duration::from_secs(5);

/// How often deliveries are looked through for those that have waited too long: each look is at all of them.
const AGED_EVERY: Duration = Duration::from_secs(1);

impl Engine {
    /// What keeps a lane's handler from being given tasks.
    pub(super) fn hold_of(&self, lane: LaneKey) -> Option<Hold> {
        self.lanes.all.get(&lane)?.totals.borrow().standing.hold(self.now)
    }

    /// Parks a task whose handler is known and given no tasks now.
    pub(super) fn park(&mut self, flight: Flight, why: &str, left: Option<Duration>) {
        let delay = left.map_or(PARK, |left| left.min(PARK));
        let key = self.flights.insert(flight);
        self.log.parked(self.task_ref(key), delay, why);
        let verdict = Verdict {
            settlement: Settlement::Park { delay },
            error: TaskError::default(),
            follow_ups: Vec::new(),
        };
        self.carry_out(key, verdict);
    }

    /// Where half the window of a queue waits for handlers at their own limit, parks the newest of those tasks: the
    /// other half is for tasks that can run.
    pub(super) fn thin_out(&mut self) {
        for queue in 0..self.queues.len() {
            let config = &self.queues[queue].config;
            let (window, workers) = (usize::from(config.window()), usize::from(config.workers));
            let stuck = |lane: &Lane| lane.is_at_own_limit(workers) && lane.waiting_for(queue) > 0;
            let lanes: Vec<LaneKey> =
                self.lanes.all.iter().filter(|(_, lane)| stuck(lane)).map(|(key, _)| *key).collect();
            let waiting: usize = lanes.iter().map(|key| self.lanes.all[key].waiting_for(queue)).sum();
            let mut excess = waiting.saturating_sub((window / 2).max(1));
            for key in lanes {
                while excess > 0
                    && let Some(lane) = self.lanes.all.get_mut(&key)
                    && lane.may_park(window, self.now)
                    && let Some(newest) = lane.waiting_of(queue).pop_back()
                {
                    let flight = self.flights.remove(newest);
                    self.park(flight, "its handler is at its limit, others need the window", Some(CROWD));
                    excess -= 1;
                }
            }
        }
    }

    /// A handler is held from now on: what waits for it is parked.
    pub(super) fn put_aside(&mut self, lane: LaneKey) {
        let Some(hold) = self.hold_of(lane) else { return };
        let handler = self.lanes.all[&lane].generation.handler.clone();
        let left = hold.left.map(|left| format!("{left:.0?}"));
        tracing::warn!(%handler, state = hold.state, why = %hold.why, left, "handler held; its tasks are parked");
        self.remember(Some(&handler), None, &format!("{}: {}", hold.state, hold.why));
        let waiting: Vec<FlightKey> = self
            .lanes
            .all
            .values_mut()
            .filter(|lane| lane.generation.handler == handler)
            .flat_map(|lane| lane.waiting.iter_mut().flat_map(std::mem::take))
            .collect();
        for key in waiting {
            let flight = self.flights.remove(key);
            self.park(flight, &hold.why, hold.left);
        }
    }

    /// An operator pauses a handler or lets it go on.
    pub(super) fn hold_handler(&mut self, name: &str, paused: bool) -> Result<HoldReply, String> {
        let lanes =
            self.lanes.all.iter().filter(|(_, lane)| &*lane.generation.handler == name && !lane.retired);
        let Some((key, lane)) = lanes.map(|(key, lane)| (*key, lane)).next() else {
            let names: Vec<&str> = self.registry.slots.iter().map(|slot| &**slot.handler()).collect();
            return Err(format!("no handler `{name}` runs here; there are: {}", names.join(", ")));
        };
        if paused {
            lane.totals.borrow_mut().standing.pause();
            self.put_aside(key);
        } else {
            tracing::info!(handler = name, "handler resumed by an operator");
            lane.totals.borrow_mut().standing.resume();
            if let Some(lane) = self.lanes.all.get_mut(&key) {
                lane.started();
                lane.proved();
            }
        }
        let state = self.hold_of(key).map_or("active", |hold| hold.state);
        Ok(HoldReply { name: name.to_owned(), state: state.to_owned() })
    }

    /// An operator pauses a queue (its consumer is cancelled, what waits goes back, what runs finishes) or lets it go
    /// on.
    pub(super) fn hold_queue(&mut self, name: &str, paused: bool) -> Result<HoldReply, String> {
        let Some(key) = self.queues.named(name) else {
            let names: Vec<&str> = self.config.queues.iter().map(|queue| &*queue.name).collect();
            return Err(format!("no queue `{name}` is consumed here; there are: {}", names.join(", ")));
        };
        if self.queues[key].paused != paused {
            tracing::info!(queue = name, paused, "queue paused or resumed by an operator");
            self.queues[key].paused = paused;
            self.link.reconfigure(&self.config.broker, &self.queues.wanted());
        }
        let state = if paused { "paused" } else { "resuming" };
        Ok(HoldReply { name: name.to_owned(), state: state.to_owned() })
    }

    /// No delivery follows on a queue's subscription. If that is for a pause, what waits goes back: given back any
    /// earlier, it would have been delivered here again.
    pub(super) fn on_stopped(&mut self, queue: Option<QueueKey>) {
        let Some(queue) = queue.filter(|queue| self.queues[*queue].paused) else { return };
        let waiting = |flight: &Flight| flight.queue == queue && matches!(flight.state, State::Waiting);
        let waiting: Vec<FlightKey> =
            self.flights.iter().filter(|(_, flight)| waiting(flight)).map(|(key, _)| key).collect();
        for key in waiting {
            self.give_back(key);
        }
    }

    /// Gives back what has waited here for half of the broker's `consumer_timeout`: the broker counts from delivery,
    /// and would take the whole channel away. It comes back at once, with a new count.
    pub(super) fn give_back_old(&mut self) {
        let (now, limit) = (self.now, self.config.broker.consumer_timeout / 2);
        if limit.is_zero() || now < self.aged_at + AGED_EVERY {
            return;
        }
        self.aged_at = now;
        let is_old =
            |flight: &Flight| matches!(flight.state, State::Waiting) && now >= flight.arrived + limit;
        let old: Vec<FlightKey> =
            self.flights.iter().filter(|(_, flight)| is_old(flight)).map(|(key, _)| key).collect();
        if !old.is_empty() {
            tracing::info!(tasks = old.len(), "given back: they waited for half of broker.consumer_timeout");
        }
        for key in old {
            self.give_back(key);
        }
    }
}
