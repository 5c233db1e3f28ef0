//! The test kit: runs a handler without a broker and without a daemon, through the same C functions as in
//! production, under the same rules and bounds: both are made of [`hosting`](crate::hosting).
//!
//! ```
//! use warren_plugin::testing::TestKit;
//! # use warren_plugin::{Call, Done, Failure, Handler, Host, NoSettings, Outcome, Task, export_plugin};
//! # struct Greet;
//! # impl Handler for Greet {
//! #     type Settings = NoSettings;
//! #     fn new(_: NoSettings, _: &Host) -> Result<Self, Failure> { Ok(Self) }
//! #     fn handle(&mut self, task: &Task<'_>, _: &Call<'_>) -> Outcome { Ok(Done::text(format!("Hello {}", task.argument()))) }
//! # }
//! export_plugin!(Greet, name = "greet", prefixes = ["Greet"]);
//!
//! let mut kit = TestKit::<Greet>::new(serde_json::json!({})).unwrap();
//! let ran = kit.run("Task 1: Greet Ada");
//! assert_eq!(ran.done().as_text(), "Hello Ada");
//! ```
//!
//! Time stands still unless the test or [`Call::sleep`](crate::Call::sleep) moves it, so a deadline is
//! reached exactly when the test says. A handler that waits for the outside world (a child process, a server)
//! may want [`TestKit::real_clock`] instead.
#![allow(unsafe_code)] // The kit plays the host: it calls the plugin's C functions.

mod host_side;
mod spec;

pub use host_side::{Canceller, LogLine};
pub use spec::TaskSpec;

use crate::abi;
use crate::failure::Kind;
use crate::hosting::{CallError, Ending, Phase, PluginTable};
use crate::note::Exported;
use crate::shim::{self, Instance};
use crate::time::{Time, nanos};
use crate::{Done, Failure, Handler, Message, Outcome};
use host_side::HostSide;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A handler under test, with the host round it.
pub struct TestKit<H> {
    side: Arc<HostSide>,
    plugin: PluginTable,
    /// The plugin may keep a pointer to it for its life.
    _host: Box<abi::Host>,
    prefixes: Vec<String>,
    clock: Clock,
    deadline: Option<Duration>,
    cancel_after: Option<u32>,
    runs: u32,
    handler: PhantomData<H>,
}

/// Stands for the handler in a [`TestKit`] that runs a plugin by its C functions, in whatever language it is written.
#[derive(Debug)]
pub enum AnyPlugin {}

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

impl<H: Handler> TestKit<H> {
    /// Makes the handler with these settings, or says what an operator would be told. Tasks are matched with the
    /// prefixes of its [`export_plugin!`](crate::export_plugin), as the daemon does.
    pub fn new(settings: impl serde::Serialize) -> Result<Self, Failure>
    where
        H: Exported,
    {
        Ok(Self::without_manifest(settings)?.prefixes(H::MANIFEST.prefixes.iter().copied()))
    }

    /// The same for a handler that no [`export_plugin!`](crate::export_plugin) names: it has no prefixes.
    pub fn without_manifest(settings: impl serde::Serialize) -> Result<Self, Failure> {
        let table = shim::vtable::<H>();
        // SAFETY: the SDK's own functions keep the contract.
        let plugin = unsafe { PluginTable::read(&raw const table) };
        let mut kit = Self::with_plugin(plugin, settings)?;
        kit.instance_mut().time = kit.clock.time.clone();
        Ok(kit)
    }

    /// Measures calls by the system's clock, and makes [`Call::sleep`](crate::Call::sleep) really wait.
    #[must_use]
    pub fn real_clock(mut self) -> Self {
        self.clock.time = Time::System;
        self.instance_mut().time = Time::System;
        self
    }

    fn instance_mut(&mut self) -> &mut Instance<H> {
        // SAFETY: `create` made it as this type, and no call is running while the kit is borrowed.
        unsafe { &mut *self.plugin.instance().cast::<Instance<H>>() }
    }
}

