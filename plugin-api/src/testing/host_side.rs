//! The host's half of the boundary in the test kit: records what the handler says, and enforces what a host does.
#![allow(unsafe_code)] // C functions that a plugin calls.

use crate::abi::{self, Bytes, Field, cut, fault};
use crate::answer;
use crate::time::Time;
use crate::{Done, Level, Message};
use std::ffi::c_void;
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

/// Cancels the task that runs in a [`Kit`](super::Kit); from any thread. Without effect when none runs.
#[derive(Clone)]
pub struct Canceller(Arc<HostSide>);

impl Canceller {
    /// Asks the running task to stop.
    pub fn cancel(&self) {
        let mut state = self.0.state();
        if state.phase != Phase::Idle {
            state.cancel();
        }
    }
}

/// Which of the plugin's functions runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Create,
    Handle,
    Quiesce,
}

/// All that a handler said during one call.
#[derive(Default)]
pub(super) struct Record {
    pub(super) result: Option<Done>,
    pub(super) error: Option<(String, String, Option<Duration>)>,
    pub(super) published: Vec<Message>,
    published_bytes: usize,
    pub(super) logs: Vec<LogLine>,
    pub(super) progress: Vec<(u32, String)>,
    /// The first rule it broke.
    pub(super) fault: Option<(&'static str, String)>,
}

/// The `ctx` of every function given to the handler.
pub(super) struct HostSide {
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    record: Record,
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
            phase: Phase::Idle,
            record: Record::default(),
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

    /// Starts recording a call.
    pub(super) fn begin(&self, phase: Phase, cancel_after: Option<u32>, deadline: Option<(Time, i64)>) {
        let mut state = self.state();
        if std::mem::take(&mut state.stop) {
            state.pipe = io::pipe().expect("a process under test can open a pipe");
        }
        state.record = Record::default();
        state.phase = phase;
        state.deadline = deadline;
        state.asked = false;
        state.looks_left = cancel_after.filter(|looks| *looks > 0);
        if cancel_after == Some(0) {
            state.cancel();
        }
    }

