//! Host events: ready, reports, handler output, and every way a host can end.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{CancelCause, Outcome, TaskError};

use crate::host::{Bound, Exit, HostEvent, HostId, Report, Seq, Stage};
use crate::telemetry::TaskRef;

use super::Engine;
use super::charge::{Charge, UNTOLD};
use super::flight::FlightKey;
use super::lane::{HostSlot, LaneKey, Sent};

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
        lane.started();
        lane.idle.push(id);
        self.machine_fault = None;
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

    /// A host is gone: whoever answers for its end is charged, and its tasks are settled or go back.
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
        }
        let charge = Charge::of(exit);
        if charge != Charge::Nobody {
            let (handler, generation, why) = (&lane.generation.handler, slot.lane, &exit.why);
            tracing::warn!(%handler, generation, stage = ?exit.stage, %why, "plugin host died");
        }
        match charge {
            Charge::Nobody | Charge::Runner => {}
            Charge::Machine => self.machine_fails(slot.lane, exit),
            Charge::Handler => self.handler_answers(slot.lane, None, exit),
            Charge::Freed => {
                let message = format!("its plugin host died while the handler was freed: {}", exit.why);
                lane.totals.borrow_mut().last_error = Some(message.clone());
                let handler = lane.generation.handler.clone();
                self.remember(Some(&handler), None, &message);
            }
            Charge::Front => {
                if let Some(front) = front_of(&slot, exit).filter(|front| !self.is_charged(front.flight)) {
                    let victim = self.flights[front.flight].id.text.clone();
                    self.handler_answers(slot.lane, Some(&victim), exit);
                }
            }
        }
        self.settle_the_dead_hosts_tasks(&slot, exit, charge);
    }

    /// No host can be started, and the plugin has no part in that.
    fn machine_fails(&mut self, lane: LaneKey, exit: &Exit) {
        let Some(lane) = self.lanes.all.get_mut(&lane) else { return };
        lane.start_failed(self.now);
        let message = format!("no plugin host can be started here: {}", reason_of(exit));
        tracing::error!(handler = %lane.generation.handler, error = %message, "the machine is short of something; trying again");
        lane.totals.borrow_mut().last_error = Some(message.clone());
        self.remember(None, None, &message);
        self.machine_fault = Some(message);
    }

    /// A host died of something that no task can be blamed for yet. `victim`: the task that it was reading.
    fn handler_answers(&mut self, key: LaneKey, victim: Option<&Arc<str>>, exit: &Exit) {
        let Some(lane) = self.lanes.all.get_mut(&key) else { return };
        let message = match exit.stage {
            Stage::Creating => format!("its plugin host did not start: {}", reason_of(exit)),
            Stage::Idle => format!("its plugin host died while it had no task: {}", exit.why),
            _ => format!("its plugin host died before it could run or report a task: {}", exit.why),
        };
        if exit.stage == Stage::Creating {
            lane.start_failed(self.now);
        } else {
            lane.pause_starts(self.now);
        }
        let handler = lane.generation.handler.clone();
        tracing::error!(%handler, generation = key, error = %message, "handler failing; trying again");
        let mut totals = lane.totals.borrow_mut();
        totals.last_error = Some(message.clone());
        let held = !lane.retired && totals.standing.host_died(victim, &message, self.now);
        drop(totals);
        self.remember(Some(&handler), victim.map(|id| &**id), &message);
        if held {
            self.put_aside(key);
        }
    }

    /// Counts that a host ended with this task in front and not told of. Whether that is its attempt.
    fn is_charged(&mut self, key: FlightKey) -> bool {
        let flight = &mut self.flights[key];
        flight.untold += 1;
        let lane = self.lanes.all.get(&flight.lane);
        // A task of a handler on trial would be parked, and its count forgotten.
        let on_trial = lane.is_some_and(|lane| lane.totals.borrow().standing.is_on_trial());
        let charged = flight.untold >= UNTOLD || on_trial || flight.cancelled.is_some();
        if charged {
            flight.untold = UNTOLD;
        }
        charged
    }

    fn settle_the_dead_hosts_tasks(&mut self, slot: &HostSlot, exit: &Exit, charge: Charge) {
        let front = front_of(slot, exit).filter(|_| charge == Charge::Front);
        // Backwards, so that what returns to the front of the lane keeps its order.
        for sent in slot.sent.iter().rev() {
            let runs = charge == Charge::Runner && sent.seq == exit.started;
            let untold = front.is_some_and(|front| front.seq == sent.seq)
                && self.flights[sent.flight].untold >= UNTOLD;
            if exit.done_unreported.contains(&sent.seq) {
                self.conclude(sent.flight, plain_report(sent, Outcome::Done, None));
            } else if runs || untold {
                let error = self.death_error(sent, exit);
                let duration = self.now.saturating_duration_since(slot.head_since);
                let outcome = match self.flights[sent.flight].cancelled {
                    Some(_) => Outcome::Cancelled,
                    None => Outcome::Fault(exit.cause()),
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
            None if exit.over == Some(Bound::CpuTime) => ("cpu_time", exit.why.clone()),
            None => {
                let when = match exit.stage {
                    Stage::Reading => " while it read the task",
                    Stage::Reporting => " before it reported the task",
                    _ => "",
                };
                ("crash", format!("the plugin host died{when}: {}", exit.why))
            }
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

/// The task that a host was about to start, or had ended and not reported.
fn front_of(slot: &HostSlot, exit: &Exit) -> Option<Sent> {
    slot.sent.iter().find(|sent| !exit.done_unreported.contains(&sent.seq)).copied()
}

/// Why a host did not start.
fn reason_of(exit: &Exit) -> &str {
    exit.create_error.as_ref().map_or(&exit.why, |error| &error.message)
}

fn plain_report(sent: &Sent, outcome: Outcome, error: Option<TaskError>) -> Report {
    Report { seq: sent.seq, outcome, error, result: None, follow_ups: Vec::new(), duration: Duration::ZERO }
}
