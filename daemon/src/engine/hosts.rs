//! Host events: ready, reports, handler output, and every way a host can end.

use std::time::Duration;

use crate::host::{Bound, Exit, HostEvent, HostId, Outcome, Report, Seq, TaskError};
use crate::settlement::{CODE_CPU_TIME, CODE_CRASH, CancelCause};
use crate::telemetry::TaskRef;

use super::Engine;
use super::flight::FlightKey;
use super::lane::{HostSlot, Sent};

impl Engine {
    pub(super) fn on_host(&mut self, id: HostId, event: HostEvent) {
        match event {
            HostEvent::Report(report) => self.on_report(id, *report),
            HostEvent::Withdrawn { seq } => self.on_withdrawn(id, seq),
            HostEvent::Ready => self.on_ready(id),
            HostEvent::Exited(exit) => self.on_exited(id, &exit),
            HostEvent::Progress { seq, permille, note } => {
                if let Some(key) = self.sent_flight(id, seq) {
                    self.flights[key].progress = Some((permille, note));
                }
            }
            HostEvent::Log { seq, level, message, fields } => {
                self.log.handler_log(self.log_context(id, seq), level, &message, &fields);
            }
            HostEvent::Output { seq, stderr, line } => {
                self.log.handler_output(self.log_context(id, seq), stderr, &line);
            }
        }
    }

    fn on_ready(&mut self, id: HostId) {
        let Some(slot) = self.lanes.hosts.get_mut(&id) else { return };
        let Some(lane) = self.lanes.all.get_mut(&slot.lane) else { return };
        slot.ready = true;
        slot.idle_since = self.now;
        lane.starting -= 1;
        lane.start_succeeded();
        lane.idle.push(id);
    }

    /// A recalled task came back unstarted: another host can take it.
    fn on_withdrawn(&mut self, id: HostId, seq: Seq) {
        let Some(sent) = self.lanes.hosts.get_mut(&id).and_then(|slot| slot.take(seq, self.now)) else {
            return;
        };
        self.host_freed(id);
        if self.flights[sent.flight].cancelled.is_some() {
            self.conclude(sent.flight, plain_report(&sent, Outcome::Cancelled, None));
        } else {
            self.give_back_to_lane(sent.flight);
        }
    }

    /// A host has one task less: it may be idle now, or due for recycling.
    pub(super) fn host_freed(&mut self, id: HostId) {
        let Some(slot) = self.lanes.hosts.get_mut(&id) else { return };
        let Some(lane) = self.lanes.all.get_mut(&slot.lane) else { return };
        let limits = &lane.generation.limits;
        if !slot.leaving {
            let worn = limits.max_tasks > 0 && slot.tasks >= limits.max_tasks;
            let fat = limits.max_rss > 0 && slot.host.rss_bytes().is_some_and(|rss| rss > limits.max_rss);
            if worn || fat {
                slot.leaving = true;
            }
        }
        if !slot.sent.is_empty() {
            return;
        }
        lane.busy.retain(|busy| *busy != id);
        if let Some(queue) = slot.queue.take() {
            self.queues[queue].busy_hosts -= 1;
        }
        slot.idle_since = self.now;
        if slot.leaving || lane.retired {
            slot.leaving = true;
            slot.host.quit();
        } else {
            lane.idle.push(id);
        }
    }

