//! Deliveries come in: adopted, routed into a lane, or settled at once because nothing can run them.
//!
//! What a redelivery means is decided here, when it arrives: [`Losses`](super::losses::Losses) has the rules.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;

use crate::broker::hops::{self, Arrival, Wait};
use crate::broker::{ConsumerId, Delivery, LinkEvent};
use crate::model::{DeadReason, TaskError, UnixMs};
use crate::registry::{Absent, Slot};
use crate::settlement::Settlement;
use crate::task::own::{self, HEADER_ERROR, HEADER_ERROR_CODE, Times};
use crate::task::{self, Refusal};

use super::Engine;
use super::drain::Phase;
use super::flight::{Claim, Flight, FlightKey, Orphan, State, Verdict};
use super::lane::LaneKey;
use super::losses::{REDELIVERED_WITHIN, Redelivery};
use super::queues::QueueKey;
use super::status::NOT_PUBLISHING;

impl Engine {
    pub(super) fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Delivery(delivery) => self.on_delivery(delivery),
            LinkEvent::Connected { address, server } => {
                tracing::info!(%address, %server, "connected to the broker");
                self.broker.address = address;
                self.broker.server = server;
                self.broker.connects += 1;
                "connected".clone_into(&mut self.broker.state);
            }
            LinkEvent::Consuming { consumer, queue, window } => {
                tracing::info!(%queue, "consuming");
                if let Some(key) = self.queues.consuming(consumer, &queue, self.now) {
                    self.losses.consuming(consumer, key, window);
                }
            }
            LinkEvent::Stopped { consumer } => {
                let queue = self.queues.fed_by(consumer);
                self.queues.lost(consumer, self.now);
                self.on_stopped(queue);
            }
            LinkEvent::Seen { consumer, before } => self.losses.seen(consumer, before),
            LinkEvent::Released { consumer } => self.losses.released(consumer),
            LinkEvent::Withheld { consumer } => self.losses.withheld(consumer),
            LinkEvent::Unusable { queue, why } => {
                tracing::error!(%queue, error = %why, "the queue cannot be consumed; trying again");
                self.remember(None, None, &why);
                self.broker.last_error = Some(why);
            }
            LinkEvent::Quarantined { queue, why, wait } => self.on_quarantined(&queue, &why, wait),
            LinkEvent::Lost { consumer, why } => self.on_lost(consumer, &why),
            LinkEvent::Away { why } => {
                tracing::warn!(error = %why, "the broker is away; trying again");
                "connecting".clone_into(&mut self.broker.state);
                self.remember(None, None, &why);
                self.broker.last_error = Some(why);
            }
            LinkEvent::NotPublishing { why } => {
                tracing::warn!(error = %why, "nothing can be published; trying again");
                NOT_PUBLISHING.clone_into(&mut self.broker.state);
                self.remember(None, None, &why);
                self.broker.last_error = Some(why);
            }
            LinkEvent::Blocked(blocked) => {
                tracing::warn!(blocked, "the broker blocks publishing while it is short of memory or disk");
                let state = if blocked { "blocked" } else { "connected" };
                state.clone_into(&mut self.broker.state);
            }
            LinkEvent::NotTaken { queue, why } => {
                tracing::error!(%queue, error = %why, "a copy was not taken; its task stays unacknowledged, trying again");
                self.remember(None, None, &why);
                self.not_taken = Some((self.now, why));
            }
            LinkEvent::Vanished { queue } => {
                let why = format!(
                    "queue `{queue}` was deleted, with all that was in it, and is declared anew: does a policy with \
                     `expires` match it (rabbitmqctl list_policies)?"
                );
                tracing::error!(%queue, error = %why, "a queue of ours is gone");
                self.remember(None, None, &why);
            }
        }
    }

    fn on_delivery(&mut self, delivery: Delivery) {
        let Some(queue) = self.queues.fed_by(delivery.consumer) else {
            return; // its subscription ended in this very turn: the broker redelivers it
        };
        self.queues[queue].counts.delivered += 1;
        if !matches!(self.phase, Phase::Running) {
            self.queues[queue].counts.requeued += 1;
            self.link.requeue(delivery.consumer, delivery.tag);
            return;
        }
        let mut suspect = false;
        if delivery.redelivered {
            if self.adopt(queue, &delivery) {
                return;
            }
            match self.losses.explain(queue, &delivery) {
                Redelivery::Ended => return self.settle_again(&delivery),
                Redelivery::Explained => {}
                Redelivery::Unexplained => suspect = true,
            }
        }
        let now = UnixMs::now();
        let times = match delivery.altered() {
            // Before anything is copied: a copy would be whole again.
            Some(altered) if altered.lossy => Err(Refusal::unreadable(&altered.description)),
            _ => own::times(&delivery.properties, now).map_err(|unusable| Refusal::unusable(&unusable)),
        };
        match times {
            Err(Refusal { reason, message }) => {
                let flight = self.flight(queue, delivery);
                self.bury_unrun(flight, reason, message);
            }
            Ok(Times { deadline: Some(deadline), .. }) if deadline <= now => {
                self.bury_expired(queue, delivery, now.since(deadline).unwrap_or_default());
            }
            Ok(Times { due, .. }) => {
                let Arrival { wait, odd } = hops::arrival(due, &delivery.properties, now);
                if let Some(odd) = odd {
                    self.note_odd(queue, &odd);
                }
                let flight = Flight { suspect, ..self.flight(queue, delivery) };
                match wait {
                    Some(wait) => self.send_on(flight, wait),
                    None => self.route(flight),
                }
            }
        }
    }

    /// A task that was not started in time. The broker would have discarded it, had the deadline been its own
    /// `expiration` still; but this one was taken from it, and whoever waits for its end is told.
    fn bury_expired(&mut self, queue: QueueKey, delivery: Delivery, ago: Duration) {
        let failed = last_failure(&delivery.properties);
        let mut flight = self.flight(queue, delivery);
        // The attempt that it would have been was not made.
        flight.attempt = flight.attempt.saturating_sub(1).max(1);
        self.queues[queue].counts.expired += 1;
        self.bury_unrun(flight, DeadReason::Expired, format!("its time was up {ago:.0?} ago{failed}"));
    }

    /// A delayed task between two waits goes into the next one. Nothing is counted: it has not been tried.
    fn send_on(&mut self, mut flight: Flight, wait: Wait) {
        flight.state = State::Settling;
        let key = self.flights.insert(flight);
        self.publish_on(key, wait);
    }

    fn flight(&self, queue: QueueKey, delivery: Delivery) -> Flight {
        let identity = task::identify(&delivery.properties);
        let print = self.fingerprint(queue, &identity.id, &delivery);
        Flight {
            claim: Claim::Held(delivery.consumer, delivery.tag),
            arrived: self.now,
            queue,
            id: identity.id,
            attempt: identity.attempt,
            redeliveries: identity.redeliveries,
            suspect: false,
            prefix: self.no_prefix.clone(),
            argument: 0..0,
            lane: 0,
            state: State::Waiting,
            untold: 0,
            cancelled: None,
            progress: None,
            result: None,
            print,
            held_back: false,
            publishing: None,
            refused: None,
            done: false,
            delivery: Rc::new(delivery),
        }
    }

    /// Finds the lane of a delivery.
    fn route(&mut self, flight: Flight) {
        let Some(mut flight) = self.unless_duplicate(flight) else { return };
        let (name, limit) = (&self.queues[flight.queue].config.name, self.config.daemon.max_task_bytes);
        let delivery = flight.delivery.clone();
        match task::route(&self.registry.router, name, &delivery.properties, &delivery.body, limit) {
            Err(refusal) => match self.claimant(&flight, refusal.reason) {
                Some(absent) => self.park_homeless(flight, &absent),
                None => self.bury_unrun(flight, refusal.reason, refusal.message),
            },
            Ok(found) => {
                flight.prefix = found.prefix.clone();
                flight.argument = range_of(found.argument, &delivery.body);
                let slot = self.registry.slots[found.handler].clone();
                drop(delivery);
                match slot {
                    Slot::Active(generation) => {
                        flight.lane = generation.number;
                        self.enqueue(flight);
                    }
                    Slot::Absent(absent) => self.park_homeless(flight, &absent),
                }
            }
        }
    }

    /// The handler that does not run and may want a task that no route takes. Text or not: its `type` may be the prefix.
    fn claimant(&self, flight: &Flight, reason: DeadReason) -> Option<Arc<Absent>> {
        let Delivery { properties, body, .. } = &*flight.delivery;
        let message_type = properties.kind().as_ref().map(lapin::types::ShortString::as_str);
        let unrouted = match reason {
            DeadReason::Unroutable => true,
            DeadReason::Malformed => message_type.is_some(),
            _ => false,
        };
        let queue = &self.queues[flight.queue].config.name;
        unrouted.then(|| self.registry.claimant(queue, message_type, body, self.now).cloned())?
    }

    fn enqueue(&mut self, flight: Flight) {
        if let Some(hold) = self.hold_of(flight.lane) {
            return self.park(flight, &hold.why, hold.left);
        }
        let (lane, queue) = (flight.lane, flight.queue);
        let key = self.flights.insert(flight);
        let delivery = &self.flights[key].delivery;
        self.log.received(self.task_ref(key), delivery.body.len(), delivery.redelivered);
        self.wait_in(lane, queue, key, false);
    }

    /// Puts a flight into its lane's waiting list.
    pub(super) fn wait_in(&mut self, lane: LaneKey, queue: QueueKey, key: FlightKey, in_front: bool) {
        let Some(lane) = self.lanes.all.get_mut(&lane) else {
            unreachable!("a flight waits only in a lane that exists");
        };
        let waiting = lane.waiting_of(queue);
        if in_front {
            waiting.push_front(key);
        } else {
            waiting.push_back(key);
        }
    }

    /// Routes a waiting flight anew, after its lane was retired.
    pub(super) fn reroute(&mut self, key: FlightKey) {
        let flight = self.flights.remove(key);
        self.route(flight);
    }

    /// Dead-letters a task that no handler can run, or shall.
    pub(super) fn bury_unrun(&mut self, flight: Flight, reason: DeadReason, message: String) {
        self.remember(None, Some(&flight.id.text), &message);
        let error = TaskError { code: reason.as_str().to_owned(), message, retry_after: None };
        let key = self.flights.insert(flight);
        self.log.refused(self.task_ref(key), reason);
        self.carry_out(
            key,
            Verdict { settlement: Settlement::Dead { reason }, error, follow_ups: Vec::new() },
        );
    }

    /// Parks a task whose handler is known and was never started.
    fn park_homeless(&mut self, flight: Flight, absent: &Absent) {
        self.park(flight, &format!("handler {} is not running: {}", absent.handler, absent.why), None);
    }

    fn on_quarantined(&mut self, queue: &str, cause: &str, wait: Duration) {
        let why = format!(
            "queue `{queue}`: what it delivers ends the connection ({cause}); it is left alone for {wait:?} so that \
             other queues go on, then tried again, or at once by `warrenctl reload`. Look at its first messages on the \
             broker's management page or with `rabbitmqadmin get queue={queue} count=5`, and remove the bad one there"
        );
        tracing::error!(QUEUE = queue, error = %why, "queue quarantined");
        self.remember(None, None, &why);
        self.queues.quarantined(queue, &why);
    }

    fn on_lost(&mut self, consumer: ConsumerId, why: &str) {
        tracing::warn!(error = why, "subscription lost; the broker redelivers what was not settled");
        self.broker.last_error = Some(why.to_owned());
        self.queues.lost(consumer, self.now);
        let (mut in_hand, mut dropped) = (0, Vec::new());
        for (key, flight) in &mut self.flights {
            if !matches!(flight.claim, Claim::Held(held, _) if held == consumer) {
                continue;
            }
            in_hand += 1;
            if matches!(flight.state, State::Waiting) {
                dropped.push(key);
            } else {
                flight.claim = Claim::Orphan(self.queues[flight.queue].consumed_for(self.now));
                self.orphans.push(Orphan { flight: key, digest: self.losses.digest(&flight.delivery) });
            }
        }
        for key in dropped {
            let flight = self.forget_waiting(key);
            self.losses.unstarted(flight.queue, &flight.delivery);
        }
        self.losses.lost(consumer, in_hand, |queue| self.queues[queue].consumed_for(self.now));
    }

    /// Takes a waiting flight out of its lane and the table.
    pub(super) fn forget_waiting(&mut self, key: FlightKey) -> Flight {
        let flight = self.flights.remove(key);
        if let Some(lane) = self.lanes.all.get_mut(&flight.lane) {
            lane.waiting_of(flight.queue).retain(|waiting| *waiting != key);
        }
        flight
    }

    /// A redelivery of a task that still runs here, or has finished: it is not run again, its new tag gets that
    /// outcome.
    fn adopt(&mut self, queue: QueueKey, delivery: &Delivery) -> bool {
        if self.orphans.is_empty() {
            return false;
        }
        let digest = self.losses.digest(delivery);
        let found = self.orphans.iter().position(|orphan| {
            let flight = &self.flights[orphan.flight];
            orphan.digest == digest && flight.queue == queue && flight.is_same_message(delivery)
        });
        let Some(at) = found else { return false };
        let key = self.orphans.swap_remove(at).flight;
        let flight = &mut self.flights[key];
        flight.claim = Claim::Held(delivery.consumer, delivery.tag);
        tracing::info!(task_id = %flight.id.text, "redelivery adopted: the task runs or has finished here");
        match std::mem::replace(&mut flight.state, State::Settling) {
            State::Finished(verdict) => self.carry_out(key, *verdict),
            State::Copied => self.acknowledge(key),
            goes_on => flight.state = goes_on,
        }
        true
    }

    /// A redelivery of a task that ended here: everything that belongs to it was done, only its acknowledgement was lost.
    fn settle_again(&mut self, delivery: &Delivery) {
        tracing::info!(
            task_id = %task::identify(&delivery.properties).id.text,
            "redelivery acknowledged: the task ended here, its acknowledgement was lost with the link"
        );
        self.link.ack(delivery.consumer, delivery.tag);
        self.losses.ended(delivery.consumer, delivery, self.now);
    }

    /// Acknowledges a flight that is done with, and remembers it for as long as the broker may not have seen that.
    pub(super) fn acknowledge(&mut self, key: FlightKey) {
        let flight = self.flights.remove(key);
        let Claim::Held(consumer, tag) = flight.claim else {
            unreachable!("only what is held can be acknowledged");
        };
        self.link.ack(consumer, tag);
        self.losses.ended(consumer, &flight.delivery, self.now);
    }

    /// Drops finished orphans that nobody adopted, and what is known of those that ended before.
    pub(super) fn expire_orphans(&mut self) {
        let (now, queues, flights) = (self.now, &self.queues, &mut self.flights);
        self.losses.expire(|queue| queues[queue].consumed_for(now));
        self.orphans.retain(|orphan| {
            let flight = &flights[orphan.flight];
            let Claim::Orphan(since) = flight.claim else { return false };
            let queue = &queues[flight.queue];
            let ended = matches!(flight.state, State::Finished(_) | State::Copied);
            let taken = queue.consumed_for(now) >= since + REDELIVERED_WITHIN;
            let expired = ended && (taken || !queue.configured);
            if expired {
                flights.remove(orphan.flight);
            }
            !expired
        });
    }
}

/// What failed before, for a message to people.
fn last_failure(properties: &BasicProperties) -> String {
    let [code, error] = [HEADER_ERROR_CODE, HEADER_ERROR].map(|name| own::note(properties, name));
    let failure: Vec<String> = [code, error].into_iter().flatten().collect();
    if failure.is_empty() { String::new() } else { format!("; it failed last with {}", failure.join(": ")) }
}

/// Where `part`, a piece of `whole`, stands in it.
fn range_of(part: &str, whole: &[u8]) -> Range<usize> {
    if part.is_empty() {
        return 0..0;
    }
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}
