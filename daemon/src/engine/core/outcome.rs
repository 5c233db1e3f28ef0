//! Outcomes come in: what an outcome means is decided in [`crate::settlement`]; here the entry's decision is made of it, and
//! it counts for the health of the handler.

use crate::host::{HostId, Report};
use crate::model::{CancelCause, DeadReason, FaultCause, Outcome, TaskError};
use crate::settlement::{self, Settlement};
use crate::telemetry::Finished;

use super::entry::{Decision, EndedAttempt, EntryStage};
use super::keys::EntryKey;
use super::{Core, Turn};

impl Core {
    /// A host reported the end of a task.
    pub(super) fn on_report(&mut self, id: HostId, report: Report, rss: Option<u64>, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let Some(worker) = self.pools.worker_mut(id) else { return };
        let Some(given) = worker.take(report.seq, now) else {
            tracing::error!(host = id.0, seq = report.seq, "report of a task that was not sent; ignored");
            return;
        };
        worker.tasks += 1;
        if matches!(report.outcome, Outcome::Fault(_)) {
            // After a panic or a broken contract the handler's state is unknown: the next task gets a new host, and
            // this one reports those behind it without starting them.
            worker.spoiled();
        }
        let (pool, is_first) = (worker.pool, worker.tasks == 1);
        self.run_ended(given, report.duration);
        self.free(id, rss, turn);
        let cancelled = self.cancelled(given.entry);
        if given.recalled && report.outcome == Outcome::Cancelled && cancelled.is_none() {
            return self.put_back(given.entry, turn);
        }
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.observe(report.duration);
            if is_first {
                pool.proved();
            }
            self.handlers[pool.handler].durations.observe(report.duration);
        }
        self.conclude(given.entry, report, cancelled, turn);
    }

    /// Decides what an outcome means and starts doing it.
    pub(super) fn conclude(
        &mut self,
        key: EntryKey,
        report: Report,
        cancelled: Option<CancelCause>,
        turn: &mut Turn<'_>,
    ) {
        let Report { outcome, mut error, result, follow_ups, duration, .. } = report;
        let entry = &mut self.in_flight[key];
        entry.stage = EntryStage::Arrived;
        let Some(pool) = entry.pool().and_then(|pool| self.pools.get(pool)) else {
            unreachable!("a pool outlives its tasks");
        };
        if let (Some(CancelCause::Timeout), Outcome::Cancelled, Some(error)) =
            (cancelled, outcome, &mut error)
        {
            // The host's clock and this one watch the same limit: which of them was first is of no interest.
            "timeout".clone_into(&mut error.code);
        }
        let settlement = settlement::settle(
            outcome,
            error.as_ref().and_then(|error| error.retry_after),
            entry.attempt,
            pool.generation.retry(),
            cancelled,
            self.random.f64(),
        );
        let handler = pool.handler;
        if matches!(outcome, Outcome::Fault(_)) {
            self.queues[entry.queue].counts.faults += 1;
            self.handlers[handler].counts.faults += 1;
        }
        let ended = EndedAttempt { outcome, error, duration, cancelled };
        if matches!(settlement, Settlement::Retry { .. } | Settlement::Dead { .. }) {
            self.record_failure(key, ended.error.as_ref(), turn);
        }
        if settlement == Settlement::Ack {
            let publishes = !follow_ups.is_empty() || self.in_flight[key].wants_reply();
            let mut decision = Decision { follow_ups, result, ..Decision::of(settlement) };
            if publishes {
                decision.ended = Some(Box::new(ended));
            } else {
                self.attempt_is_final(key, &ended, settlement, turn);
            }
            return self.carry_out(key, decision, turn);
        }
        let mut decision = Decision::of(settlement);
        decision.error = ended.error.clone().unwrap_or_else(|| unexplained(cancelled));
        decision.interrupted = cancelled.is_some();
        if matches!(settlement, Settlement::Dead { .. }) {
            // Logged when it is a dead letter.
            self.update_health(key, &ended, settlement, turn);
            decision.ended = Some(Box::new(ended));
        } else {
            self.attempt_is_final(key, &ended, settlement, turn);
        }
        self.carry_out(key, decision, turn);
    }

    /// Nothing can change any more what an attempt came to: it is logged, and it counts for the health of its handler.
    pub(super) fn attempt_is_final(
        &mut self,
        key: EntryKey,
        ended: &EndedAttempt,
        settlement: Settlement,
        turn: &mut Turn<'_>,
    ) {
        self.log_finished(key, ended, settlement);
        self.update_health(key, ended, settlement, turn);
    }

    /// What an outcome says of its handler: hosts that keep dying suspend it, failures may let it rest.
    fn update_health(
        &mut self,
        key: EntryKey,
        ended: &EndedAttempt,
        settlement: Settlement,
        turn: &mut Turn<'_>,
    ) {
        let failed = match settlement {
            Settlement::Ack | Settlement::Dead { reason: DeadReason::Rejected } => false,
            Settlement::Retry { .. } | Settlement::Dead { .. } => true,
            // Says something about the drain, not about the handler.
            Settlement::Requeue | Settlement::Park { .. } | Settlement::Recount => return,
        };
        let entry = &self.in_flight[key];
        let Some(pool) = entry.pool().and_then(|pool| self.pools.get(pool)) else { return };
        let (handler, breaker) = (pool.handler, pool.generation.limits.breaker.as_ref());
        let health = &mut self.handlers[handler].health;
        let now = turn.now.instant;
        let is_held = if ended.cancelled.is_some() {
            // Killed at its time limit, or by an operator: that is no sign of a broken plugin.
            health.count(failed, breaker, now)
        } else if ended.outcome == Outcome::Fault(FaultCause::HostDied) {
            let why = ended.error.as_ref().map_or("", |error| &error.message);
            let suspended = health.host_died(Some(&entry.id.text), why, now);
            health.count(failed, breaker, now) || suspended
        } else {
            health.task_ended(failed, breaker, now)
        };
        if is_held {
            self.park_waiting(handler, turn);
        }
    }

    pub(super) fn log_finished(&self, key: EntryKey, ended: &EndedAttempt, settlement: Settlement) {
        let EndedAttempt { outcome, ref error, duration, .. } = *ended;
        self.log
            .finished(self.task_ref(key), Finished { outcome, error: error.as_ref(), settlement, duration });
    }

    /// For `warrenctl status`.
    fn record_failure(&mut self, key: EntryKey, error: Option<&TaskError>, turn: &Turn<'_>) {
        let message =
            error.map_or_else(|| ": ".to_owned(), |error| format!("{}: {}", error.code, error.message));
        let entry = &self.in_flight[key];
        let handler = entry.pool().and_then(|pool| self.pools.get(pool)).map(|pool| pool.handler);
        let Some(handler) = handler.map(|handler| &mut self.handlers[handler]) else { return };
        handler.last_error = Some(message.clone());
        self.errors.add(turn.now.unix, Some(&handler.name), Some(&entry.id.text), &message);
    }
}

/// For a handler that failed and said nothing.
fn unexplained(cancelled: Option<CancelCause>) -> TaskError {
    match cancelled {
        Some(CancelCause::Timeout) => TaskError::new("timeout", "stopped at its time limit"),
        _ => TaskError::new("no-error-given", "the handler gave no reason"),
    }
}
