//! Tasks that come again, on queues with `deduplicate`: one that is done is acknowledged, one whose twin is in hand
//! waits for what becomes of that.

use std::sync::Arc;

use crate::broker::Delivery;
use crate::dedup::{Answer, Fingerprint, Generation};
use crate::model::TaskId;

use super::drain::Phase;
use super::flight::{Claim, Flight, FlightKey};
use super::queues::QueueKey;
use super::{Engine, Event};

impl Engine {
    /// What tells this task from others, where that is asked for.
    pub(super) fn fingerprint(
        &self,
        queue: QueueKey,
        id: &TaskId,
        delivery: &Delivery,
    ) -> Option<Fingerprint> {
        if id.generated || self.queues[queue].config.deduplicate.is_zero() {
            return None;
        }
        Fingerprint::of(&delivery.properties, &delivery.body)
    }

    /// The flight, if it is to go on; else it is settled, or held back.
    pub(super) fn unless_duplicate(&mut self, flight: Flight) -> Option<Flight> {
        let Some(print) = flight.print else { return Some(flight) };
        let name = &self.queues[flight.queue].config.name;
        match self.dedup.ask(name, print) {
            Answer::Done => {
                tracing::info!(task_id = %flight.id.text, queue = %name, "the task was done before; acknowledged");
                self.queues[flight.queue].counts.deduplicated += 1;
                if let Claim::Held(consumer, tag) = flight.claim {
                    self.link.ack(consumer, tag);
                }
                None
            }
            Answer::New if self.flights.first_of(flight.queue, print).is_none() => Some(flight),
            Answer::New | Answer::Wait => {
                let key = self.flights.insert(Flight { held_back: true, ..flight });
                self.held_back.push(key);
                None
            }
        }
    }

    /// Looks again at what was held back, when a twin has left or a queue's memory is there.
    pub(super) fn release_held_back(&mut self) {
        if !self.flights.take_freed() || !matches!(self.phase, Phase::Running) {
            return;
        }
        for key in std::mem::take(&mut self.held_back) {
            // It may have gone back to the broker meanwhile, or been cancelled, and its place to another.
            let Some(flight) = self.flights.get(key).filter(|flight| flight.held_back) else { continue };
            let Some(print) = flight.print else { continue };
            let memory = self.dedup.ask(&self.queues[flight.queue].config.name, print);
            let waits = match memory {
                Answer::Done => false,
                Answer::Wait => true,
                Answer::New => self.flights.first_of(flight.queue, print).is_some_and(|first| first != key),
            };
            if waits {
                self.held_back.push(key);
            } else {
                self.reroute(key);
            }
        }
    }

    /// A task is done, with everything that belongs to it: to be called before its acknowledgement.
    pub(super) fn remember_done(&mut self, key: FlightKey) {
        let flight = &self.flights[key];
        if let Some(print) = flight.print {
            self.dedup.record(&self.queues[flight.queue].config.name, print);
        }
    }

    /// Takes over which queues remember. What an earlier daemon left is read elsewhere.
    pub(super) fn configure_dedup(&mut self) {
        let queues = self.config.queues.iter().map(|queue| (queue.name.clone(), queue.deduplicate));
        for (queue, answer) in self.dedup.configure(queues) {
            let sender = self.sender.clone();
            tokio::task::spawn_local(async move {
                let found = answer.await.unwrap_or_default();
                let _ = sender.send(Event::Remembered(queue, found));
            });
        }
        self.flights.set_freed();
    }

    pub(super) fn on_remembered(&mut self, queue: &Arc<str>, found: Vec<Generation>) {
        self.dedup.loaded(queue, found);
        self.flights.set_freed();
    }
}
