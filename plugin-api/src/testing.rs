//! The test kit: runs a handler without a broker and without a daemon, through the same C functions as in
//! production, under the same rules and bounds.
//!
//! ```
//! use warren_plugin::testing::Kit;
//! # use warren_plugin::{Call, Done, Failure, Handler, Host, NoSettings, Outcome, Task};
//! # struct Greet;
//! # impl Handler for Greet {
//! #     type Settings = NoSettings;
//! #     fn new(_: NoSettings, _: &Host) -> Result<Self, Failure> { Ok(Self) }
//! #     fn handle(&mut self, task: &Task<'_>, _: &Call<'_>) -> Outcome { Ok(Done::text(format!("Hello {}", task.argument()))) }
//! # }
//!
//! let mut kit = Kit::<Greet>::new(serde_json::json!({})).unwrap().prefixes(["Greet"]);
//! let ran = kit.run("Task 1: Greet Ada");
//! assert_eq!(ran.done().as_text(), "Hello Ada");
//! ```
//!
//! Time stands still unless the test or [`Call::sleep`](crate::Call::sleep) moves it, so a deadline is
//! reached exactly when the test says. A handler that waits for the outside world (a child process, a server)
//! may want [`Kit::real_clock`] instead.
#![allow(unsafe_code)] // The kit plays the host: it calls the vtable's C functions.

mod host_side;
mod spec;

pub use host_side::{Canceller, LogLine};
pub use spec::TaskSpec;

use crate::abi::{self, Bytes, fault};
use crate::failure::Kind;
use crate::shim::{self, Instance};
use crate::time::{Time, nanos};
use crate::{Done, Failure, Handler, Message, Outcome, reject};
use host_side::{HostSide, Phase};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A handler under test, with the host round it.
pub struct Kit<H: Handler> {
    side: Arc<HostSide>,
    instance: *mut c_void,
    prefixes: Vec<String>,
    clock: Clock,
    deadline: Option<Duration>,
    cancel_after: Option<u32>,
    runs: u32,
    handler: PhantomData<H>,
}

/// What came of one task.
#[derive(Debug)]
pub struct Ran {
    /// What the handler said; a panic or a broken bound is a [`Failure`] with
    /// [`is_fault`](Failure::is_fault).
    pub outcome: Outcome,
    /// The follow-ups that would be sent: those published, if the task is done, else none.
    pub published: Vec<Message>,
    /// Lines logged meanwhile.
    pub logs: Vec<LogLine>,
    /// Progress reported: thousandths and note.
    pub progress: Vec<(u32, String)>,
}

/// The kit's clock: it stands still until it is moved.
#[derive(Clone)]
pub struct Clock {
    now: Arc<AtomicI64>,
    time: Time,
}

impl<H: Handler> Kit<H> {
    const VTABLE: abi::Plugin = shim::vtable::<H>();

    /// Makes the handler with these settings, or says what an operator would be told.
    pub fn new(settings: impl serde::Serialize) -> Result<Self, Failure> {
        let settings = serde_json::to_vec(&settings)?;
        let (side, clock) = (HostSide::new()?, Clock::new());
        let mut kit = Self {
            side,
            instance: null_mut(),
            prefixes: Vec::new(),
            clock,
            deadline: None,
            cancel_after: None,
            runs: 0,
            handler: PhantomData,
        };
        kit.create(&settings)?;
        Ok(kit)
    }

    /// The prefixes that tasks are matched with, as the daemon does; a task that has none of them makes
    /// [`run`](Self::run) panic. Without, the whole text after the label is the argument.
    #[must_use]
    pub fn prefixes<P: Into<String>>(mut self, prefixes: impl IntoIterator<Item = P>) -> Self {
        self.prefixes = prefixes.into_iter().map(Into::into).collect();
        self
    }

    /// Measures calls by the system's clock, and makes [`Call::sleep`](crate::Call::sleep) really wait.
    #[must_use]
    pub fn real_clock(mut self) -> Self {
        self.clock.time = Time::System;
        self.instance_mut().time = Time::System;
        self
    }

    /// Gives every following task this long. When it is up, the task is told to stop: by the real clock at
    /// once, by the kit's clock when it next looks.
    pub fn deadline(&mut self, limit: Duration) -> &mut Self {
        self.deadline = Some(limit);
        self
    }

    /// Cancels the next task after it has looked `checks` times ([`Call::check`](crate::Call::check),
    /// [`Call::cancelled`](crate::Call::cancelled); [`Call::sleep`](crate::Call::sleep) looks twice).
    pub fn cancel_after(&mut self, checks: u32) -> &mut Self {
        self.cancel_after = Some(checks);
        self
    }

    /// Cancels the next task before it begins.
    pub fn cancelled(&mut self) -> &mut Self {
        self.cancel_after(0)
    }

    /// Cancels the running task from another thread.
    pub fn canceller(&self) -> Canceller {
        self.side.canceller()
    }

