//! The child side: a process that loads exactly one plugin and runs one task at a time.
//!
//! Two threads. The main one reads tasks and makes every call into the plugin; the control one (`control`)
//! waits for cancels and for its timer, runs no plugin code, and takes no part in a task that neither takes
//! long nor is cancelled.
//!
//! What a handler may rely on besides the ABI: `SIGPIPE` is ignored (as in every Rust program; writing to a
//! child that ended is an error, not a death), every other signal has its default disposition, standard input
//! is `/dev/null`, standard output is line-buffered and goes to the log. After each task every process that
//! the plugin started, in whatever way and whenever, is killed: a helper process does not outlive the task
//! that it was started for.
#![allow(unsafe_code)] // Plugin code is loaded and called here, and nowhere else.

mod call;
mod control;
mod gate;
mod input;
mod outbox;
mod plugin;
mod ring_page;
mod rlimits;
mod setup;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use warren_plugin::hosting::{Phase, StopReason};

use self::call::Sinks;
use self::gate::{Begin, Gate};
use self::input::{HostRequest, RequestReader};
use self::outbox::Outbox;
use self::plugin::Plugin;
use self::ring_page::RingPage;
use self::rlimits::CpuBound;
use super::Seq;
use super::budget::{LeftOut, LogBudgets};
use super::descendants;
use super::frame::{Init, ReportFrame, TaskFrame, from_host, log_bytes, put_error, put_frame, put_log};
use crate::model::{Outcome, TaskError};

/// When the arguments say that this process is a plugin host, runs it and never returns. The first statement
/// of every `main` whose executable spawns hosts: until here nothing may have been printed, opened or
/// started.
pub fn run_if_host() {
    if setup::is_host() {
        let code = run();
        setup::exit(code);
    }
}

/// What the sinks (from any thread), the control thread and the main thread share; lives as long as the
/// process.
struct Shared {
    gate: Gate,
    outbox: Outbox,
    sinks: Sinks,
    logs: Mutex<LogBudgets>,
}

impl Shared {
    /// Sends a line that the plugin logs, within the bounds of the running task. Whether it was sent.
    fn send_log<T: AsRef<str>>(&self, level: i32, message: &str, fields: &[(T, T)]) -> bool {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = self.gate.running();
        let line = (seq, level, log_bytes(message, fields));
        let passes = logs.admit(line, Instant::now(), |seq, level, left| self.log_left_out(seq, level, left));
        if passes {
            self.outbox.append(|out| put_log(out, seq, level, message, fields));
        }
        passes
    }

    /// Logs how much of a task's log was left out.
    fn log_left_out(&self, seq: Seq, level: i32, left_out: LeftOut) {
        self.outbox.append(|out| put_log::<&str>(out, seq, level, &left_out.message(), &[]));
    }

    /// The running task has ended.
    fn settle_logs(&self) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.settle(|seq, level, left| self.log_left_out(seq, level, left));
    }
}

/// Exit status of a host that could not load or create its plugin, having said why.
const EXIT_CREATE_FAILED: i32 = 1;
/// Exit status of a host whose daemon is gone or does not speak this protocol.
const EXIT_PROTOCOL: i32 = 2;
/// Exit status of a host that could not kill what its handler left behind.
const EXIT_STRAYS: i32 = 3;

fn run() -> i32 {
    let (channel, init) = match setup::prepare() {
        Ok(prepared) => prepared,
        Err(error) => return unusable(setup::socket_of_a_new_host(), &error),
    };
    let setup::Channel { socket, plugin: library, ring, control, input } = channel;
    let shared = match share(socket, &init) {
        Ok(shared) => shared,
        Err((socket, error)) => return unusable(socket, &error),
    };
    let failed = |kind, error: &TaskError| {
        shared.outbox.append(|out| put_frame(out, kind, |out| put_error(out, error)));
        shared.outbox.flush();
        EXIT_CREATE_FAILED
    };
    let control: &OwnedFd = Box::leak(Box::new(control));
    let ring_page = match attend(shared, &ring, control) {
        Ok(ring_page) => ring_page,
        Err(error) => return failed(from_host::SETUP_FAILED, &setup_failed(&error)),
    };
    match start(shared, &init, library, control) {
        Ok(plugin) => {
            shared.outbox.append(|out| put_frame(out, from_host::READY, |_| {}));
            shared.outbox.flush();
            let cpu = CpuBound::new(init.cpu_time);
            TaskLoop { shared, plugin, ring_page, cpu, grace: init.grace, spoiled: false }.serve(input)
        }
        Err(error) => failed(from_host::CREATE_FAILED, &error),
    }
}

/// Tells the daemon that no host can be made here, which is not the plugin's doing: the machine is short of something.
fn unusable(socket: OwnedFd, error: &io::Error) -> i32 {
    let outbox = Outbox::new(socket);
    outbox.append(|out| put_frame(out, from_host::SETUP_FAILED, |out| put_error(out, &setup_failed(error))));
    outbox.flush();
    EXIT_CREATE_FAILED
}

fn setup_failed(error: &io::Error) -> TaskError {
    let message = format!("a plugin host could not be set up: {error}");
    TaskError { code: "host".into(), message, retry_after: None }
}

fn share(socket: OwnedFd, init: &Init) -> Result<&'static Shared, (OwnedFd, io::Error)> {
    match Gate::new() {
        Ok(gate) => Ok(Box::leak(Box::new(Shared {
            gate,
            outbox: Outbox::new(socket),
            sinks: Sinks::default(),
            logs: Mutex::new(LogBudgets::new(init.output, Instant::now())),
        }))),
        Err(error) => Err((socket, error)),
    }
}

