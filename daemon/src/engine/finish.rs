//! Outcomes come in: what they mean is decided in [`crate::settlement`], and carried out here.

use std::rc::Rc;
use std::time::Duration;

use crate::failpoint::failpoint;
use crate::host::{HostId, Report};
use crate::model::status::RecentError;
use crate::model::{CancelCause, DeadReason, FaultCause, Outcome, TaskError};
use crate::settlement::{self, Settlement};
use crate::telemetry::Finished;

use super::Engine;
use super::copies::Again;
use super::drain::Phase;
use super::flight::{Claim, Flight, FlightKey, State, Verdict};

/// Errors kept for `warrenctl status`.
const ERRORS: usize = 16;

impl Engine {
    /// A host reported the end of a task.
    pub(super) fn on_report(&mut self, id: HostId, report: Report) {
        let Some(slot) = self.lanes.hosts.get_mut(&id) else { return };
        let Some(sent) = slot.take(report.seq, self.now) else {
            tracing::error!(host = id.0, seq = report.seq, "report of a task that was not sent; ignored");
            return;
        };
        slot.tasks += 1;
        if matches!(report.outcome, Outcome::Fault(_)) {
            // After a panic or a broken contract the handler's state is unknown: the next task gets a new host, and
            // this one reports those behind it without starting them.
            slot.leaving = true;
            slot.sent.iter_mut().for_each(|queued| queued.recalled = true);
        }
        let (lane, first) = (slot.lane, slot.tasks == 1);
        self.host_freed(id);
        let recalled = sent.recalled && report.outcome == Outcome::Cancelled;
        if recalled && self.flights[sent.flight].cancelled.is_none() {
            self.give_back_to_lane(sent.flight);
            return;
        }
        if let Some(lane) = self.lanes.all.get_mut(&lane) {
            lane.observe(report.duration);
            if first {
                lane.proved();
            }
        }
        self.conclude(sent.flight, report);
    }

    /// Decides what an outcome means and starts doing it.
    pub(super) fn conclude(&mut self, key: FlightKey, mut report: Report) {
        let flight = &mut self.flights[key];
        flight.state = State::Settling;
        let Some(lane) = self.lanes.all.get_mut(&flight.lane) else {
            unreachable!("a lane outlives its flights");
        };
        let generation = lane.generation.clone();
        let cancelled = flight.cancelled;
        if let (Some(CancelCause::Timeout), Outcome::Cancelled, Some(error)) =
            (cancelled, &report.outcome, &mut report.error)
        {
            // The host's clock and this one watch the same limit: which of them was first is of no interest.
            "timeout".clone_into(&mut error.code);
        }
        let ruling = settlement::settle(
            report.outcome,
            report.error.as_ref().and_then(|error| error.retry_after),
            flight.attempt,
            generation.retry(),
            cancelled,
            fastrand::f64(),
        );
        if matches!(report.outcome, Outcome::Fault(_)) {
            lane.totals.borrow_mut().counts.faults += 1;
            self.queues[flight.queue].counts.faults += 1;
        }
        self.log_outcome(key, &report, ruling);
        self.judge_handler(key, &report, ruling);
        let (follow_ups, result) = match ruling {
            Settlement::Ack => (report.follow_ups, report.result),
            _ => (Vec::new(), None),
        };
        self.flights[key].result = result;
        let error = report.error.unwrap_or_else(|| unexplained(cancelled));
        self.carry_out(key, Verdict { settlement: ruling, error, follow_ups });
    }

    /// What an outcome says of its handler: hosts that keep dying suspend it, failures may let it rest.
    fn judge_handler(&mut self, key: FlightKey, report: &Report, ruling: Settlement) {
        let Flight { lane: lane_key, cancelled, ref id, .. } = self.flights[key];
        let Some(lane) = self.lanes.all.get(&lane_key) else { return };
        let failed = match ruling {
            Settlement::Ack | Settlement::Dead { reason: DeadReason::Rejected } => false,
            Settlement::Retry { .. } | Settlement::Dead { .. } => true,
            // Says something about the drain, not about the handler.
            Settlement::Requeue | Settlement::Park { .. } | Settlement::Recount => return,
        };
        let died = report.error.as_ref().filter(|_| report.outcome == Outcome::Fault(FaultCause::HostDied));
        let breaker = lane.generation.limits.breaker.as_ref();
        let mut totals = lane.totals.borrow_mut();
        let standing = &mut totals.standing;
        let mut held = match died {
            Some(error) if cancelled.is_none() => {
                standing.host_died(Some(&id.text), &error.message, self.now)
            }
            // Killed at its time limit, or by an operator: that is no sign of a broken plugin.
            _ if cancelled.is_some() => false,
            _ => standing.task_ended(failed, breaker, self.now),
        };
        if died.is_some() || cancelled.is_some() {
            held |= standing.count(failed, breaker, self.now);
        }
        drop(totals);
        if held {
            self.put_aside(lane_key);
        }
    }

