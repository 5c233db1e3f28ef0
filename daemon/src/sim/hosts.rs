//! A model of plugin hosts: each starts, runs one task after another, reports, and ends in any way and at any time.

use std::collections::VecDeque;
use std::time::Duration;

use super::agenda::{AgendaItem, HostStep};
use super::broker::{HandKey, Uid};
use super::choice::For;
use super::fault::Fault;
use super::handler::{Does, Run, is_plain};
use super::world::World;
use crate::host::{Bound, Exit, HostEvent, HostId, HostStage, Report, Seq};
use crate::model::{FaultCause, Outcome, TaskError};

/// A plugin host.
#[derive(Debug)]
pub(super) struct HostModel {
    pub(super) generation: u64,
    pub(super) handler: usize,
    is_created: bool,
    /// The daemon knows that it takes tasks.
    pub(super) is_ready: bool,
    pub(super) is_quitting: bool,
    pub(super) is_dead: bool,
    /// A fault was returned: what waits is reported without a start.
    is_spoiled: bool,
    waiting: VecDeque<Waiting>,
    running: Option<Run>,
    started: Seq,
    ended: Seq,
    /// Ended and not yet sent.
    unsent: Vec<Report>,
    /// What the daemon gave it and was told nothing of since, in order: its own account.
    pub(super) given: Vec<(Seq, HandKey)>,
    /// Since when the daemon knows the first of them to run.
    pub(super) head_since: Duration,
    /// When the daemon asked the first of them to stop, and whether it had the host killed.
    pub(super) asked_at: Option<Duration>,
    pub(super) is_killed: bool,
    /// The daemon told it to end.
    pub(super) is_leaving: bool,
    /// Reported by it that a fault was returned.
    pub(super) told_fault: bool,
    pub(super) tasks: u64,
    /// When the last of what it sent arrives.
    to_daemon: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    seq: Seq,
    message: Uid,
    is_cancelled: bool,
}

impl HostModel {
    pub(super) fn new(generation: u64, handler: usize) -> Self {
        Self {
            generation,
            handler,
            is_created: false,
            is_ready: false,
            is_quitting: false,
            is_dead: false,
            is_spoiled: false,
            waiting: VecDeque::new(),
            running: None,
            started: 0,
            ended: 0,
            unsent: Vec::new(),
            given: Vec::new(),
            head_since: Duration::ZERO,
            asked_at: None,
            is_killed: false,
            is_leaving: false,
            told_fault: false,
            tasks: 0,
            to_daemon: Duration::ZERO,
        }
    }

    /// Whether it had started a task.
    pub(super) fn has_started(&self, seq: Seq) -> bool {
        self.started >= seq
    }

    /// How far it is, as its exit says.
    fn stage(&self) -> HostStage {
        let owes_report = self.unsent.iter().any(|report| !is_plain(report));
        match () {
            () if !self.is_created => HostStage::Creating,
            () if self.running.is_some() => HostStage::Running,
            () if owes_report => HostStage::Reporting,
            () if !self.waiting.is_empty() => HostStage::Reading,
            () if self.is_quitting => HostStage::Quitting,
            () => HostStage::Idle,
        }
    }
}

impl World {
    fn host(&mut self, id: HostId) -> Option<&mut HostModel> {
        self.daemon.as_mut()?.hosts.get_mut(&id).filter(|host| !host.is_dead)
    }

    pub(super) fn later(&mut self, id: HostId, after: Duration, step: HostStep) {
        let daemon = self.incarnation;
        self.agenda.add(self.now + after, AgendaItem::Host { daemon, host: id, step });
    }

    /// A host is started.
    pub(super) fn start_host(&mut self, id: HostId, generation: u64, handler: usize, limit: Duration) {
        let now = self.now;
        if let Some(daemon) = &mut self.daemon {
            daemon.hosts.insert(id, HostModel::new(generation, handler));
            daemon.last_start[handler] = now;
        }
        if self.is_machine_short {
            self.fault(Fault::MachineShort);
            return self.end_host(id, Some(HostStage::Spawning), "fork: too many open files", None);
        }
        let (a, b) = (self.incarnation, id.0);
        if self.strikes(Fault::CreateFailed, a, b) {
            return self.later(id, Duration::from_millis(2), HostStep::CreateFails);
        }
        let mut takes =
            self.choices.span(Duration::from_micros(100), Duration::from_millis(8), For::HostStart, a, b);
        if self.strikes(Fault::SlowStart, a, b) {
            takes = self.choices.span(takes, limit / 2, For::HostStart, a, b);
        }
        self.later(id, takes, HostStep::Created);
    }

