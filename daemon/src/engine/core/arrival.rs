//! Deliveries come in: reattached, routed to a handler pool, or settled at once because nothing can run them.
//!
//! What a redelivery means is decided here, when it arrives: [`Losses`](super::losses::Losses) has the rules.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;

use crate::broker::Delivery;
use crate::broker::hops::{self, Arrival, Wait};
use crate::model::{DeadReason, TaskError};
use crate::registry::{Absent, Slot};
use crate::settlement::Settlement;
use crate::task::own::{self, HEADER_ERROR, HEADER_ERROR_CODE, Times};
use crate::task::{self, Refusal};

use super::entry::{Decision, Entry, EntryStage, Ownership, Purpose, Route};
use super::keys::{EntryKey, QueueKey};
use super::losses::{REDELIVERED_WITHIN, Redelivery};
use super::{Action, CopyKind, Core, Turn, task_keys};

impl Core {
    pub(super) fn on_delivery(&mut self, delivery: Delivery, turn: &mut Turn<'_>) {
        let Some(queue) = self.queues.fed_by(delivery.consumer) else {
            return; // its subscription ended in this very turn: the broker redelivers it
        };
        self.queues[queue].counts.delivered += 1;
        if !self.is_running() {
            self.queues[queue].counts.requeued += 1;
            turn.act(Action::Requeue { consumer: delivery.consumer, tag: delivery.tag });
            return;
        }
        let mut suspect = false;
        if delivery.redelivered {
            if self.reattach(queue, &delivery, turn) {
                return;
            }
            match self.losses.explain(queue, &delivery) {
                Redelivery::Ended => return self.settle_again(&delivery, turn),
                Redelivery::Explained => {}
                Redelivery::Unexplained => suspect = true,
            }
        }
        let now = turn.now.unix;
        let times = match delivery.altered() {
            // Before anything is copied: a copy would be whole again.
            Some(altered) if altered.lossy => Err(Refusal::unreadable(&altered.description)),
            _ => own::times(&delivery.properties, now).map_err(|unusable| Refusal::unusable(&unusable)),
        };
        match times {
            Err(Refusal { reason, message }) => {
                let key = self.take_in(queue, delivery, false, turn);
                self.dead_letter_unstarted(key, reason, message, turn);
            }
            Ok(Times { deadline: Some(deadline), .. }) if deadline <= now => {
                let late = now.since(deadline).unwrap_or_default();
                self.dead_letter_expired(queue, delivery, late, turn);
            }
            Ok(Times { due, .. }) => {
                let Arrival { wait, odd } = hops::arrival(due, &delivery.properties, now);
                if let Some(odd) = odd {
                    self.note_odd(queue, &odd, turn);
                }
                let key = self.take_in(queue, delivery, suspect, turn);
                match wait {
                    Some(wait) => self.publish_onward(key, wait, turn),
                    None => self.route_unless_duplicate(key, turn),
                }
            }
        }
    }

    fn take_in(&mut self, queue: QueueKey, delivery: Delivery, suspect: bool, turn: &Turn<'_>) -> EntryKey {
        let identity = task::identify(&delivery.properties, turn.now.unix, &mut self.random);
        let fingerprint = self.fingerprint(queue, &identity.id, &delivery);
        self.deliveries += 1;
        self.in_flight.insert(Entry {
            ownership: Ownership::Held(delivery.consumer, delivery.tag),
            arrived: turn.now.instant,
            order: self.deliveries,
            queue,
            id: identity.id,
            attempt: identity.attempt,
            redeliveries: identity.redeliveries,
            suspect,
            fingerprint,
            route: None,
            unreported_ends: 0,
            stage: EntryStage::Arrived,
            delivery: Rc::new(delivery),
        })
    }

    /// A task that was not started in time. The broker would have discarded it, had the deadline been its own
    /// `expiration` still; but this one was taken from it, and whoever waits for its end is told.
    fn dead_letter_expired(
        &mut self,
        queue: QueueKey,
        delivery: Delivery,
        late: Duration,
        turn: &mut Turn<'_>,
    ) {
        let failed = last_failure(&delivery.properties);
        let key = self.take_in(queue, delivery, false, turn);
        // The attempt that it would have been was not made.
        let attempt = &mut self.in_flight[key].attempt;
        *attempt = attempt.saturating_sub(1).max(1);
        let message = format!("its time was up {late:.0?} ago{failed}");
        self.dead_letter_unstarted(key, DeadReason::Expired, message, turn);
    }

    /// A delayed task between two waits goes into the next one. Nothing is counted: it has not been tried.
    fn publish_onward(&mut self, key: EntryKey, wait: Wait, turn: &mut Turn<'_>) {
        self.publish(key, Purpose::Onward, CopyKind::Onward(wait), turn);
    }

    /// Finds the handler pool of a delivery.
    pub(super) fn route(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        let entry = &self.in_flight[key];
        let (queue, delivery) = (entry.queue, &*entry.delivery);
        let (name, limit) = (&self.queues[queue].config.name, self.config.daemon.max_task_bytes);
        let Delivery { properties, body, .. } = delivery;
        match task::route(&self.registry.router, name, properties, body, limit) {
            Err(refusal) => match self.claimant(entry, refusal.reason, turn) {
                Some(absent) => self.park_for_absent(key, &absent, turn),
                None => self.dead_letter_unstarted(key, refusal.reason, refusal.message, turn),
            },
            Ok(found) => match &self.registry.slots[found.handler] {
                Slot::Active(generation) => {
                    let argument = range_of(found.argument, body);
                    let route = Route {
                        pool: generation.number,
                        prefix: found.prefix.clone(),
                        keys: task_keys::of(&generation.limits, properties, &body[argument.clone()]),
                        argument,
                    };
                    self.in_flight[key].route = Some(route);
                    self.enqueue(key, turn);
                }
                Slot::Absent(absent) => {
                    let absent = absent.clone();
                    self.park_for_absent(key, &absent, turn);
                }
            },
        }
    }

