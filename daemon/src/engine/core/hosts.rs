//! What plugin hosts report: ready, outcomes, output, and every way a host can end.

use std::sync::Arc;
use std::time::Duration;

use crate::host::{Bound, Exit, HostEvent, HostId, HostStage, Report, Seq};
use crate::model::{CancelCause, Outcome, TaskError};
use crate::telemetry::TaskRef;

use super::charge::{Charge, UNREPORTED_ENDS};
use super::entry::{EntryStage, Ownership};
use super::keys::{EntryKey, PoolKey};
use super::pools::{Freed, Given, Worker};
use super::{Action, Core, Turn};

impl Core {
    /// Whether the resident memory of a host is of interest when it reports.
    pub(crate) fn watches_rss(&self, host: HostId) -> bool {
        let pool = self.pools.worker(host).and_then(|worker| self.pools.get(worker.pool));
        pool.is_some_and(|pool| pool.generation.limits.max_rss > 0)
    }

    pub(super) fn on_host(&mut self, id: HostId, event: HostEvent, rss: Option<u64>, turn: &mut Turn<'_>) {
        match event {
            HostEvent::Report(report) => self.on_report(id, *report, rss, turn),
            HostEvent::Withdrawn { seq } => self.on_withdrawn(id, seq, rss, turn),
            HostEvent::Ready => {
                self.pools.ready(id, turn.now.instant);
                self.machine_fault = None;
            }
            HostEvent::Exited(exit) => self.on_exited(id, &exit, turn),
            HostEvent::Progress { seq, permille, note } => {
                if let Some(key) = self.entry_at(id, seq)
                    && let Some(sent) = self.in_flight[key].sent_mut()
                {
                    sent.progress = Some((permille, note));
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

    /// A recalled task came back unstarted: another worker can take it.
    fn on_withdrawn(&mut self, id: HostId, seq: Seq, rss: Option<u64>, turn: &mut Turn<'_>) {
        let Some(given) = self.pools.worker_mut(id).and_then(|worker| worker.take(seq, turn.now.instant))
        else {
            return;
        };
        self.run_ended(given, Duration::ZERO);
        self.free(id, rss, turn);
        let cancelled = self.cancelled(given.entry);
        if cancelled.is_some() {
            self.conclude(
                given.entry,
                Report::without_result(seq, Outcome::Cancelled, None),
                cancelled,
                turn,
            );
        } else {
            self.put_back(given.entry, turn);
        }
    }

    /// A task has left a worker.
    pub(super) fn free(&mut self, id: HostId, rss: Option<u64>, turn: &mut Turn<'_>) {
        if self.pools.freed(id, rss, turn.now.instant) == Freed::Quits {
            turn.act(Action::QuitHost(id));
        }
    }

    /// A host is gone: whoever answers for its end is charged, and its tasks are settled or go back.
    fn on_exited(&mut self, id: HostId, exit: &Exit, turn: &mut Turn<'_>) {
        let Some(worker) = self.pools.ended(id) else { return };
        let Some(pool) = self.pools.get(worker.pool) else { return };
        let charge = Charge::of(exit);
        let handler = pool.handler;
        if charge != Charge::Nobody {
            let (handler, generation, why) = (&pool.generation.handler, worker.pool, &exit.why);
            tracing::warn!(%handler, generation, stage = ?exit.stage, %why, "plugin host died");
        }
        // The task whose attempt this end is.
        let mut charged: Option<Seq> = None;
        match charge {
            Charge::Nobody => {}
            Charge::Runner => charged = Some(exit.started),
            Charge::Machine => self.machine_fails(worker.pool, exit, turn),
            Charge::Handler => self.handler_answers(worker.pool, None, exit, turn),
            Charge::Freed => {
                let message = format!("its plugin host died while the handler was freed: {}", exit.why);
                let handler = &mut self.handlers[handler];
                handler.last_error = Some(message.clone());
                self.errors.add(turn.now.unix, Some(&handler.name), None, &message);
            }
            Charge::Front => {
                if let Some(front) = front_of(&worker, exit) {
                    if self.is_charged(front.entry) {
                        charged = Some(front.seq);
                    } else {
                        let victim = self.in_flight[front.entry].id.text.clone();
                        self.handler_answers(worker.pool, Some(&victim), exit, turn);
                    }
                }
            }
        }
        self.settle_tasks_of_dead_host(&worker, exit, charged, turn);
    }

    /// No host can be started, and the plugin has no part in that.
    fn machine_fails(&mut self, pool: PoolKey, exit: &Exit, turn: &Turn<'_>) {
        let Some(pool) = self.pools.get_mut(pool) else { return };
        pool.start_failed(turn.now.instant);
        let message = format!("no plugin host can be started here: {}", reason_of(exit));
        tracing::error!(handler = %pool.generation.handler, error = %message, "cannot start a plugin host: the machine lacks a resource; retrying");
        self.handlers[pool.handler].last_error = Some(message.clone());
        self.errors.add(turn.now.unix, None, None, &message);
        self.machine_fault = Some(message);
    }

    /// A host died of something that no task can be blamed for yet. `victim`: the task that it was reading.
    fn handler_answers(&mut self, key: PoolKey, victim: Option<&Arc<str>>, exit: &Exit, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let Some(pool) = self.pools.get_mut(key) else { return };
        let message = match exit.stage {
            HostStage::Creating => format!("its plugin host did not start: {}", reason_of(exit)),
            HostStage::Idle => format!("its plugin host died while it had no task: {}", exit.why),
            _ => format!("its plugin host died before it could run or report a task: {}", exit.why),
        };
        if exit.stage == HostStage::Creating {
            pool.start_failed(now);
        } else {
            pool.pause_starts(now);
        }
        let handler_key = pool.handler;
        let handler = &mut self.handlers[handler_key];
        tracing::error!(handler = %handler.name, generation = key, error = %message, "handler failing; trying again");
        handler.last_error = Some(message.clone());
        let suspended = !pool.retired && handler.health.host_died(victim, &message, now);
        self.errors.add(turn.now.unix, Some(&handler.name), victim.map(|id| &**id), &message);
        if suspended {
            self.park_waiting(handler_key, turn);
        }
    }

    /// Counts that a host ended with this task in front and not reported. Whether that is its attempt.
    fn is_charged(&mut self, key: EntryKey) -> bool {
        // A task of a handler on trial would be parked, and its count forgotten.
        let on_trial = self.flow_of(key).is_some_and(|flow| self.handlers[flow.handler].health.is_on_trial());
        let is_cancelled = self.cancelled(key).is_some();
        let entry = &mut self.in_flight[key];
        entry.unreported_ends += 1;
        entry.unreported_ends >= UNREPORTED_ENDS || on_trial || is_cancelled
    }

    fn settle_tasks_of_dead_host(
        &mut self,
        worker: &Worker,
        exit: &Exit,
        charged: Option<Seq>,
        turn: &mut Turn<'_>,
    ) {
        let head = worker.head().map(|head| head.seq);
        let ran_head = turn.now.instant.saturating_duration_since(worker.head_since);
        // Backwards, so that what returns to the front of its list keeps its order.
        for given in worker.given().rev() {
            let cancelled = self.cancelled(given.entry);
            let ran = if head == Some(given.seq) { ran_head } else { Duration::ZERO };
            self.run_ended(given, ran);
            if exit.done_unreported.contains(&given.seq) {
                let report = Report::without_result(given.seq, Outcome::Done, None);
                self.conclude(given.entry, report, cancelled, turn);
            } else if charged == Some(given.seq) {
                let outcome = match cancelled {
                    Some(_) => Outcome::Cancelled,
                    None => Outcome::Fault(exit.cause()),
                };
                let error = Some(death_error(cancelled, exit));
                let report =
                    Report { duration: ran_head, ..Report::without_result(given.seq, outcome, error) };
                self.conclude(given.entry, report, cancelled, turn);
            } else if cancelled == Some(CancelCause::Operator) {
                let report = Report::without_result(given.seq, Outcome::Cancelled, None);
                self.conclude(given.entry, report, cancelled, turn);
            } else {
                self.put_back(given.entry, turn);
            }
        }
    }

    /// Why a task that a host has was asked to stop, if it was.
    pub(super) fn cancelled(&self, key: EntryKey) -> Option<CancelCause> {
        self.in_flight[key].sent()?.cancelled
    }

    fn entry_at(&self, id: HostId, seq: Seq) -> Option<EntryKey> {
        self.pools.worker(id)?.entry_of(seq)
    }

    /// The task that a host's line is about, or at least its handler.
    fn log_context(&self, id: HostId, seq: Seq) -> TaskRef<'_> {
        if let Some(key) = self.entry_at(id, seq) {
            return self.task_ref(key);
        }
        let pool = self.pools.worker(id).and_then(|worker| self.pools.get(worker.pool));
        TaskRef { generation: pool.map(|pool| &pool.generation), ..TaskRef::default() }
    }

    /// A task as the log names it.
    pub(super) fn task_ref(&self, key: EntryKey) -> TaskRef<'_> {
        let entry = &self.in_flight[key];
        let pool = self.pool_of(entry);
        TaskRef {
            id: &entry.id.text,
            queue: Some(&self.queues[entry.queue].config.name),
            generation: pool.map(|pool| &pool.generation),
            attempt: entry.attempt,
            headers: entry.delivery.properties.headers().as_ref(),
        }
    }

    /// A task that a host never started waits again, in the place of its delivery. Its attempt is not counted.
    pub(super) fn put_back(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        self.in_flight[key].stage = EntryStage::Arrived;
        let entry = &self.in_flight[key];
        if let Ownership::Detached(_) = entry.ownership {
            let entry = self.in_flight.remove(key);
            self.losses.unstarted(entry.queue, &entry.delivery);
            return; // the broker redelivers it
        }
        if !self.is_running() {
            return self.give_back(key, turn);
        }
        let pool = entry.pool().filter(|pool| self.pools.get(*pool).is_some_and(|pool| !pool.retired));
        let (Some(pool), Some(flow)) = (pool, self.flow_of(key)) else { return self.reroute(key, turn) };
        if let Some(pause) = self.pause_of(flow.handler, turn) {
            return self.park(key, &pause.why, pause.left, turn);
        }
        self.scheduler.add(flow, pool, self.in_flight[key].task(key));
        self.in_flight[key].stage = EntryStage::Waiting;
    }
}

fn death_error(cancelled: Option<CancelCause>, exit: &Exit) -> TaskError {
    match cancelled {
        Some(CancelCause::Timeout) => {
            TaskError::new("timeout", "the handler did not stop at its time limit and was killed")
        }
        Some(CancelCause::Drain | CancelCause::Operator) => {
            let message = format!("the handler did not stop when asked and was killed ({})", exit.why);
            TaskError::new("killed", message)
        }
        None if exit.over == Some(Bound::CpuTime) => TaskError::new("cpu_time", exit.why.clone()),
        None => {
            let when = match exit.stage {
                HostStage::Reading => " while it read the task",
                HostStage::Reporting => " before it reported the task",
                _ => "",
            };
            TaskError::new("crash", format!("the plugin host died{when}: {}", exit.why))
        }
    }
}

/// The task that a host was about to start, or had ended and not reported.
fn front_of(worker: &Worker, exit: &Exit) -> Option<Given> {
    worker.given().find(|given| !exit.done_unreported.contains(&given.seq))
}

/// Why a host did not start.
fn reason_of(exit: &Exit) -> &str {
    exit.create_error.as_ref().map_or(&exit.why, |error| &error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_host_is_told_by_why_it_was_to_end_and_by_what_it_was_at() {
        let exit = |stage, over| Exit {
            stage,
            orderly: false,
            why: "signal 9".to_owned(),
            create_error: None,
            started: 1,
            done_unreported: Vec::new(),
            ended: 0,
            over,
        };
        let running = || exit(HostStage::Running, None);
        let table = [
            (Some(CancelCause::Timeout), running(), "timeout", "its time limit"),
            (Some(CancelCause::Operator), running(), "killed", "when asked"),
            (Some(CancelCause::Drain), running(), "killed", "when asked"),
            (None, exit(HostStage::Running, Some(Bound::CpuTime)), "cpu_time", "signal 9"),
            (None, running(), "crash", "host died: signal 9"),
            (None, exit(HostStage::Reading, None), "crash", "while it read the task: signal 9"),
            (None, exit(HostStage::Reporting, None), "crash", "before it reported the task: signal 9"),
        ];
        for (cancelled, exit, code, message) in table {
            let error = death_error(cancelled, &exit);
            assert_eq!(error.code, code, "{cancelled:?}, {:?}", exit.stage);
            assert!(error.message.contains(message), "{}", error.message);
        }
    }
}