    /// The clock, to move it from inside a test's server or thread.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Runs one task: its text, or a [`TaskSpec`].
    pub fn run(&mut self, task: impl Into<TaskSpec>) -> Ran {
        self.runs += 1;
        let task = task.into().resolve(&self.prefixes, self.runs);
        let time = &self.clock.time;
        let deadline = self.deadline.map(|limit| (time.clone(), time.now_ns().saturating_add(nanos(limit))));
        self.side.begin(Phase::Handle, self.cancel_after.take(), deadline);
        let call = self.side.call();
        let handle = || {
            task.with_abi(|task| {
                // SAFETY: `instance` came from `create`; task and call are valid for the call.
                Self::VTABLE.handle.map_or(abi::FAULT, |f| unsafe { f(self.instance, task, &raw const call) })
            })
        };
        let status = match (&self.clock.time, self.deadline) {
            (Time::System, Some(limit)) => self.side.with_alarm(limit, handle),
            _ => handle(),
        };
        self.finish(status)
    }

    /// Lets the handler end its threads and flush, as before it is replaced. What it reports is the outcome.
    pub fn quiesce(&mut self) -> Ran {
        self.side.begin(Phase::Quiesce, self.cancel_after.take(), None);
        let call = self.side.call();
        // SAFETY: `instance` came from `create`; the call is valid for the call.
        let status = Self::VTABLE.quiesce.map_or(abi::DONE, |f| unsafe { f(self.instance, &raw const call) });
        self.finish(status)
    }

    /// Lines logged outside of tasks so far: by `new`, by the handler's threads.
    pub fn logs(&mut self) -> Vec<LogLine> {
        self.side.take_record().logs
    }

    fn create(&mut self, settings: &[u8]) -> Result<(), Failure> {
        self.side.begin(Phase::Create, None, None);
        let (host, call) = (self.side.host(), self.side.call());
        let mut instance = null_mut();
        let status = Self::VTABLE.create.map_or(abi::FAULT, |create| {
            // SAFETY: all are valid for the call, and `side` outlives the instance: `drop` destroys that
            // first.
            unsafe { create(&raw const host, Bytes::of(settings), &raw const call, &raw mut instance) }
        });
        self.instance = instance;
        let may_stop = self.side.end();
        let mut record = self.side.take_record();
        let outcome = record.outcome(status, may_stop);
        self.side.put_back_logs(record.logs);
        outcome?;
        if self.instance.is_null() {
            return Err(reject(fault::ABI, "create succeeded without an instance"));
        }
        self.instance_mut().time = self.clock.time.clone();
        Ok(())
    }

    fn finish(&mut self, status: i32) -> Ran {
        let may_stop = self.side.end();
        let mut record = self.side.take_record();
        let outcome = record.outcome(status, may_stop);
        let published = if outcome.is_ok() { record.published } else { Vec::new() };
        Ran { outcome, published, logs: record.logs, progress: record.progress }
    }

    fn instance_mut(&mut self) -> &mut Instance<H> {
        // SAFETY: `create` made it as this type, and no call is running while the kit is borrowed.
        unsafe { &mut *self.instance.cast::<Instance<H>>() }
    }
}

impl<H: Handler> Drop for Kit<H> {
    fn drop(&mut self) {
        if let Some(destroy) = Self::VTABLE.destroy.filter(|_| !self.instance.is_null()) {
            // SAFETY: from `create`, and not used after.
            unsafe { destroy(self.instance) }
        }
    }
}

impl Ran {
    /// What the task left behind; panics with the failure if it is not done.
    #[track_caller]
    pub fn done(&self) -> &Done {
        match &self.outcome {
            Ok(done) => done,
            Err(failure) => panic!("the task is not done: {failure}"),
        }
    }

    /// Why it failed; panics if it is done.
    #[track_caller]
    pub fn failure(&self) -> &Failure {
        match &self.outcome {
            Ok(done) => panic!("the task is done: {}", done.as_text()),
            Err(failure) => failure,
        }
    }
}

impl Clock {
    fn new() -> Self {
        // Not 0: a deadline of 0 means none.
        let now = Arc::new(AtomicI64::new(1_000_000_000));
        Self { time: Time::Manual(Arc::clone(&now)), now }
    }

    /// Moves the clock on. Without effect under [`Kit::real_clock`].
    pub fn advance(&self, duration: Duration) {
        self.now.fetch_add(nanos(duration), Ordering::SeqCst);
    }
}

impl host_side::Record {
    /// What a host makes of a status and of what was recorded during the call.
    fn outcome(&mut self, status: i32, may_stop: bool) -> Outcome {
        let (code, message, retry_after) = self.error.take().unwrap_or_default();
        let fault = |code: &str, message: String| Err(Failure::new(Kind::Fault, code, message));
        if let Some((code, message)) = self.fault.take() {
            return fault(code, message);
        }
        let failure = |kind| {
            let failure = Failure::new(kind, code.clone(), message.clone());
            Err(if let Some(delay) = retry_after { failure.after(delay) } else { failure })
        };
        match status {
            abi::DONE => Ok(self.result.take().unwrap_or_default()),
            abi::RETRY => failure(Kind::Retry),
            abi::REJECT => failure(Kind::Reject),
            abi::CANCELLED if may_stop => failure(Kind::Cancelled),
            abi::CANCELLED => {
                fault(fault::NOT_CANCELLED, "it says cancelled, but nobody asked it to stop".into())
            }
            abi::FAULT => failure(Kind::Fault),
            other => fault(fault::UNKNOWN_STATUS, format!("the ABI has no status {other}")),
        }
    }
}
