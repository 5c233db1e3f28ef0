//! The functions that a plugin calls back: a host's `log` and a call's sinks. They run on any thread of the
//! plugin's. What they are given is copied at once, within the ABI's bounds; what breaks a bound makes the
//! task a fault.

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use warren_plugin::abi::{self, Bytes, Field, fault};
use warren_plugin::answer;

use super::gate::{self, Cancel};
use super::{Shared, text_of};
use crate::host::frame::{FollowUpFrame, from_host, put_bytes, put_frame};
use crate::model::{FaultCause, Outcome, TaskError};

/// Nanoseconds between two progress reports that pass: 10 a second are more than anybody reads.
const PROGRESS_EVERY_NS: i64 = 100_000_000;
/// Most bytes of all fields of one log line together.
const MAX_LOG_FIELDS_BYTES: usize = 4 * abi::MAX_LOG_BYTES;

/// Which sinks are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// No call runs.
    #[default]
    Closed,
    /// `create` and `quiesce`: errors and progress only.
    Setup,
    /// `handle`: all.
    Handle,
}

/// What the running call has said so far.
#[derive(Default)]
pub(super) struct Written {
    phase: Phase,
    pub(super) error: Option<TaskError>,
    /// The first bound or rule that was broken; it overrules whatever the handler returns.
    pub(super) fault: Option<TaskError>,
    has_result: bool,
    content_type: Vec<u8>,
    body: Vec<u8>,
    pub(super) n_follow_ups: u32,
    /// Their fields, ready for the report.
    pub(super) follow_ups: Vec<u8>,
    follow_up_bodies: usize,
    last_progress: i64,
}

impl Written {
    /// Content type and body of the result, when one was set.
    pub(super) fn result(&self) -> Option<(&[u8], &[u8])> {
        self.has_result.then_some((&self.content_type, &self.body))
    }

    fn set_result(&mut self, answer: &answer::Answer<'_>) {
        self.content_type.clear();
        self.content_type.extend_from_slice(answer.content_type.as_bytes());
        self.body.clear();
        self.body.extend_from_slice(&answer.body);
        self.has_result = true;
    }

    fn fault(&mut self, code: &str, message: String) {
        self.fault.get_or_insert(TaskError { code: code.into(), message, retry_after: None });
    }

    fn clear(&mut self) {
        self.error = None;
        self.fault = None;
        self.has_result = false;
        self.n_follow_ups = 0;
        self.follow_up_bodies = 0;
        self.last_progress = 0;
        if self.body.capacity() > 0 {
            self.body.clear();
            self.body.shrink_to(KEEP);
        }
        if self.follow_ups.capacity() > 0 {
            self.follow_ups.clear();
            self.follow_ups.shrink_to(KEEP);
        }
    }
}

/// Capacity kept from task to task.
const KEEP: usize = 64 << 10;

/// The sinks of the running call.
#[derive(Default)]
pub(super) struct Sinks(Mutex<Written>);

