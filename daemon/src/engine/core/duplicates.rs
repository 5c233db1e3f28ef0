//! Tasks that come again, on queues with `deduplicate`: one that is done is acknowledged; a duplicate of one that is in
//! hand is held back until that has left.

use crate::broker::Delivery;
use crate::dedup::{DuplicateCheck, Fingerprint};
use crate::model::TaskId;

use super::entry::Ownership;
use super::keys::{EntryKey, QueueKey};
use super::{Action, Core, Turn};

impl Core {
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

    /// Routes an entry that has just arrived, unless its task was done or a duplicate is in hand.
    pub(super) fn route_unless_duplicate(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        let entry = &self.in_flight[key];
        let answer = entry.fingerprint.map_or(DuplicateCheck::New, |fingerprint| {
            self.dedup.ask(&self.queues[entry.queue].config.name, fingerprint, turn.now.unix)
        });
        match answer {
            DuplicateCheck::Done => self.acknowledge_done_before(key, turn),
            DuplicateCheck::New if self.in_flight.is_first_of_task(key) => self.route(key, turn),
            DuplicateCheck::New | DuplicateCheck::Wait => self.in_flight.hold_back(key),
        }
    }

    fn acknowledge_done_before(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        let entry = self.in_flight.remove(key);
        let queue = &mut self.queues[entry.queue];
        tracing::info!(task_id = %entry.id.text, queue = %queue.config.name, "the task was done before; acknowledged");
        queue.counts.deduplicated += 1;
        if let Ownership::Held(consumer, tag) = entry.ownership {
            turn.act(Action::Ack { consumer, tag });
        }
    }

    /// Looks again at what was held back, when a duplicate has left or a queue's memory is there.
    pub(super) fn release_held_back(&mut self, turn: &mut Turn<'_>) {
        for key in self.in_flight.take_held_back() {
            self.route_unless_duplicate(key, turn);
        }
    }

    /// A task is done, with everything that belongs to it: to be called before its acknowledgement.
    pub(super) fn remember_done(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        let entry = &self.in_flight[key];
        if let Some(fingerprint) = entry.fingerprint {
            self.in_flight.look_again();
            let entry = &self.in_flight[key];
            let queue = &self.queues[entry.queue].config.name;
            self.dedup.record(queue, fingerprint, turn.now.unix, |order| {
                turn.actions.push(Action::Dedup(order));
            });
        }
    }

    /// Takes over which queues remember. What an earlier daemon left is read elsewhere.
    pub(super) fn configure_dedup(&mut self, turn: &mut Turn<'_>) {
        let queues = self.config.queues.iter().map(|queue| (queue.name.clone(), queue.deduplicate));
        self.dedup.configure(queues, |order| turn.actions.push(Action::Dedup(order)));
        self.in_flight.look_again();
    }
}