    /// The handler that does not run and may want a task that no route takes. Text or not: its `type` may be the prefix.
    fn claimant(&self, entry: &Entry, reason: DeadReason, turn: &Turn<'_>) -> Option<Arc<Absent>> {
        let Delivery { properties, body, .. } = &*entry.delivery;
        let message_type = properties.kind().as_ref().map(lapin::types::ShortString::as_str);
        let unrouted = match reason {
            DeadReason::Unroutable => true,
            DeadReason::Malformed => message_type.is_some(),
            _ => false,
        };
        let queue = &self.queues[entry.queue].config.name;
        unrouted.then(|| self.registry.claimant(queue, message_type, body, turn.now.instant).cloned())?
    }

    fn enqueue(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        let entry = &self.in_flight[key];
        let (Some(pool), Some(flow)) = (entry.pool(), self.flow_of(key)) else { return };
        if let Some(pause) = self.pause_of(flow.handler, turn) {
            return self.park(key, &pause.why, pause.left, turn);
        }
        self.log.received(self.task_ref(key), entry.delivery.body.len(), entry.delivery.redelivered);
        self.scheduler.add(flow, pool, self.in_flight[key].task(key));
        self.in_flight[key].stage = EntryStage::Waiting;
    }

    /// Routes a waiting entry anew, after its pool was retired or the duplicate before it has left.
    pub(super) fn reroute(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        let entry = &mut self.in_flight[key];
        entry.stage = EntryStage::Arrived;
        entry.route = None;
        self.route_unless_duplicate(key, turn);
    }

    /// Dead-letters a task that no handler can run, or shall.
    pub(super) fn dead_letter_unstarted(
        &mut self,
        key: EntryKey,
        reason: DeadReason,
        message: String,
        turn: &mut Turn<'_>,
    ) {
        self.errors.add(turn.now.unix, None, Some(&self.in_flight[key].id.text), &message);
        let error = TaskError::new(reason.as_str(), message);
        self.carry_out(key, Decision { error, ..Decision::of(Settlement::Dead { reason }) }, turn);
    }

    /// Parks a task whose handler is known and was never started.
    fn park_for_absent(&mut self, key: EntryKey, absent: &Absent, turn: &mut Turn<'_>) {
        let why = format!("handler {} is not running: {}", absent.handler, absent.why);
        self.park(key, &why, None, turn);
    }

    /// Takes a waiting entry out of the scheduler and the table.
    pub(super) fn forget_waiting(&mut self, key: EntryKey) -> Entry {
        self.unschedule(key);
        self.in_flight.remove(key)
    }

    /// Takes an entry out of the scheduler, if it is there.
    pub(super) fn unschedule(&mut self, key: EntryKey) {
        if matches!(self.in_flight[key].stage, EntryStage::Waiting)
            && let Some(flow) = self.flow_of(key)
        {
            self.scheduler.remove(flow, self.in_flight[key].task(key));
            self.in_flight[key].stage = EntryStage::Arrived;
        }
    }

    /// A redelivery of a task that still runs here, or has finished: it is not run again, its new tag gets that
    /// outcome.
    fn reattach(&mut self, queue: QueueKey, delivery: &Delivery, turn: &mut Turn<'_>) -> bool {
        if !self.in_flight.has_detached() {
            return false;
        }
        let digest = self.losses.digest(delivery);
        let Some(key) = self.in_flight.reattach(queue, digest, delivery) else { return false };
        let entry = &mut self.in_flight[key];
        tracing::info!(task_id = %entry.id.text, "redelivery reattached: the task runs or has finished here");
        match std::mem::replace(&mut entry.stage, EntryStage::Arrived) {
            EntryStage::Decided(decision) => self.carry_out(key, *decision, turn),
            EntryStage::Confirmed => self.acknowledge(key, turn),
            goes_on => entry.stage = goes_on,
        }
        true
    }

    /// A redelivery of a task that ended here: everything that belongs to it was done, only its acknowledgement was lost.
    fn settle_again(&mut self, delivery: &Delivery, turn: &mut Turn<'_>) {
        tracing::info!(
            task_id = %task::known_id(&delivery.properties).map(|id| id.text).unwrap_or_default(),
            "redelivery acknowledged: the task ended here, its acknowledgement was lost with the link"
        );
        turn.act(Action::Ack { consumer: delivery.consumer, tag: delivery.tag });
        self.losses.ended(delivery.consumer, delivery, turn.now.instant);
    }

    /// Acknowledges an entry that is done with, and remembers it for as long as the broker may not have seen that.
    pub(super) fn acknowledge(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        let entry = self.in_flight.remove(key);
        let Ownership::Held(consumer, tag) = entry.ownership else {
            unreachable!("only what is held can be acknowledged");
        };
        turn.act(Action::Ack { consumer, tag });
        self.losses.ended(consumer, &entry.delivery, turn.now.instant);
    }

    /// Drops detached entries that have ended and were not redelivered, and what is known of those that ended before.
    pub(super) fn expire_detached(&mut self, turn: &Turn<'_>) {
        let (now, queues) = (turn.now.instant, &self.queues);
        self.losses.expire(|queue| queues[queue].consumed_for(now));
        if !self.in_flight.has_detached() {
            return;
        }
        for (key, queue, since) in self.in_flight.ended_and_detached() {
            let queue = &self.queues[queue];
            let taken = queue.consumed_for(now) >= since + REDELIVERED_WITHIN;
            if taken || !queue.configured {
                self.in_flight.remove(key);
            }
        }
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