impl Sinks {
    /// A call begins.
    pub(super) fn open(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    /// The call has returned: from here on the sinks refuse. `read` gets what was written.
    pub(super) fn close<T>(&self, read: impl FnOnce(&mut Written) -> T) -> T {
        let mut written = self.lock();
        written.phase = Phase::Closed;
        let result = read(&mut written);
        written.clear();
        result
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The `ctx` of every function here.
pub(super) fn ctx(shared: &Shared) -> *mut c_void {
    std::ptr::from_ref(shared).cast_mut().cast()
}

/// One call into the plugin.
pub(super) fn of(shared: &Shared, cancel_fd: i32, deadline_ns: i64) -> abi::Call {
    abi::Call {
        struct_size: size_of::<abi::Call>() as u32,
        cancel_fd,
        ctx: ctx(shared),
        deadline_ns,
        cancelled: Some(cancelled),
        progress: Some(progress),
        set_result: Some(set_result),
        set_error: Some(set_error),
        publish: Some(publish),
    }
}

/// What a returned status means, given what the call was asked and what it said.
pub(super) fn judge(status: i32, cancel: Cancel, written: &mut Written) -> (Outcome, Option<TaskError>) {
    if let Some(broken) = written.fault.take() {
        return (Outcome::Fault(FaultCause::Contract), Some(broken));
    }
    let error = written.error.take();
    let failed =
        |cause, code: &str, message: String| (Outcome::Fault(cause), Some(TaskError::new(code, message)));
    match status {
        abi::DONE => (Outcome::Done, None),
        abi::RETRY => (Outcome::Retry, error),
        abi::REJECT => (Outcome::Reject, error),
        abi::CANCELLED if cancel == Cancel::Asked => (Outcome::Cancelled, error),
        abi::CANCELLED if cancel == Cancel::Deadline => {
            let message = error.map_or_else(|| "stopped at its time limit".into(), |error| error.message);
            (Outcome::TimedOut, Some(TaskError::new("timeout", message)))
        }
        abi::CANCELLED => {
            let message = "the handler says cancelled, but nobody asked it to stop".into();
            failed(FaultCause::Contract, fault::NOT_CANCELLED, message)
        }
        abi::FAULT => match error {
            Some(error) => (Outcome::Fault(FaultCause::Returned), Some(error)),
            None => {
                let message = "the handler returned a fault and said nothing".into();
                failed(FaultCause::Returned, "fault", message)
            }
        },
        _ => {
            let message = format!("the handler returned {status}, which is no status");
            failed(FaultCause::Contract, fault::UNKNOWN_STATUS, message)
        }
    }
}

/// # Safety
/// `ctx` is what [`ctx`] made: the process's one `Shared`, which is never freed.
unsafe fn shared<'a>(ctx: *mut c_void) -> &'a Shared {
    // SAFETY: the caller's promise; only shared references to it exist.
    unsafe { &*ctx.cast::<Shared>() }
}

unsafe extern "C" fn cancelled(ctx: *mut c_void) -> i32 {
    // SAFETY: the plugin passes the call's `ctx` on, by contract.
    let shared = unsafe { shared(ctx) };
    i32::from(shared.gate.cancelled())
}

unsafe extern "C" fn progress(ctx: *mut c_void, permille: u32, note: Bytes) {
    // SAFETY: as in `cancelled`.
    let shared = unsafe { shared(ctx) };
    let (seq, now) = (shared.gate.running(), gate::now_ns());
    {
        let mut written = shared.sinks.lock();
        if seq == 0 || written.phase == Phase::Closed || now < written.last_progress + PROGRESS_EVERY_NS {
            return;
        }
        written.last_progress = now;
    }
    let note = text_of(note, abi::MAX_LOG_BYTES);
    shared.outbox.append(|out| {
        put_frame(out, from_host::PROGRESS, |out| {
            out.extend_from_slice(&seq.to_le_bytes());
            out.extend_from_slice(&permille.min(1000).to_le_bytes());
            put_bytes(out, note.as_bytes());
        });
    });
    shared.gate.flush_soon();
}

/// The host's `log`: from any thread, until `destroy` has returned.
pub(super) unsafe extern "C" fn log(
    ctx: *mut c_void,
    level: i32,
    message: Bytes,
    fields: *const Field,
    n: usize,
) {
    // SAFETY: as in `cancelled`.
    let shared = unsafe { shared(ctx) };
    let message = text_of(message, abi::MAX_LOG_BYTES);
    let n = if fields.is_null() { 0 } else { n.min(abi::MAX_LOG_FIELDS) };
    let mut left = MAX_LOG_FIELDS_BYTES;
    let mut bounded = |bytes: Bytes, max: usize| {
        let text = text_of(bytes, max.min(left));
        left -= text.len().min(left);
        text
    };
    let fields: Vec<(String, String)> = (0..n)
        // SAFETY: not null, and valid for the caller's `n`, of which this is at most the first part.
        .map(|i| unsafe { fields.add(i).read() })
        .map(|field| (bounded(field.key, abi::MAX_WORD_BYTES), bounded(field.value, abi::MAX_LOG_BYTES)))
        .collect();
    log_line(shared, level, &message, &fields);
}

/// Sends a line to the daemon's log, as far as the bounds of the task allow it.
fn log_line(shared: &Shared, level: i32, message: &str, fields: &[(String, String)]) {
    let level = level.clamp(abi::LOG_ERROR, abi::LOG_TRACE);
    if !shared.log(level, message, fields) {
        return;
    }
    if level <= abi::LOG_WARN {
        // The next thing the handler does may be to crash, and this line may say why.
        shared.outbox.flush();
    } else {
        shared.gate.flush_soon();
    }
}

unsafe extern "C" fn set_result(ctx: *mut c_void, content_type: Bytes, body: Bytes) {
    // SAFETY: as in `cancelled`; the bytes are valid during this call.
    let (shared, content_type, body) = unsafe { (shared(ctx), content_type.as_slice(), body.as_slice()) };
    let answer = answer::bounded(content_type, body);
    {
        let mut written = shared.sinks.lock();
        match written.phase {
            Phase::Closed => return,
            Phase::Setup => return written.fault(fault::NOT_ALLOWED, "set_result outside of handle".into()),
            Phase::Handle => written.set_result(&answer),
        }
    }
    if !answer.note.is_empty() {
        log_line(shared, abi::LOG_WARN, &answer.note, &[]);
    }
}

unsafe extern "C" fn set_error(ctx: *mut c_void, code: Bytes, message: Bytes, retry_after_ms: i64) {
    // SAFETY: as in `cancelled`.
    let shared = unsafe { shared(ctx) };
    let error = TaskError {
        code: text_of(code, abi::MAX_WORD_BYTES),
        message: text_of(message, abi::MAX_ERROR_BYTES),
        retry_after: u64::try_from(retry_after_ms).ok().filter(|&ms| ms > 0).map(Duration::from_millis),
    };
    let mut written = shared.sinks.lock();
    if written.phase != Phase::Closed {
        written.error = Some(error);
    }
}

unsafe extern "C" fn publish(ctx: *mut c_void, message: *const abi::Message) -> i32 {
    // SAFETY: as in `cancelled`.
    let shared = unsafe { shared(ctx) };
    let mut written = shared.sinks.lock();
    if written.phase != Phase::Handle {
        if written.phase == Phase::Setup {
            written.fault(fault::NOT_ALLOWED, "publish outside of handle".into());
        }
        return abi::PUBLISH_NOT_ALLOWED;
    }
    if message.is_null() {
        return abi::PUBLISH_INVALID;
    }
    // SAFETY: not null, so a message of some version, valid during this call.
    let message = unsafe { abi::read_sized(message) };
    let n = if message.headers.is_null() { 0 } else { message.n_headers as usize };
    if n > abi::MAX_FOLLOW_UP_PROPERTIES {
        written.fault(fault::OVERSIZE, format!("a follow-up with {n} headers"));
        return abi::PUBLISH_TOO_LARGE;
    }
    let (Ok(delay_ms), Ok(expires_ms)) = (u64::try_from(message.delay_ms), u64::try_from(message.expires_ms))
    else {
        return abi::PUBLISH_INVALID;
    };
    // SAFETY: the message's contract: its fields and `n` headers are valid during this call.
    unsafe {
        let headers: Vec<_> = (0..n)
            .map(|i| message.headers.add(i).read())
            .map(|field| (field.key.as_slice(), field.value.as_slice()))
            .collect();
        let content_type = answer::bounded_type(message.content_type.as_slice());
        let frame = FollowUpFrame {
            id: message.id.as_slice(),
            queue: message.queue.as_slice(),
            message_type: message.message_type.as_slice(),
            content_type: content_type.as_bytes(),
            body: message.body.as_slice(),
            delay_ms,
            expires_ms,
            priority: message.priority,
            headers: &headers,
        };
        accept(&mut written, &frame)
    }
}

/// Takes a follow-up within the bounds.
fn accept(written: &mut Written, message: &FollowUpFrame<'_>) -> i32 {
    let words = [message.id, message.queue, message.message_type, message.content_type];
    let texts = || words.into_iter().chain(message.headers.iter().flat_map(|&(key, value)| [key, value]));
    // What routes or names cannot be shortened, and AMQP has no room for more.
    let mut names =
        [message.queue, message.message_type].into_iter().chain(message.headers.iter().map(|field| field.0));
    let too_long =
        |text: &[u8]| (abi::MAX_WORD_BYTES + 1..=abi::MAX_FOLLOW_UP_PROPERTIES).contains(&text.len());
    if message.priority > 255 || names.any(too_long) || texts().any(|text| std::str::from_utf8(text).is_err())
    {
        return abi::PUBLISH_INVALID;
    }
    if written.n_follow_ups as usize == abi::MAX_FOLLOW_UPS {
        written.fault(fault::OVERSIZE, format!("more than {} follow-ups", abi::MAX_FOLLOW_UPS));
        return abi::PUBLISH_TOO_MANY;
    }
    let properties: usize = texts().map(<[u8]>::len).sum();
    let (body, bodies) = (message.body.len(), written.follow_up_bodies + message.body.len());
    if body > abi::MAX_FOLLOW_UP_BYTES
        || properties > abi::MAX_FOLLOW_UP_PROPERTIES
        || bodies > abi::MAX_FOLLOW_UPS_BYTES
    {
        let what =
            format!("a follow-up of {body} bytes with {properties} of properties, {bodies} in one task");
        written.fault(fault::OVERSIZE, what);
        return abi::PUBLISH_TOO_LARGE;
    }
    message.put(&mut written.follow_ups);
    written.n_follow_ups += 1;
    written.follow_up_bodies = bodies;
    abi::PUBLISH_OK
}
