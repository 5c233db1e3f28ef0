//! Outcomes come in: what they mean is decided in [`crate::settlement`], and carried out here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::copy::{Failure, Grave, RetryCopy};
use crate::broker::{Backoff, Delivery, PublishError, Publisher};
use crate::config;
use crate::control::api::RecentError;
use crate::failpoint::failpoint;
use crate::host::{FollowUp, HostId, Outcome, Report, TaskError};
use crate::settlement::{self, CancelCause, DeadReason, Settlement};
use crate::task::TaskId;
use crate::telemetry::Finished;

use super::drain::Phase;
use super::flight::{Claim, Flight, FlightKey, State, Verdict};
use super::{Engine, Event};

/// The shortest pause before a copy that the broker refused is tried again; the backoff's dice may say none at all.
const COPY_REFUSED: Duration = Duration::from_millis(100);

/// What the future that publishes a copy needs of its flight.
struct Copied {
    publisher: Publisher,
    delivery: Rc<Delivery>,
    queue: Arc<config::Queue>,
    handler: Option<Arc<str>>,
    id: TaskId,
    attempt: u32,
    redeliveries: u32,
    error: TaskError,
}

/// Where a copy that is to run again differs from its original.
#[derive(Clone, Copy)]
struct Again {
    delay: Duration,
    attempt: u32,
    redeliveries: u32,
    /// It failed; else what failed before stays on record.
    failed: bool,
}

