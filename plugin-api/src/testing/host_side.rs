//! The host of the test kit: keeps what the handler says for the test, and tells the handler to stop.

use super::{Ran, outcome};
use crate::abi;
use crate::hosting::{self, CallRecord, FollowUp, FollowUps, Phase, PluginHost, StopReason};
use crate::time::Time;
use crate::{Done, Failure, Level, Message};
use std::borrow::Cow;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// One line the handler logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How important.
    pub level: Level,
    /// The line.
    pub message: String,
    /// Its fields, in order.
    pub fields: Vec<(String, String)>,
}

/// Cancels the task that runs in a [`TestKit`](super::TestKit); from any thread. Without effect when none runs.
#[derive(Clone)]
pub struct Canceller(Arc<HostSide>);

impl Canceller {
    /// Asks the running task to stop.
    pub fn cancel(&self) {
        let mut state = self.0.state();
        if state.record.phase() != Phase::Closed {
            state.cancel();
        }
    }
}

/// The follow-ups of a call.
#[derive(Debug, Default)]
pub(super) struct Published(Vec<Message>);

impl FollowUps for Published {
    fn push(&mut self, follow_up: &FollowUp<'_>) {
        self.0.push(follow_up.into());
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// What the functions given to the handler reach.
pub(super) struct HostSide {
    state: Mutex<State>,
}

struct State {
    record: CallRecord<Published>,
    logs: Vec<LogLine>,
    progress: Vec<(u32, String)>,
    /// The test asked the handler to stop.
    asked: bool,
    /// When the task's time is up, and by which clock.
    deadline: Option<(Time, i64)>,
    /// The handler is told to stop: `asked`, or its deadline has passed.
    stop: bool,
    /// Its reading end is the call's `cancel_fd`; a byte is in it once `stop`.
    pipe: (PipeReader, PipeWriter),
    /// Looks left before it counts as cancelled.
    looks_left: Option<u32>,
}

impl HostSide {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let state = State {
            record: CallRecord::default(),
            logs: Vec::new(),
            progress: Vec::new(),
            asked: false,
            deadline: None,
            stop: false,
            pipe: io::pipe()?,
            looks_left: None,
        };
        Ok(Arc::new(Self { state: Mutex::new(state) }))
    }

    pub(super) fn canceller(self: &Arc<Self>) -> Canceller {
        Canceller(Arc::clone(self))
    }

    /// Starts recording a call. What the call names lives as long as `self`.
    pub(super) fn begin(
        &self,
        phase: Phase,
        cancel_after: Option<u32>,
        deadline: Option<(Time, i64)>,
    ) -> abi::Call {
        let mut state = self.state();
        if std::mem::take(&mut state.stop) {
            state.pipe = io::pipe().expect("a process under test can open a pipe");
        }
        state.logs.clear();
        state.progress.clear();
        state.record.open(phase);
        state.deadline = deadline;
        state.asked = false;
        state.looks_left = cancel_after.filter(|looks| *looks > 0);
        if cancel_after == Some(0) {
            state.cancel();
        }
        let deadline = state.deadline.as_ref().map_or(0, |(_, deadline)| *deadline);
        hosting::call_table(self, state.pipe.0.as_raw_fd(), deadline)
    }

    /// `create` has returned. What it logged is kept for the test.
    pub(super) fn created(&self, status: i32, has_instance: bool) -> Result<(), Failure> {
        let mut state = self.state();
        let created = state.record.created(status, has_instance);
        state.record.close();
        created.or_else(|(ending, error)| outcome(ending, Some(error), None).map(drop))
    }

    /// `handle` or `quiesce` has returned.
    pub(super) fn end(&self, status: i32) -> Ran {
        let mut state = self.state();
        let stop = state.stop_reason();
        let (ending, error) = state.record.verdict(status, stop);
        let result = state.record.result().map(|(content_type, body)| Done::body(content_type, body));
        let outcome = outcome(ending, error, result);
        let published = if outcome.is_ok() { state.record.follow_ups().1.0.clone() } else { Vec::new() };
        state.record.close();
        let (logs, progress) = (std::mem::take(&mut state.logs), std::mem::take(&mut state.progress));
        Ran { outcome, published, logs, progress }
    }

    /// Runs `f`; tells the handler to stop if `f` has not ended after `limit` of real time.
    pub(super) fn with_alarm<T>(&self, limit: Duration, f: impl FnOnce() -> T) -> T {
        let (ended, ends) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                if ends.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    self.state().stop();
                }
            });
            let result = f();
            drop(ended);
            result
        })
    }

    pub(super) fn take_logs(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.state().logs)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cancel(&mut self) {
        self.asked = true;
        self.stop();
    }

    fn stop(&mut self) {
        if !std::mem::replace(&mut self.stop, true) {
            // The pipe is empty, so one byte always fits.
            let _ = self.pipe.1.write_all(b"c");
        }
    }

    /// Why the handler had to stop by now. Having been asked goes first, as in production.
    fn stop_reason(&self) -> Option<StopReason> {
        if self.asked { Some(StopReason::Asked) } else { self.is_late().then_some(StopReason::Deadline) }
    }

    fn is_late(&self) -> bool {
        self.deadline.as_ref().is_some_and(|(time, deadline)| time.now_ns() >= *deadline)
    }

    /// The handler looks whether it should stop.
    fn look(&mut self) -> bool {
        if self.is_late() {
            self.stop();
        }
        let answer = self.stop;
        // The last look still sees nothing: what comes after it, a wait above all, is to notice.
        match self.looks_left.take() {
            Some(1) => self.cancel(),
            left => self.looks_left = left.map(|left| left - 1),
        }
        answer
    }
}

impl PluginHost for HostSide {
    type FollowUps = Published;

    fn with_record<T>(&self, f: impl FnOnce(&mut CallRecord<Published>) -> T) -> T {
        f(&mut self.state().record)
    }

    fn cancelled(&self) -> bool {
        self.state().look()
    }

    fn progress(&self, permille: u32, note: &str) {
        let mut state = self.state();
        if state.record.phase() != Phase::Closed {
            state.progress.push((permille, note.to_owned()));
        }
    }

    fn log(&self, level: i32, message: &str, fields: &[(Cow<'_, str>, Cow<'_, str>)]) {
        let fields = fields.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let line = LogLine { level: Level::from_number(level), message: message.to_owned(), fields };
        self.state().logs.push(line);
    }
}