impl TestKit<AnyPlugin> {
    /// Makes the handler of a plugin that was loaded, by its entry point. It is measured by the system's clock and has no
    /// prefixes unless they are [named](Self::prefixes).
    ///
    /// # Safety
    /// `entry` is the `warren_plugin_v1` of a plugin that keeps the contract of the header and stays loaded until the
    /// kit is dropped.
    pub unsafe fn of_plugin(
        entry: abi::EntryPoint,
        settings: impl serde::Serialize,
    ) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let plugin = unsafe { PluginTable::read(entry()) };
        let mut kit = Self::with_plugin(plugin, settings)?;
        kit.clock.time = Time::System;
        Ok(kit)
    }
}

impl<H> TestKit<H> {
    fn with_plugin(
        plugin: Result<PluginTable, CallError>,
        settings: impl serde::Serialize,
    ) -> Result<Self, Failure> {
        let plugin = plugin.map_err(|error| failure(Kind::Fault, error))?;
        let settings = serde_json::to_vec(&settings)?;
        let side = HostSide::new()?;
        let host = Box::new(crate::hosting::host_table(&*side));
        let call = side.begin(Phase::Setup, None, None);
        // SAFETY: the first call. `side` and `host` live as long as the kit, whose `drop` destroys the instance first.
        let status = unsafe { plugin.create(&raw const *host, &settings, &call) };
        if let Err(failure) = side.created(status, !plugin.instance().is_null()) {
            // SAFETY: as above; nothing follows.
            unsafe { plugin.destroy() };
            return Err(failure);
        }
        Ok(Self {
            side,
            plugin,
            _host: host,
            prefixes: Vec::new(),
            clock: Clock::new(),
            deadline: None,
            cancel_after: None,
            runs: 0,
            handler: PhantomData,
        })
    }

    /// Other prefixes than those of the plugin, as an operator can configure them. A task that has none of them makes
    /// [`run`](Self::run) panic. Without any, the whole text after the label is the argument.
    #[must_use]
    pub fn prefixes<P: Into<String>>(mut self, prefixes: impl IntoIterator<Item = P>) -> Self {
        self.prefixes = prefixes.into_iter().map(Into::into).collect();
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
        let call = self.side.begin(Phase::Handle, self.cancel_after.take(), deadline);
        // SAFETY: the instance was made, and no other call runs while the kit is borrowed.
        let handle = || task.with_abi(|task| unsafe { self.plugin.handle(task, &call) });
        let status = match (&self.clock.time, self.deadline) {
            (Time::System, Some(limit)) => self.side.with_alarm(limit, handle),
            _ => handle(),
        };
        self.side.end(status)
    }

    /// Lets the handler end its threads and flush, as before it is replaced. What it reports is the outcome.
    pub fn quiesce(&mut self) -> Ran {
        let call = self.side.begin(Phase::Setup, self.cancel_after.take(), None);
        // SAFETY: as in `run`.
        let status = unsafe { self.plugin.quiesce(&call) };
        self.side.end(status)
    }

    /// Lines logged outside of tasks so far: by `new`, by the handler's threads.
    pub fn logs(&mut self) -> Vec<LogLine> {
        self.side.take_logs()
    }
}

impl<H> Drop for TestKit<H> {
    fn drop(&mut self) {
        // SAFETY: no call runs, and none follows.
        unsafe { self.plugin.destroy() }
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

    /// Moves the clock on. Without effect under [`TestKit::real_clock`].
    pub fn advance(&self, duration: Duration) {
        self.now.fetch_add(nanos(duration), Ordering::SeqCst);
    }
}

/// The outcome that a handler sees of what a host makes of a call.
fn outcome(ending: Ending, error: Option<CallError>, result: Option<Done>) -> Outcome {
    let kind = match ending {
        Ending::Done => return Ok(result.unwrap_or_default()),
        Ending::Retry => Kind::Retry,
        Ending::Reject => Kind::Reject,
        Ending::Cancelled | Ending::TimedOut => Kind::Cancelled,
        Ending::HandlerFault | Ending::ContractFault => Kind::Fault,
    };
    Err(failure(kind, error.unwrap_or_else(|| CallError::new("", ""))))
}

fn failure(kind: Kind, error: CallError) -> Failure {
    let failure = Failure::new(kind, error.code, error.message);
    match error.retry_after {
        Some(delay) => failure.after(delay),
        None => failure,
    }
}