    /// Does at the broker what was decided. A flight whose tag is lost waits for its redelivery instead.
    pub(super) fn carry_out(&mut self, key: FlightKey, verdict: Verdict) {
        if verdict.settlement == Settlement::Ack
            && verdict.follow_ups.is_empty()
            && !self.flights[key].wants_reply()
        {
            self.remember_done(key);
        }
        let flight = &mut self.flights[key];
        let Claim::Held(consumer, tag) = flight.claim else {
            flight.state = State::Finished(Box::new(verdict));
            return;
        };
        flight.state = State::Settling;
        match verdict.settlement {
            Settlement::Ack if verdict.follow_ups.is_empty() && !flight.wants_reply() => {
                self.count(key, |counts| counts.done += 1);
                failpoint!("settle::before-ack");
                self.acknowledge(key);
            }
            // It was started and then stopped in good order, so its start was not cut short by our end. The next daemon
            // could not tell from a plain return, and would count it.
            Settlement::Requeue if flight.redeliveries > 0 && flight.cancelled.is_some() => {
                let again =
                    Again { delay: Duration::ZERO, attempt: flight.attempt, redeliveries: 0, failed: false };
                self.count(key, |counts| counts.requeued += 1);
                self.publish_again(key, again, verdict.error);
            }
            Settlement::Requeue => {
                self.count(key, |counts| counts.requeued += 1);
                self.link.requeue(consumer, tag);
                self.flights.remove(key);
            }
            Settlement::Park { delay } => {
                self.count(key, |counts| counts.parked += 1);
                let Flight { attempt, redeliveries, .. } = self.flights[key];
                self.publish_again(key, Again { delay, attempt, redeliveries, failed: false }, verdict.error);
            }
            Settlement::Recount => {
                let Flight { attempt, redeliveries, .. } = self.flights[key];
                let redeliveries = redeliveries.saturating_add(1);
                let again = Again { delay: Duration::ZERO, attempt, redeliveries, failed: false };
                self.publish_again(key, again, verdict.error);
            }
            Settlement::Ack => {
                self.count(key, |counts| counts.done += 1);
                self.flights[key].done = true;
                self.publish_what_comes_of(key, verdict.follow_ups);
            }
            Settlement::Retry { delay, next_attempt } => {
                self.count(key, |counts| counts.retried += 1);
                // This attempt came to its end: no start of the next one was cut short yet.
                let again = Again { delay, attempt: next_attempt, redeliveries: 0, failed: true };
                self.publish_again(key, again, verdict.error);
            }
            Settlement::Dead { reason } => {
                self.count(key, |counts| counts.dead += 1);
                self.publish_dead(key, reason, verdict.error);
            }
        }
    }

    /// Counts for the flight's queue and handler.
    pub(super) fn count(&mut self, key: FlightKey, add: impl Fn(&mut crate::model::status::Counts)) {
        let flight = &self.flights[key];
        add(&mut self.queues[flight.queue].counts);
        if let Some(lane) = self.lanes.all.get_mut(&flight.lane) {
            add(&mut lane.totals.borrow_mut().counts);
        }
    }

    fn log_outcome(&mut self, key: FlightKey, report: &Report, settlement: Settlement) {
        self.log.finished(
            self.task_ref(key),
            Finished {
                outcome: report.outcome,
                error: report.error.as_ref(),
                settlement,
                duration: report.duration,
            },
        );
        if !matches!(settlement, Settlement::Retry { .. } | Settlement::Dead { .. }) {
            return;
        }
        let flight = &self.flights[key];
        let error = report.error.clone().unwrap_or_default();
        let message = format!("{}: {}", error.code, error.message);
        let (id, lane) = (flight.id.text.clone(), &self.lanes.all[&flight.lane]);
        lane.totals.borrow_mut().last_error = Some(message.clone());
        let handler = lane.generation.handler.clone();
        self.remember(Some(&handler), Some(&id), &message);
    }

    /// Keeps an error for `warrenctl status`. One that comes again and again stands there once, with its last time.
    pub(super) fn remember(&mut self, handler: Option<&str>, task_id: Option<&str>, message: &str) {
        self.errors.retain(|one| one.message != message || one.handler.as_deref() != handler);
        self.errors.truncate(ERRORS - 1);
        self.errors.push_front(RecentError {
            at_ms: super::status::now_ms(),
            handler: handler.map(str::to_owned),
            task_id: task_id.map(str::to_owned),
            message: message.to_owned(),
        });
    }

    /// A flight that a host never started goes back to the front of its lane, its attempt not counted.
    pub(super) fn give_back_to_lane(&mut self, key: FlightKey) {
        let flight = &mut self.flights[key];
        if let Claim::Orphan(_) = flight.claim {
            self.orphans.retain(|orphan| orphan.flight != key);
            let flight = self.flights.remove(key);
            self.losses.unstarted(flight.queue, &flight.delivery);
            return; // the broker redelivers it
        }
        if !matches!(self.phase, Phase::Running) {
            self.give_back(key);
            return;
        }
        flight.state = State::Waiting;
        flight.cancelled = None;
        let (lane, queue) = (flight.lane, flight.queue);
        let retired = self.lanes.all.get(&lane).is_none_or(|lane| lane.retired);
        if retired {
            self.reroute(key);
            return;
        }
        debug_assert!(Rc::strong_count(&flight.delivery) == 1, "only a settling flight shares its delivery");
        if let Some(hold) = self.hold_of(lane) {
            let flight = self.flights.remove(key);
            return self.park(flight, &hold.why, hold.left);
        }
        self.wait_in(lane, queue, key, true);
    }
}

/// For a handler that failed and said nothing.
fn unexplained(cancelled: Option<CancelCause>) -> TaskError {
    let (code, message) = match cancelled {
        Some(CancelCause::Timeout) => ("timeout", "stopped at its time limit"),
        _ => ("no-error-given", "the handler gave no reason"),
    };
    TaskError { code: code.to_owned(), message: message.to_owned(), retry_after: None }
}