impl Copied {
    fn failure(&self) -> Failure<'_> {
        Failure {
            handler: self.handler.as_deref().unwrap_or_default(),
            code: &self.error.code,
            message: &self.error.message,
        }
    }
}

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
        if report.outcome == Outcome::Fault {
            // After a panic or a broken contract the handler's state is unknown: the next task gets a new host, and
            // this one reports those behind it without starting them.
            slot.leaving = true;
            slot.sent.iter_mut().for_each(|queued| queued.recalled = true);
        }
        let lane = slot.lane;
        self.host_freed(id);
        // One that had started was out of reach of the recall: then only its time limit can have cancelled it.
        let recalled = sent.recalled && report.outcome == Outcome::Cancelled && !is_timeout(&report);
        if recalled && self.flights[sent.flight].cancelled.is_none() {
            self.give_back_to_lane(sent.flight);
            return;
        }
        if let Some(lane) = self.lanes.all.get_mut(&lane) {
            lane.observe(report.duration);
        }
        self.conclude(sent.flight, report);
    }

    /// Decides what an outcome means and starts doing it.
    pub(super) fn conclude(&mut self, key: FlightKey, report: Report) {
        let flight = &mut self.flights[key];
        flight.state = State::Settling;
        let Some(lane) = self.lanes.all.get_mut(&flight.lane) else {
            unreachable!("a lane outlives its flights");
        };
        let generation = lane.generation.clone();
        let cancelled = flight.cancelled;
        let ruling = settlement::settle(
            &report.outcome,
            report.error.as_ref(),
            flight.attempt,
            generation.retry(),
            cancelled,
            fastrand::f64(),
        );
        if report.outcome == Outcome::Fault {
            lane.totals.borrow_mut().counts.faults += 1;
            self.queues[flight.queue].counts.faults += 1;
        }
        self.log_outcome(key, &report, ruling);
        self.judge_handler(key, &report, ruling);
        let follow_ups = match ruling {
            Settlement::Ack => report.follow_ups,
            _ => Vec::new(),
        };
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
        let died = report.error.as_ref().filter(|error| error.code == settlement::CODE_CRASH);
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
        let flight = &mut self.flights[key];
        let Claim::Held(consumer, tag) = flight.claim else {
            flight.state = State::Finished(Box::new(verdict));
            return;
        };
        flight.state = State::Settling;
        match verdict.settlement {
            Settlement::Ack if verdict.follow_ups.is_empty() => {
                self.count(key, |counts| counts.done += 1);
                failpoint!("settle::before-ack");
                self.link.ack(consumer, tag);
                self.flights.remove(key);
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
                self.publish_follow_ups(key, verdict.follow_ups);
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

    fn publish_again(&self, key: FlightKey, again: Again, error: TaskError) {
        let copy = self.copy_of(key, error);
        self.spawn_copy(key, async move || {
            let retry = RetryCopy {
                delay: again.delay,
                attempt: again.attempt,
                redeliveries: again.redeliveries,
                id: &copy.id,
                failure: again.failed.then(|| copy.failure()),
            };
            copy.publisher.retry(&copy.queue, &copy.delivery, retry).await
        });
    }

    fn publish_dead(&self, key: FlightKey, reason: settlement::DeadReason, error: TaskError) {
        let copy = self.copy_of(key, error);
        self.spawn_copy(key, async move || {
            let grave = Grave {
                reason,
                attempt: copy.attempt,
                redeliveries: copy.redeliveries,
                id: &copy.id,
                failure: copy.failure(),
            };
            copy.publisher.dead(&copy.queue, &copy.delivery, grave).await
        });
    }

    fn copy_of(&self, key: FlightKey, error: TaskError) -> Copied {
        let flight = &self.flights[key];
        Copied {
            publisher: self.publisher.clone(),
            delivery: flight.delivery.clone(),
            queue: self.queues[flight.queue].config.clone(),
            handler: self.lanes.all.get(&flight.lane).map(|lane| lane.generation.handler.clone()),
            id: flight.id.clone(),
            attempt: flight.attempt,
            redeliveries: flight.redeliveries,
            error,
        }
    }

    /// Publishes a copy until the broker took it; the original stays unacknowledged until then.
    fn spawn_copy(&self, key: FlightKey, publish: impl AsyncFn() -> Result<(), PublishError> + 'static) {
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            failpoint!("settle::before-copy");
            let mut backoff = Backoff::default();
            while let Err(error) = publish().await {
                if matches!(error, PublishError::Closed) {
                    return; // the daemon ends: the broker redelivers the original
                }
                let _ = sender.send(Event::CopyRefused(key, error.to_string()));
                tokio::time::sleep(backoff.failed().max(COPY_REFUSED)).await;
            }
            failpoint!("settle::after-copy");
            let _ = sender.send(Event::Copied(key, Ok(())));
        });
    }

    /// A copy cannot be published at the moment. It is tried again, without limit.
    pub(super) fn on_copy_refused(&mut self, key: FlightKey, why: &str) {
        let flight = &self.flights[key];
        let id = flight.id.text.clone();
        tracing::error!(task_id = %id, error = why, "a copy cannot be published; the task stays unacknowledged, trying again");
        let handler = self.lanes.all.get(&flight.lane).map(|lane| lane.generation.handler.clone());
        self.remember(handler.as_deref(), Some(&id), why);
    }

    /// Follow-ups in order, each confirmed before the next. One that the broker refuses fails the task.
    fn publish_follow_ups(&self, key: FlightKey, follow_ups: Vec<FollowUp>) {
        let flight = &self.flights[key];
        let publisher = self.publisher.clone();
        let (id, queue) = (flight.id.text.clone(), self.queues[flight.queue].config.clone());
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            let mut result = Ok(());
            for (n, follow_up) in follow_ups.into_iter().enumerate() {
                failpoint!("settle::before-copy");
                result = publisher.follow_up(&queue, &id, n + 1, &follow_up).await;
                if result.is_err() {
                    break;
                }
                failpoint!("settle::after-copy");
            }
            let _ = sender.send(Event::Copied(key, result));
        });
    }

    /// The copies of a flight are confirmed: now, and only now, the original is acknowledged.
    pub(super) fn on_copied(&mut self, key: FlightKey, result: Result<(), PublishError>) {
        let flight = &mut self.flights[key];
        if let Err(error) = result {
            let message = format!("a follow-up task was refused: {error}");
            let error = Some(TaskError { code: "publish-failed".to_owned(), message, retry_after: None });
            self.count(key, |counts| counts.done -= 1);
            let report = Report {
                seq: 0,
                outcome: Outcome::Retry,
                error,
                result: None,
                follow_ups: Vec::new(),
                duration: Duration::ZERO,
            };
            self.conclude(key, report);
            return;
        }
        match flight.claim {
            Claim::Held(consumer, tag) => {
                failpoint!("settle::before-ack");
                self.link.ack(consumer, tag);
                self.flights.remove(key);
            }
            // The copy exists, so the original's redelivery only needs its ack.
            Claim::Orphan(_) => {
                let error = TaskError::default();
                let verdict = Verdict { settlement: Settlement::Ack, error, follow_ups: Vec::new() };
                flight.state = State::Finished(Box::new(verdict));
            }
        }
    }

    /// Counts for the flight's queue and handler.
    fn count(&mut self, key: FlightKey, add: impl Fn(&mut crate::control::api::Counts)) {
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
                outcome: &report.outcome,
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
            self.orphans.retain(|orphan| *orphan != key);
            self.flights.remove(key);
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
        Some(CancelCause::Timeout) => (settlement::CODE_TIMEOUT, "stopped at its time limit"),
        _ => ("no-error-given", "the handler gave no reason"),
    };
    TaskError { code: code.to_owned(), message: message.to_owned(), retry_after: None }
}

fn is_timeout(report: &Report) -> bool {
    report.error.as_ref().is_some_and(|error| error.code == settlement::CODE_TIMEOUT)
}