/// Maps the ring and starts the control thread.
fn attend(shared: &'static Shared, ring: &OwnedFd, control: &'static OwnedFd) -> io::Result<RingPage> {
    let doing = |what: &str, error: &io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let ring_page = RingPage::map(ring).map_err(|error| doing("the ring cannot be mapped", &error))?;
    control::spawn(shared, control).map_err(|error| doing("the control thread cannot be started", &error))?;
    Ok(ring_page)
}

/// Loads the plugin and creates the handler.
fn start(
    shared: &'static Shared,
    init: &Init,
    library: OwnedFd,
    control: &OwnedFd,
) -> Result<Plugin, TaskError> {
    let plugin = Plugin::load(library, shared)?;
    plugin.create(shared, &init.settings_json, init.create_timeout)?;
    // A task that was cancelled before this process was there must not start.
    let withdrawn = shared.gate.take_cancels(control).map_err(|error| TaskError {
        code: "host".into(),
        message: format!("the daemon is gone: {error}"),
        retry_after: None,
    })?;
    control::send_withdrawn(shared, &withdrawn);
    Ok(plugin)
}

/// The main thread, once the handler exists.
struct TaskLoop {
    shared: &'static Shared,
    plugin: Plugin,
    ring_page: RingPage,
    cpu: CpuBound,
    grace: Duration,
    /// A task ended by a fault: the handler's state is unknown, and nothing more is started here.
    spoiled: bool,
}

impl TaskLoop {
    /// Runs tasks until the daemon says quit or goes away; returns the exit status.
    fn serve(mut self, mut input: RequestReader) -> i32 {
        let mut now = gate::now_ns();
        loop {
            match input.next() {
                Ok(Some(HostRequest::Task(task))) => {
                    let Ok(end) = self.run(&task, now) else {
                        self.shared.outbox.flush();
                        setup::complain("the handler left processes behind that /proc does not show");
                        return EXIT_STRAYS;
                    };
                    now = end;
                }
                Ok(Some(HostRequest::Quit)) => return self.quit(),
                Ok(None) => {
                    self.shared.outbox.flush();
                    if input.fill().is_err() {
                        return EXIT_PROTOCOL;
                    }
                    now = gate::now_ns();
                }
                Err(error) => {
                    setup::complain(&format!(
                        "the plugin host read {}: its memory is damaged, most likely by the handler",
                        error.0
                    ));
                    return EXIT_PROTOCOL;
                }
            }
        }
    }

    /// Runs one task, which starts at `now`; returns when it ended.
    fn run(&mut self, task: &TaskFrame<'_>, now: i64) -> Result<i64, descendants::Unreachable> {
        let Shared { gate, outbox, sinks, .. } = self.shared;
        if self.spoiled {
            gate.pass_over(task.seq);
            self.skip(task.seq);
            return Ok(now);
        }
        self.ring_page.start(task.seq);
        let deadline = gate::deadline(now, task.timeout);
        if gate.begin(task.seq, now, deadline, outbox.is_waiting()) == Begin::Cancelled {
            self.skip(task.seq);
            return Ok(now);
        }
        self.cpu.arm();
        sinks.open(Phase::Handle);
        let status = self.plugin.handle(self.shared, task, deadline);
        let swept = descendants::kill_all_of_this_process();
        setup::flush_stdout();
        let end = gate::now_ns();
        let stop = gate.end(end);
        let duration = Duration::from_nanos((end - now).max(0) as u64);
        self.report(task.seq, task.wants_result, status, stop, duration);
        swept.map(|()| end)
    }

    /// Reports a task that is not started.
    fn skip(&self, seq: Seq) {
        self.ring_page.end(seq, false);
        let report = ReportFrame {
            seq,
            outcome: Outcome::Cancelled,
            duration: Duration::ZERO,
            error: None,
            result: None,
            n_follow_ups: 0,
            follow_ups: &[],
        };
        self.shared.outbox.report(&report, Duration::ZERO);
    }

    fn report(
        &mut self,
        seq: Seq,
        wants_result: bool,
        status: i32,
        stop: Option<StopReason>,
        duration: Duration,
    ) {
        let Shared { outbox, sinks, .. } = self.shared;
        self.shared.settle_logs();
        self.spoiled = sinks.close(|record| {
            let (ending, error) = record.verdict(status, stop);
            let (outcome, error) = (call::outcome_of(ending), error.map(TaskError::from));
            let done = outcome == Outcome::Done;
            let faulted = matches!(outcome, Outcome::Fault(_));
            let (n_follow_ups, follow_ups) = record.follow_ups();
            let publishes = done && n_follow_ups > 0;
            let result = record.result().filter(|_| wants_result);
            let irreplaceable = publishes || (done && result.is_some());
            self.ring_page.end(seq, done && !irreplaceable);
            let report = ReportFrame {
                seq,
                outcome,
                duration,
                error: error.as_ref(),
                result,
                n_follow_ups: if publishes { n_follow_ups as u32 } else { 0 },
                follow_ups: &follow_ups.0,
            };
            outbox.report(&report, duration);
            if irreplaceable {
                // The ring holds neither follow-ups nor results: were the next task to kill this host, this one
                // would have to run again.
                outbox.flush();
            }
            faulted
        });
    }

    fn quit(&self) -> i32 {
        self.cpu.lift();
        self.plugin.quiesce(self.shared, self.grace);
        self.plugin.destroy();
        setup::flush_stdout();
        let swept = descendants::kill_all_of_this_process();
        self.shared.outbox.flush();
        if swept.is_ok() { 0 } else { EXIT_STRAYS }
    }
}
