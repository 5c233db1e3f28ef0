//! Decisions are carried out: what is published for a task before it is acknowledged, and the acknowledgement once the broker
//! has confirmed all of it. What a settlement counts for is counted here, when it is final.

use std::sync::Arc;
use std::time::Duration;

use crate::host::Report;
use crate::model::status::Counts;
use crate::model::{DeadReason, Outcome, TaskError};
use crate::settlement::Settlement;

use super::entry::{Decision, EntryStage, Ownership, Publishing, Purpose};
use super::keys::EntryKey;
use super::{Action, Again, Copy, CopyKind, CopyResult, Core, Turn};

impl Core {
    /// Does at the broker what was decided. A task whose tag is lost waits for its redelivery instead.
    pub(super) fn carry_out(&mut self, key: EntryKey, decision: Decision, turn: &mut Turn<'_>) {
        let entry = &self.in_flight[key];
        let is_plain_ack =
            decision.settlement == Settlement::Ack && decision.follow_ups.is_empty() && !entry.wants_reply();
        let ownership = entry.ownership;
        let (attempt, redeliveries) = (entry.attempt, entry.redeliveries);
        if is_plain_ack {
            self.remember_done(key, turn);
        }
        let Ownership::Held(consumer, tag) = ownership else {
            if decision.settlement != Settlement::Ack {
                // Its redelivery may be behind its duplicates: those must not wait for it.
                self.in_flight.is_first_no_more(key);
            }
            self.in_flight[key].stage = EntryStage::Decided(Box::new(decision));
            return;
        };
        let Decision { settlement, error, follow_ups, result, interrupted, ended } = decision;
        let again = |delay, redeliveries| Again { delay, attempt, redeliveries, failure: None };
        match settlement {
            Settlement::Ack if is_plain_ack => {
                self.count(key, |counts| counts.done += 1);
                self.acknowledge(key, turn);
            }
            Settlement::Ack => {
                let Some(ended) = ended else { unreachable!("only an attempt that ended is done") };
                let kind = CopyKind::FollowUps { follow_ups, result };
                self.publish(key, Purpose::FollowUps(ended), kind, turn);
            }
            // It was started and then stopped in good order, so its start was not cut short by our end. The next daemon
            // could not tell from a plain return, and would count it.
            Settlement::Requeue if redeliveries > 0 && interrupted => {
                let copy = again(Duration::ZERO, 0);
                self.publish(key, Purpose::Restart, CopyKind::Again(copy), turn);
            }
            Settlement::Requeue => {
                self.count(key, |counts| counts.requeued += 1);
                turn.act(Action::Requeue { consumer, tag });
                self.in_flight.remove(key);
            }
            Settlement::Park { delay } => {
                let copy = again(delay, redeliveries);
                self.publish(key, Purpose::Park, CopyKind::Again(copy), turn);
            }
            Settlement::Recount => {
                let copy = again(Duration::ZERO, redeliveries.saturating_add(1));
                self.publish(key, Purpose::Recount, CopyKind::Again(copy), turn);
            }
            Settlement::Retry { delay, next_attempt } => {
                // This attempt came to its end: no start of the next one was cut short yet.
                let copy = Again { delay, attempt: next_attempt, redeliveries: 0, failure: Some(error) };
                self.publish(key, Purpose::Retry, CopyKind::Again(copy), turn);
            }
            Settlement::Dead { reason } => {
                let kind = CopyKind::Dead { reason, error };
                self.publish(key, Purpose::Dead(reason, ended), kind, turn);
            }
        }
    }

    /// Starts to publish something for a task.
    pub(super) fn publish(&mut self, key: EntryKey, purpose: Purpose, kind: CopyKind, turn: &mut Turn<'_>) {
        let handler = self.handler_name(key);
        let entry = &mut self.in_flight[key];
        entry.stage = EntryStage::Publishing(Publishing { since: turn.now.instant, refused: None, purpose });
        turn.act(Action::Publish(Box::new(Copy {
            entry: key,
            delivery: entry.delivery.clone(),
            queue: self.queues[entry.queue].config.clone(),
            handler,
            id: entry.id.clone(),
            attempt: entry.attempt,
            redeliveries: entry.redeliveries,
            kind,
        })));
    }

    pub(super) fn on_copy(&mut self, key: EntryKey, result: CopyResult, turn: &mut Turn<'_>) {
        match result {
            CopyResult::Confirmed => self.on_confirmed(key, turn),
            CopyResult::Refused(why) => self.on_refused(key, &why, turn),
            CopyResult::Unacceptable(why) => self.on_unacceptable(key, why, turn),
            CopyResult::FollowUpFailed(why) => self.on_follow_up_failed(key, &why, turn),
        }
    }

