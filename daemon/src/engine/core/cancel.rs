//! An operator cancels a task: one that runs is asked to stop, one that waits is dead-lettered without a start.

use crate::model::status::{CancelReply, CancelledTask, CancelledWhile};
use crate::model::{CancelCause, DeadReason};

use super::entry::{EntryStage, Ownership, Sent};
use super::keys::EntryKey;
use super::{Action, Core, Now, Turn};

impl Core {
    /// Cancels every delivery of the task that is held here and has not ended. Two producers may have used one id. An error
    /// is a sentence for the operator.
    pub(crate) fn cancel(
        &mut self,
        id: &str,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<CancelReply, String> {
        let turn = &mut Turn { now, actions };
        let found = self.in_flight.keys_where(|entry| {
            &*entry.id.text == id && (entry.is_waiting() || matches!(entry.stage, EntryStage::Sent(_)))
        });
        if found.is_empty() {
            if let Some(why) = self.settling(id, turn) {
                return Err(why);
            }
            return Err(format!(
                "no task `{id}` runs or waits here; it may be in its queue still, with another consumer, in a delay \
                 queue, or finished (`warrenctl active` lists what runs)"
            ));
        }
        let cancelled = found.into_iter().map(|key| self.cancel_entry(key, turn)).collect();
        Ok(CancelReply { cancelled })
    }

    /// What keeps a task of this id that has ended from being settled.
    fn settling(&self, id: &str, turn: &Turn<'_>) -> Option<String> {
        let (_, entry) = self.in_flight.iter().find(|(_, entry)| &*entry.id.text == id)?;
        let why = self.why_unsettled(entry, turn).map_or_else(
            || "its retry, dead letter or follow-ups are on their way to the broker".to_owned(),
            |why| format!("it cannot be settled: {why}"),
        );
        Some(format!("task `{id}` has ended here, there is nothing to cancel; {why}"))
    }

    fn cancel_entry(&mut self, key: EntryKey, turn: &mut Turn<'_>) -> CancelledTask {
        let entry = &self.in_flight[key];
        let handler = self.pool_of(entry);
        let row = CancelledTask {
            id: entry.id.text.to_string(),
            queue: self.queues[entry.queue].config.name.to_string(),
            handler: handler.map_or_else(String::new, |pool| pool.generation.handler.to_string()),
            was: if entry.sent().is_some() { CancelledWhile::Running } else { CancelledWhile::Waiting },
        };
        tracing::info!(
            task_id = row.id,
            handler = row.handler,
            was = %row.was,
            "task cancelled by an operator"
        );
        if let Some(&Sent { host, seq, .. }) = entry.sent() {
            self.in_flight[key].cancel(CancelCause::Operator);
            turn.act(Action::CancelTask { host, seq });
            if let Some(worker) = self.pools.worker_mut(host)
                && worker.head().is_some_and(|head| head.seq == seq)
            {
                worker.cancel_head(turn.now.instant);
            }
        } else if let Ownership::Held(..) = entry.ownership {
            self.unschedule(key);
            let message = "an operator cancelled it before it started".to_owned();
            self.dead_letter_unstarted(key, DeadReason::Cancelled, message, turn);
        } else {
            // Nobody holds it: the broker redelivers it.
            self.forget_waiting(key);
        }
        row
    }
}