    /// A host is gone. The task it was running pays for it; what it had not started goes back to its lane.
    fn on_exited(&mut self, id: HostId, exit: &Exit) {
        let Some(slot) = self.lanes.hosts.remove(&id) else { return };
        let Some(lane) = self.lanes.all.get_mut(&slot.lane) else { return };
        lane.idle.retain(|idle| *idle != id);
        lane.busy.retain(|busy| *busy != id);
        if let Some(queue) = slot.queue {
            self.queues[queue].busy_hosts -= 1;
        }
        if !slot.ready {
            lane.starting -= 1;
            lane.start_failed(self.now);
            let why =
                exit.create_error.as_ref().map_or_else(|| exit.why.clone(), |error| error.message.clone());
            let handler = lane.generation.handler.clone();
            let message = format!("its plugin host did not start: {why}");
            tracing::error!(%handler, generation = slot.lane, error = %message, "handler failing; trying again");
            let mut totals = lane.totals.borrow_mut();
            totals.last_error = Some(message.clone());
            let held = !lane.retired && totals.standing.host_died(None, &message, self.now);
            drop(totals);
            self.remember(Some(&handler), None, &message);
            if held {
                self.put_aside(slot.lane);
            }
        } else if !slot.sent.is_empty() || !slot.leaving {
            tracing::warn!(handler = %lane.generation.handler, generation = slot.lane, why = %exit.why, "plugin host died");
        }
        self.settle_the_dead_hosts_tasks(&slot, exit);
    }

    fn settle_the_dead_hosts_tasks(&mut self, slot: &HostSlot, exit: &Exit) {
        // Backwards, so that what returns to the front of the lane keeps its order.
        for sent in slot.sent.iter().rev() {
            if exit.done_unreported.contains(&sent.seq) {
                self.conclude(sent.flight, plain_report(sent, Outcome::Done, None));
            } else if sent.seq == exit.started && exit.started > exit.ended {
                let error = self.death_error(sent, exit);
                let duration = self.now.saturating_duration_since(slot.head_since);
                let outcome = match self.flights[sent.flight].cancelled {
                    Some(_) => Outcome::Cancelled,
                    None => Outcome::Fault,
                };
                let report = Report { duration, ..plain_report(sent, outcome, Some(error)) };
                self.conclude(sent.flight, report);
            } else {
                self.give_back_to_lane(sent.flight);
            }
        }
    }

    fn death_error(&self, sent: &Sent, exit: &Exit) -> TaskError {
        let (code, message) = match self.flights[sent.flight].cancelled {
            Some(CancelCause::Timeout) => {
                ("timeout", "the handler did not stop at its time limit and was killed".to_owned())
            }
            Some(CancelCause::Drain | CancelCause::Operator) => {
                ("killed", format!("the handler did not stop when asked and was killed ({})", exit.why))
            }
            None if exit.over == Some(Bound::CpuTime) => (CODE_CPU_TIME, exit.why.clone()),
            None => (CODE_CRASH, format!("the plugin host died: {}", exit.why)),
        };
        TaskError { code: code.to_owned(), message, retry_after: None }
    }

    fn sent_flight(&self, id: HostId, seq: u64) -> Option<usize> {
        self.lanes.hosts.get(&id)?.sent.iter().find(|sent| sent.seq == seq).map(|sent| sent.flight)
    }

    /// The task that a host's line is about, or at least its handler.
    fn log_context(&self, id: HostId, seq: u64) -> TaskRef<'_> {
        if let Some(key) = self.sent_flight(id, seq) {
            return self.task_ref(key);
        }
        let lane = self.lanes.hosts.get(&id).and_then(|slot| self.lanes.all.get(&slot.lane));
        TaskRef { generation: lane.map(|lane| &lane.generation), ..TaskRef::default() }
    }

    /// A flight as the log names it.
    pub(super) fn task_ref(&self, key: FlightKey) -> TaskRef<'_> {
        let flight = &self.flights[key];
        TaskRef {
            id: &flight.id.text,
            queue: Some(&self.queues[flight.queue].config.name),
            generation: self.lanes.all.get(&flight.lane).map(|lane| &lane.generation),
            attempt: flight.attempt,
            headers: flight.delivery.properties.headers().as_ref(),
        }
    }
}

fn plain_report(sent: &Sent, outcome: Outcome, error: Option<TaskError>) -> Report {
    Report { seq: sent.seq, outcome, error, result: None, follow_ups: Vec::new(), duration: Duration::ZERO }
}