    /// A task is written to a host.
    pub(super) fn give_to_host(&mut self, id: HostId, seq: Seq, message: Uid) {
        if let Some(host) = self.host(id) {
            host.waiting.push_back(Waiting { seq, message, is_cancelled: false });
            self.advance_host(id);
        }
    }

    /// What is written on the socket to a host arrives there.
    pub(super) fn on_host_step(&mut self, id: HostId, step: HostStep) {
        let Some(host) = self.host(id) else { return };
        match step {
            HostStep::Created => {
                host.is_created = true;
                self.tell_of_host(id, HostEvent::Ready);
                self.advance_host(id);
            }
            HostStep::CreateFails => {
                let error = TaskError::new("create", "no such database");
                self.end_host(id, None, "create failed", Some(error));
            }
            HostStep::RunEnds(seq) => {
                if host.running.as_ref().is_some_and(|run| run.seq == seq) {
                    self.end_run(id);
                }
            }
            HostStep::TimeIsUp(seq) => self.stop_run(id, seq, true),
            HostStep::Cancel(seq) => {
                if let Some(waiting) = host.waiting.iter_mut().find(|waiting| waiting.seq == seq) {
                    waiting.is_cancelled = true;
                } else {
                    self.stop_run(id, seq, false);
                }
            }
            HostStep::Recall(seq) => self.recall_from_host(id, seq),
            HostStep::Report => self.send_reports(id),
            HostStep::Quit => {
                host.is_quitting = true;
                self.advance_host(id);
            }
            HostStep::DieIdle(seq) => {
                if host.is_created && host.running.is_none() && host.started == seq && host.waiting.is_empty()
                {
                    self.fault(Fault::DiedIdle);
                    self.end_host(id, None, "signal 9 (SIGKILL)", None);
                }
            }
            HostStep::Kill => self.end_host(id, None, "signal 9 (SIGKILL)", None),
        }
    }

    fn recall_from_host(&mut self, id: HostId, seq: Seq) {
        let is_late = !self.is_quiet && self.plan.has(Fault::RecallLate, id.0, seq);
        let Some(host) = self.host(id) else { return };
        let at = host.waiting.iter().position(|waiting| waiting.seq == seq);
        match at.filter(|_| !is_late) {
            Some(at) => {
                host.waiting.remove(at);
                self.tell_of_host(id, HostEvent::Withdrawn { seq });
            }
            None => self.fault(Fault::RecallLate),
        }
    }

    /// The host takes the next step that is up to itself: starts a task, or ends.
    fn advance_host(&mut self, id: HostId) {
        let incarnation = self.incarnation;
        loop {
            let Some(host) = self.host(id).filter(|host| host.is_created && host.running.is_none()) else {
                return;
            };
            let Some(next) = host.waiting.front().copied() else { break };
            if next.is_cancelled || host.is_spoiled {
                host.waiting.pop_front();
                host.started = next.seq;
                host.ended = next.seq;
                host.unsent.push(Report::without_result(next.seq, Outcome::Cancelled, None));
                self.later(id, Duration::ZERO, HostStep::Report);
                continue;
            }
            if self.strikes(Fault::DiedReading, incarnation << 32 | id.0, next.seq) {
                return self.end_host(id, None, "signal 6 (SIGABRT)", None);
            }
            if let Some(host) = self.host(id) {
                host.waiting.pop_front();
                host.started = next.seq;
            }
            return self.start_run(id, next.seq, next.message);
        }
        let Some(host) = self.host(id) else { return };
        if host.is_quitting {
            let slow = self.strikes(Fault::SlowQuit, incarnation, id.0);
            self.send_reports(id);
            if slow {
                // Its supervisor kills it at its `grace`.
                return self.later(id, Duration::from_millis(100), HostStep::Kill);
            }
            return self.end_host(id, None, "exit status 0", None);
        }
        let seq = host.started;
        if !self.is_quiet && self.plan.has(Fault::DiedIdle, incarnation << 32 | id.0, seq) {
            let after = self.choices.span(Duration::ZERO, Duration::from_millis(20), For::Lost, id.0, seq);
            self.later(id, after, HostStep::DieIdle(seq));
        }
    }

