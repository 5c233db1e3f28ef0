//! An operator cancels a task: one that runs is asked to stop, one that waits is dead-lettered without a start.

use crate::host::{HostId, Seq};
use crate::model::status::{CancelReply, CancelledTask};
use crate::model::{CancelCause, DeadReason};

use super::Engine;
use super::flight::{Claim, FlightKey, State};

impl Engine {
    /// Cancels every delivery of the task that is held here and not finished. Two producers may have used one id.
    pub(super) fn cancel(&mut self, id: &str) -> Result<CancelReply, String> {
        let open = |state: &State| matches!(state, State::Waiting | State::Sent);
        let found: Vec<FlightKey> = self
            .flights
            .iter()
            .filter(|(_, flight)| &*flight.id.text == id && open(&flight.state))
            .map(|(key, _)| key)
            .collect();
        if found.is_empty() {
            if let Some(why) = self.settling(id) {
                return Err(why);
            }
            return Err(format!(
                "no task `{id}` runs or waits here; it may be in its queue still, with another consumer, in a delay \
                 queue, or finished (`warrenctl active` lists what runs)"
            ));
        }
        let cancelled = found.into_iter().map(|key| self.cancel_flight(key)).collect();
        Ok(CancelReply { cancelled })
    }

    /// What keeps a task of this id that has ended from being settled.
    fn settling(&self, id: &str) -> Option<String> {
        let (key, _) = self.flights.iter().find(|(_, flight)| &*flight.id.text == id)?;
        let why = self.why_unsettled(key).map_or_else(
            || "its retry, dead letter or follow-ups are on their way to the broker".to_owned(),
            |why| format!("it cannot be settled: {why}"),
        );
        Some(format!("task `{id}` has ended here, there is nothing to cancel; {why}"))
    }

    fn cancel_flight(&mut self, key: FlightKey) -> CancelledTask {
        let flight = &self.flights[key];
        let handler = self.lanes.all.get(&flight.lane).map(|lane| lane.generation.handler.to_string());
        let row = CancelledTask {
            id: flight.id.text.to_string(),
            queue: self.queues[flight.queue].config.name.to_string(),
            handler: handler.unwrap_or_default(),
            was: if matches!(flight.state, State::Sent) { "running" } else { "waiting" }.to_owned(),
        };
        tracing::info!(
            task_id = row.id,
            handler = row.handler,
            was = row.was,
            "task cancelled by an operator"
        );
        match self.sent_to(key) {
            Some((host, seq)) => self.stop_sent(key, host, seq),
            None if matches!(flight.claim, Claim::Held(..)) => {
                let flight = self.forget_waiting(key);
                let message = "an operator cancelled it before it started".to_owned();
                self.bury_unrun(flight, DeadReason::Cancelled, message);
            }
            // Nobody holds it: the broker redelivers it.
            None => drop(self.forget_waiting(key)),
        }
        row
    }

    /// The host that was given the task, and its number there.
    fn sent_to(&self, key: FlightKey) -> Option<(HostId, Seq)> {
        self.lanes.hosts.iter().find_map(|(id, slot)| {
            let sent = slot.sent.iter().find(|sent| sent.flight == key)?;
            Some((*id, sent.seq))
        })
    }

    fn stop_sent(&mut self, key: FlightKey, id: HostId, seq: Seq) {
        let Some(slot) = self.lanes.hosts.get_mut(&id) else { return };
        self.flights[key].cancelled.get_or_insert(CancelCause::Operator);
        slot.host.cancel(seq);
        if slot.sent.front().is_some_and(|head| head.seq == seq) {
            slot.cancelled_at.get_or_insert(self.now);
        }
    }
}
