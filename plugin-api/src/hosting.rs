//! The host's side of the C ABI: the functions that a plugin may call, their bounds, and the meaning of what a plugin
//! returns.
//!
//! The daemon's plugin host and the [test kit](crate::testing) are both built on this module, so that a handler meets
//! the same rules in a test and in production. A handler's author does not need it.
//!
//! A host implements [`PluginHost`]: where log lines and progress go, and where the [`CallRecord`] of the running call
//! is kept. [`host_table`] and [`call_table`] make the structs that the plugin is given; [`PluginTable`] makes the
//! calls into the plugin; [`CallRecord::verdict`] and [`CallRecord::created`] say what a call came to.
#![allow(unsafe_code)] // C functions that a plugin calls; the contracts relied on are those of `warren_plugin.h`.

mod bounds;
mod record;
mod routing;
mod table;

pub use bounds::bounded_text;
pub use record::{CallError, CallRecord, Ending, FollowUp, FollowUps, Phase, StopReason};
pub use routing::{ends_on_word_boundary, split_label, trim_newline};
pub use table::PluginTable;

use crate::abi::{self, Bytes, Field};
use crate::answer;
use std::borrow::Cow;
use std::ffi::c_void;

/// What a host does with what a plugin tells it. The plugin may call from any of its threads.
pub trait PluginHost: Sync {
    /// Where the follow-ups of the running call are kept.
    type FollowUps: FollowUps;

    /// Gives `f` the record of the running call. Calls do not nest.
    fn with_record<T>(&self, f: impl FnOnce(&mut CallRecord<Self::FollowUps>) -> T) -> T;

    /// Whether the running task should stop.
    fn cancelled(&self) -> bool;

    /// The running call has come this far, in thousandths. The note is within the bounds.
    fn progress(&self, permille: u32, note: &str);

    /// Writes a log line. The level is one of the ABI's, and the texts are within the bounds.
    fn log(&self, level: i32, message: &str, fields: &[(Cow<'_, str>, Cow<'_, str>)]);
}

/// The struct that a plugin is given for its life. The plugin may call its function as long as it exists, so `host`
/// must live until the plugin's `destroy` has returned.
pub fn host_table<H: PluginHost>(host: &H) -> abi::Host {
    abi::Host {
        struct_size: size_of::<abi::Host>() as u32,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        ctx: context(host),
        log: Some(log::<H>),
    }
}

/// The struct that a plugin is given for one call. The plugin may call its functions until that call returns, so `host`
/// must live as long.
pub fn call_table<H: PluginHost>(host: &H, cancel_fd: i32, deadline_ns: i64) -> abi::Call {
    abi::Call {
        struct_size: size_of::<abi::Call>() as u32,
        cancel_fd,
        ctx: context(host),
        deadline_ns,
        cancelled: Some(cancelled::<H>),
        progress: Some(progress::<H>),
        set_result: Some(set_result::<H>),
        set_error: Some(set_error::<H>),
        publish: Some(publish::<H>),
    }
}

fn context<H: PluginHost>(host: &H) -> *mut c_void {
    std::ptr::from_ref(host).cast_mut().cast()
}

/// # Safety
/// `ctx` is what [`context`] made of an `H` that still lives.
unsafe fn host<'a, H: PluginHost>(ctx: *mut c_void) -> &'a H {
    // SAFETY: the caller's promise; only shared references to it exist.
    unsafe { &*ctx.cast::<H>() }
}

unsafe extern "C" fn cancelled<H: PluginHost>(ctx: *mut c_void) -> i32 {
    // SAFETY: by contract the plugin passes on the `ctx` of the struct that it has the function from.
    let host = unsafe { host::<H>(ctx) };
    i32::from(host.cancelled())
}

unsafe extern "C" fn progress<H: PluginHost>(ctx: *mut c_void, permille: u32, note: Bytes) {
    // SAFETY: as in `cancelled`; by contract the note is valid during this call.
    let (host, note) = unsafe { (host::<H>(ctx), note.as_slice()) };
    host.progress(permille.min(1000), &bounded_text(note, abi::MAX_LOG_BYTES));
}

unsafe extern "C" fn log<H: PluginHost>(
    ctx: *mut c_void,
    level: i32,
    message: Bytes,
    fields: *const Field,
    n: usize,
) {
    // SAFETY: as in `cancelled`; by contract the message is valid during this call.
    let (host, message) = unsafe { (host::<H>(ctx), message.as_slice()) };
    let n = if fields.is_null() { 0 } else { n.min(abi::MAX_LOG_FIELDS) };
    let mut left = abi::MAX_LOG_FIELDS_BYTES;
    let mut text = |bytes: Bytes, max: usize| {
        // SAFETY: by contract every text of a field is valid during this call.
        let text = bounded_text(unsafe { bytes.as_slice() }, max.min(left));
        left -= text.len();
        text
    };
    let fields: Vec<_> = (0..n)
        // SAFETY: not null, and by contract valid for the caller's `n`, of which this is at most the first part.
        .map(|i| unsafe { fields.add(i).read() })
        .map(|field| (text(field.key, abi::MAX_WORD_BYTES), text(field.value, abi::MAX_LOG_BYTES)))
        .collect();
    let level = level.clamp(abi::LOG_ERROR, abi::LOG_TRACE);
    host.log(level, &bounded_text(message, abi::MAX_LOG_BYTES), &fields);
}

unsafe extern "C" fn set_result<H: PluginHost>(ctx: *mut c_void, content_type: Bytes, body: Bytes) {
    // SAFETY: as in `cancelled`; by contract both are valid during this call.
    let (host, content_type, body) = unsafe { (host::<H>(ctx), content_type.as_slice(), body.as_slice()) };
    let answer = answer::bounded(content_type, body);
    let taken = host.with_record(|record| record.set_result(&answer.content_type, &answer.body));
    if taken && !answer.note.is_empty() {
        host.log(abi::LOG_WARN, &answer.note, &[]);
    }
}

unsafe extern "C" fn set_error<H: PluginHost>(
    ctx: *mut c_void,
    code: Bytes,
    message: Bytes,
    retry_after_ms: i64,
) {
    // SAFETY: as in `cancelled`; by contract both are valid during this call.
    let (host, code, message) = unsafe { (host::<H>(ctx), code.as_slice(), message.as_slice()) };
    let error = CallError::bounded(code, message, retry_after_ms);
    host.with_record(|record| record.set_error(error));
}

unsafe extern "C" fn publish<H: PluginHost>(ctx: *mut c_void, message: *const abi::Message) -> i32 {
    // SAFETY: as in `cancelled`; by contract null or a message that is valid during this call.
    unsafe {
        let host = host::<H>(ctx);
        host.with_record(|record| record.publish_raw(message))
    }
}