    /// The publication under way is over: what it was for.
    fn take_publishing(&mut self, key: EntryKey) -> Option<Purpose> {
        match std::mem::replace(&mut self.in_flight[key].stage, EntryStage::Arrived) {
            EntryStage::Publishing(Publishing { purpose, .. }) => Some(purpose),
            other => {
                self.in_flight[key].stage = other;
                tracing::error!(entry = key, "result of an unknown publication; ignored");
                None
            }
        }
    }

    /// The copies of a task are confirmed: now, and only now, the original is acknowledged.
    fn on_confirmed(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        let Some(purpose) = self.take_publishing(key) else { return };
        match purpose {
            Purpose::Retry => self.count(key, |counts| counts.retried += 1),
            Purpose::Park => self.count(key, |counts| counts.parked += 1),
            Purpose::Restart => self.count(key, |counts| counts.requeued += 1),
            Purpose::Recount | Purpose::Onward => {}
            Purpose::Dead(reason, ended) => {
                self.count(key, |counts| counts.dead += 1);
                if reason == DeadReason::Expired {
                    let queue = self.in_flight[key].queue;
                    self.queues[queue].counts.expired += 1;
                }
                match ended {
                    Some(ended) => self.log_finished(key, &ended, Settlement::Dead { reason }),
                    None => self.log.refused(self.task_ref(key), reason),
                }
            }
            Purpose::FollowUps(ended) => {
                self.remember_done(key, turn);
                self.count(key, |counts| counts.done += 1);
                self.attempt_is_final(key, &ended, Settlement::Ack, turn);
            }
        }
        match self.in_flight[key].ownership {
            Ownership::Held(..) => self.acknowledge(key, turn),
            Ownership::Detached(_) => {
                self.in_flight[key].stage = EntryStage::Confirmed;
                // Its redelivery may be behind its own copy, or a duplicate: those must not wait for it.
                self.in_flight.is_first_no_more(key);
            }
        }
    }

    /// A copy cannot be published at the moment. It is tried again, without limit.
    fn on_refused(&mut self, key: EntryKey, why: &str, turn: &Turn<'_>) {
        let handler = self.handler_name(key);
        let entry = &mut self.in_flight[key];
        if let EntryStage::Publishing(publishing) = &mut entry.stage {
            publishing.refused = Some(why.to_owned());
        }
        let id = &entry.id.text;
        tracing::error!(task_id = %id, error = why, "a copy cannot be published; the task stays unacknowledged, trying again");
        self.errors.add(turn.now.unix, handler.as_deref(), Some(id), why);
    }

    /// The broker never takes the copy that is to run again: the task becomes a dead letter instead.
    fn on_unacceptable(&mut self, key: EntryKey, why: String, turn: &mut Turn<'_>) {
        if self.take_publishing(key).is_none() {
            return;
        }
        let handler = self.handler_name(key);
        self.errors.add(turn.now.unix, handler.as_deref(), Some(&self.in_flight[key].id.text), &why);
        let reason = DeadReason::Refused;
        let error = TaskError::new(reason.as_str(), why);
        // As every decision: with the tag, or with the next one when the link was lost in between.
        self.carry_out(key, Decision { error, ..Decision::of(Settlement::Dead { reason }) }, turn);
    }

    /// A follow-up that the broker refuses fails the task.
    fn on_follow_up_failed(&mut self, key: EntryKey, why: &str, turn: &mut Turn<'_>) {
        let Some(Purpose::FollowUps(ended)) = self.take_publishing(key) else { return };
        let error = TaskError::new("publish-failed", format!("a follow-up task was refused: {why}"));
        let report =
            Report { duration: ended.duration, ..Report::without_result(0, Outcome::Retry, Some(error)) };
        self.conclude(key, report, ended.cancelled, turn);
    }

    /// Counts for the task's queue and handler.
    fn count(&mut self, key: EntryKey, add: impl Fn(&mut Counts)) {
        let entry = &self.in_flight[key];
        let (queue, handler) = (entry.queue, self.pool_of(entry).map(|pool| pool.handler));
        add(&mut self.queues[queue].counts);
        if let Some(handler) = handler {
            add(&mut self.handlers[handler].counts);
        }
    }

    fn handler_name(&self, key: EntryKey) -> Option<Arc<str>> {
        let pool = self.pool_of(&self.in_flight[key]);
        pool.map(|pool| pool.generation.handler.clone())
    }
}