    /// Ends the call; whether the handler had a reason to stop.
    pub(super) fn end(&self) -> bool {
        let mut state = self.state();
        state.phase = Phase::Idle;
        state.asked || state.is_late()
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

    pub(super) fn take_record(&self) -> Record {
        std::mem::take(&mut self.state().record)
    }

    pub(super) fn put_back_logs(&self, logs: Vec<LogLine>) {
        self.state().record.logs = logs;
    }

    /// The host's struct. What it names lives as long as `self`.
    pub(super) fn host(&self) -> abi::Host {
        abi::Host {
            struct_size: size_of::<abi::Host>() as u32,
            abi_major: abi::ABI_MAJOR,
            abi_minor: abi::ABI_MINOR,
            ctx: self.ctx(),
            log: Some(log),
        }
    }

    /// One call's struct. What it names lives as long as `self`.
    pub(super) fn call(&self) -> abi::Call {
        let state = self.state();
        abi::Call {
            struct_size: size_of::<abi::Call>() as u32,
            cancel_fd: state.pipe.0.as_raw_fd(),
            ctx: self.ctx(),
            deadline_ns: state.deadline.as_ref().map_or(0, |(_, deadline)| *deadline),
            cancelled: Some(cancelled),
            progress: Some(progress),
            set_result: Some(set_result),
            set_error: Some(set_error),
            publish: Some(publish),
        }
    }

    fn ctx(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
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

    fn set_result(&mut self, content_type: &[u8], body: &[u8]) {
        if self.phase != Phase::Handle {
            self.fault(fault::NOT_ALLOWED, "a result can be set only while a task is handled".to_owned());
            return;
        }
        let answer = answer::bounded(content_type, body);
        if !answer.note.is_empty() {
            self.record.logs.push(LogLine { level: Level::Warn, message: answer.note, fields: Vec::new() });
        }
        self.record.result = Some(Done::body(answer.content_type, answer.body));
    }

    fn publish(&mut self, message: Result<Message, i32>) -> i32 {
        if self.phase != Phase::Handle {
            self.fault(
                fault::NOT_ALLOWED,
                "a follow-up can be published only while a task is handled".to_owned(),
            );
            return abi::PUBLISH_NOT_ALLOWED;
        }
        let message = match message {
            Ok(message) => message,
            Err(code) => {
                if code == abi::PUBLISH_TOO_LARGE {
                    self.fault(fault::OVERSIZE, "a follow-up is over a bound".to_owned());
                }
                return code;
            }
        };
        if self.record.published.len() >= abi::MAX_FOLLOW_UPS {
            self.fault(fault::OVERSIZE, format!("more than {} follow-ups", abi::MAX_FOLLOW_UPS));
            return abi::PUBLISH_TOO_MANY;
        }
        let all = self.record.published_bytes + message.body.len();
        if all > abi::MAX_FOLLOW_UPS_BYTES {
            self.fault(fault::OVERSIZE, format!("over {} bytes of follow-ups", abi::MAX_FOLLOW_UPS_BYTES));
            return abi::PUBLISH_TOO_LARGE;
        }
        self.record.published_bytes = all;
        self.record.published.push(message);
        abi::PUBLISH_OK
    }

    fn fault(&mut self, code: &'static str, message: String) {
        self.record.fault.get_or_insert((code, message));
    }
}

/// The host behind a `ctx`.
///
/// # Safety
/// `ctx` came from [`HostSide::ctx`] and that `HostSide` still lives.
unsafe fn side<'a>(ctx: *mut c_void) -> &'a HostSide {
    // SAFETY: as the caller promises; only shared references to it exist.
    unsafe { &*ctx.cast::<HostSide>() }
}

unsafe extern "C" fn log(ctx: *mut c_void, level: i32, message: Bytes, fields: *const Field, n: usize) {
    // SAFETY: the contract of `log`: ours, and valid during this call.
    let (side, message) = unsafe { (side(ctx), message.as_slice()) };
    let fields = if n == 0 || fields.is_null() {
        &[]
    } else {
        // SAFETY: the contract of `log`: `n` fields.
        unsafe { std::slice::from_raw_parts(fields, n.min(abi::MAX_LOG_FIELDS)) }
    };
    // SAFETY: the contract of `log`: valid during this call.
    let text = |bytes: Bytes, max| cut(unsafe { bytes.as_slice() }, max);
    let fields = fields
        .iter()
        .map(|field| (text(field.key, abi::MAX_WORD_BYTES), text(field.value, abi::MAX_LOG_BYTES)))
        .collect();
    let line =
        LogLine { level: Level::from_number(level), message: cut(message, abi::MAX_LOG_BYTES), fields };
    side.state().record.logs.push(line);
}

unsafe extern "C" fn cancelled(ctx: *mut c_void) -> i32 {
    // SAFETY: ours.
    let side = unsafe { side(ctx) };
    i32::from(side.state().look())
}

unsafe extern "C" fn progress(ctx: *mut c_void, permille: u32, note: Bytes) {
    // SAFETY: ours, and valid during this call.
    let (side, note) = unsafe { (side(ctx), note.as_slice()) };
    side.state().record.progress.push((permille.min(1000), cut(note, abi::MAX_LOG_BYTES)));
}

unsafe extern "C" fn set_result(ctx: *mut c_void, content_type: Bytes, body: Bytes) {
    // SAFETY: ours, and valid during this call.
    let (side, content_type, body) = unsafe { (side(ctx), content_type.as_slice(), body.as_slice()) };
    side.state().set_result(content_type, body);
}

unsafe extern "C" fn set_error(ctx: *mut c_void, code: Bytes, message: Bytes, retry_after_ms: i64) {
    // SAFETY: ours, and valid during this call.
    let (side, code, message) = unsafe { (side(ctx), code.as_slice(), message.as_slice()) };
    let retry_after = (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms as u64));
    let error = (cut(code, abi::MAX_WORD_BYTES), cut(message, abi::MAX_ERROR_BYTES), retry_after);
    side.state().record.error = Some(error);
}

unsafe extern "C" fn publish(ctx: *mut c_void, message: *const abi::Message) -> i32 {
    // SAFETY: ours, and valid during this call.
    let (side, message) = unsafe { (side(ctx), Message::from_abi(message)) };
    side.state().publish(message)
}