    fn start_run(&mut self, id: HostId, seq: Seq, message: Uid) {
        self.count_start(id, message);
        let Some(host) = self.host(id) else { return };
        let (handler, generation) = (host.handler, host.generation);
        let run = self.run_of(handler, seq, message);
        let timeout = self.timeout_of(generation);
        let (takes, does) = (run.takes, run.does);
        if let Some(host) = self.host(id) {
            host.running = Some(run);
        }
        if !matches!(does, Does::Hang) {
            self.later(id, takes, HostStep::RunEnds(seq));
        }
        self.later(id, timeout, HostStep::TimeIsUp(seq));
    }

    /// The running task is asked to stop, by the host's own clock or by the daemon.
    fn stop_run(&mut self, id: HostId, seq: Seq, is_timeout: bool) {
        let Some(run) = self.host(id).and_then(|host| host.running.as_mut()) else { return };
        if run.seq != seq {
            return;
        }
        if run.ignores_cancel {
            return self.fault(Fault::CancelIgnored);
        }
        run.does = Does::Stops { is_timeout };
        if is_timeout {
            self.fault(Fault::TimedOut);
        }
        self.later(id, Duration::from_micros(50), HostStep::RunEnds(seq));
    }

    fn end_run(&mut self, id: HostId) {
        let (incarnation, now) = (self.incarnation, self.now);
        let Some(run) = self.host(id).and_then(|host| host.running.take()) else { return };
        if let Does::Die { cpu_time } = run.does {
            if let Some(host) = self.host(id) {
                host.running = Some(run);
            }
            self.fault(Fault::DiedRunning);
            let over = cpu_time.then_some(Bound::CpuTime);
            return self.end_host_over(id, None, "signal 11 (SIGSEGV)", None, over);
        }
        let report = run.report(now);
        match report.outcome {
            Outcome::Done => {}
            Outcome::Fault(_) => self.fault(Fault::Faulted),
            _ => self.fault(Fault::Failed),
        }
        let Some(host) = self.host(id) else { return };
        host.ended = run.seq;
        host.is_spoiled |=
            matches!(report.outcome, Outcome::Fault(FaultCause::Returned | FaultCause::Contract));
        host.unsent.push(report);
        let is_last = host.waiting.is_empty();
        if self.strikes(Fault::DiedReporting, incarnation << 32 | id.0, run.seq) {
            return self.end_host(id, None, "signal 11 (SIGSEGV)", None);
        }
        // A report may wait behind the task after it.
        let waits = if is_last { Duration::ZERO } else { Duration::from_micros(500) };
        self.later(id, waits, HostStep::Report);
        self.advance_host(id);
    }

    fn send_reports(&mut self, id: HostId) {
        let Some(host) = self.host(id) else { return };
        for report in std::mem::take(&mut host.unsent) {
            self.tell_of_host(id, HostEvent::Report(Box::new(report)));
        }
    }

    fn end_host(&mut self, id: HostId, stage: Option<HostStage>, why: &str, error: Option<TaskError>) {
        self.end_host_over(id, stage, why, error, None);
    }

    /// A host is gone.
    fn end_host_over(
        &mut self,
        id: HostId,
        stage: Option<HostStage>,
        why: &str,
        error: Option<TaskError>,
        over: Option<Bound>,
    ) {
        let Some(host) = self.host(id) else { return };
        let stage = stage.unwrap_or_else(|| host.stage());
        let plain = host.unsent.iter().filter(|report| is_plain(report));
        let exit = Exit {
            stage,
            orderly: stage == HostStage::Quitting && why == "exit status 0",
            why: why.to_owned(),
            create_error: error,
            started: host.started,
            done_unreported: plain.map(|report| report.seq).collect(),
            ended: host.ended,
            over,
        };
        host.is_dead = true;
        self.tell_of_host(id, HostEvent::Exited(exit));
    }

    /// The daemon is told of a host, in the order of the host's own words.
    fn tell_of_host(&mut self, id: HostId, event: HostEvent) {
        let (a, b) = (id.0, self.told_of_hosts);
        self.told_of_hosts += 1;
        let way = self.way(a, b);
        let now = self.now;
        let Some(host) = self.daemon.as_mut().and_then(|daemon| daemon.hosts.get_mut(&id)) else { return };
        host.to_daemon = host.to_daemon.max(now + way);
        let at = host.to_daemon;
        self.tell_at(at, crate::engine::core::Event::Host { host: id, event, rss: None });
    }
}
