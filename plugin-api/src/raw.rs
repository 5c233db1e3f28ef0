//! The host's structs made safe: the one place of the SDK's handler side that calls foreign function pointers and
//! reads foreign bytes. Everything above it (`call`, `task`, `log`) is safe code.
#![allow(unsafe_code)] // The boundary itself; the contracts relied on are those of `warren_plugin.h`.

use crate::abi::{self, Bytes, Field};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

/// The host's `struct warren_call` during one call.
pub(crate) struct RawCall<'a> {
    abi: abi::Call,
    alive: PhantomData<&'a ()>,
}

// SAFETY: the contract of `warren_call`: its functions may be called from any thread until the call returns, and
// `'a` ends no later than that.
unsafe impl Send for RawCall<'_> {}
// SAFETY: as above.
unsafe impl Sync for RawCall<'_> {}

impl RawCall<'_> {
    /// # Safety
    /// `call` points to a host's `warren_call` that stays valid during `'a`.
    pub(crate) unsafe fn new(call: *const abi::Call) -> Self {
        // SAFETY: valid as the caller promises.
        Self { abi: unsafe { abi::read_sized(call) }, alive: PhantomData }
    }

    pub(crate) fn deadline_ns(&self) -> i64 {
        self.abi.deadline_ns
    }

    pub(crate) fn cancelled(&self) -> bool {
        // SAFETY: the contract of `warren_call`: callable with its ctx during the call.
        self.abi.cancelled.is_some_and(|f| unsafe { f(self.abi.ctx) != 0 })
    }

    pub(crate) fn cancel_fd(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the contract of `warren_call`: the host keeps it open during the call, and -1 means none.
        (self.abi.cancel_fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(self.abi.cancel_fd) })
    }

    pub(crate) fn progress(&self, permille: u32, note: &str) {
        if let Some(f) = self.abi.progress {
            // SAFETY: the contract of `warren_call`; the note is only read during the call of `f`.
            unsafe { f(self.abi.ctx, permille, Bytes::of(note.as_bytes())) }
        }
    }

    pub(crate) fn set_result(&self, content_type: &str, body: &[u8]) {
        if let Some(f) = self.abi.set_result {
            // SAFETY: the contract of `warren_call`; both are copied before `f` returns.
            unsafe { f(self.abi.ctx, Bytes::of(content_type.as_bytes()), Bytes::of(body)) }
        }
    }

    pub(crate) fn set_error(&self, code: &str, message: &str, retry_after_ms: i64) {
        if let Some(f) = self.abi.set_error {
            let (code, message) = (Bytes::of(code.as_bytes()), Bytes::of(message.as_bytes()));
            // SAFETY: the contract of `warren_call`; both are copied before `f` returns.
            unsafe { f(self.abi.ctx, code, message, retry_after_ms) }
        }
    }

    /// 0, or one of the `PUBLISH_` codes. The pointers in `message` must be valid, so only this crate may call it.
    pub(crate) fn publish(&self, message: &abi::Message) -> i32 {
        // SAFETY: the contract of `warren_call`; the message is copied before `f` returns.
        self.abi.publish.map_or(abi::PUBLISH_NOT_ALLOWED, |f| unsafe { f(self.abi.ctx, message) })
    }
}

/// The host's `struct warren_host`.
#[derive(Clone, Copy)]
pub(crate) struct RawHost {
    log: Option<abi::LogFn>,
    ctx: *mut c_void,
}

// SAFETY: the contract of `warren_host`: `log` may be called from any thread until `destroy` returns. `Logger`
// forgets the host before that.
unsafe impl Send for RawHost {}
// SAFETY: as above.
unsafe impl Sync for RawHost {}

impl RawHost {
    /// # Safety
    /// `host` points to a host's `warren_host`, and what it names outlives the value and its copies.
    pub(crate) unsafe fn new(host: *const abi::Host) -> Self {
        // SAFETY: valid as the caller promises.
        let host = unsafe { abi::read_sized(host) };
        Self { log: host.log, ctx: host.ctx }
    }

    pub(crate) fn log(&self, level: i32, message: &str, fields: &[(&str, &str)]) {
        let Some(f) = self.log else { return };
        let fields: Vec<Field> = fields.iter().map(|(key, value)| field(key, value)).collect();
        // SAFETY: the contract of `warren_host`; everything is copied before `f` returns.
        unsafe { f(self.ctx, level, Bytes::of(message.as_bytes()), fields.as_ptr(), fields.len()) }
    }
}

/// The host's `struct warren_task` during one call, its text checked.
pub(crate) struct RawTask<'a> {
    pub(crate) attempt: u32,
    pub(crate) flags: u32,
    pub(crate) id: &'a str,
    pub(crate) queue: &'a str,
    pub(crate) prefix: &'a str,
    pub(crate) argument: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a [u8],
    headers: &'a [Field],
}

impl<'a> RawTask<'a> {
    /// The task, or the name of the field that should be text and is not.
    ///
    /// # Safety
    /// `task` points to a host's `warren_task` that stays valid and unchanged during `'a`.
    pub(crate) unsafe fn new(task: *const abi::Task) -> Result<Self, &'static str> {
        // SAFETY: valid as the caller promises.
        let task = unsafe { abi::read_sized(task) };
        let text = |name, bytes: Bytes| {
            // SAFETY: a `warren_bytes` of a valid task.
            std::str::from_utf8(unsafe { bytes.as_slice::<'a>() }).map_err(|_| name)
        };
        Ok(Self {
            attempt: task.attempt,
            flags: task.flags,
            id: text("id", task.id)?,
            queue: text("queue", task.queue)?,
            prefix: text("prefix", task.prefix)?,
            argument: text("argument", task.argument)?,
            content_type: text("content_type", task.content_type)?,
            // SAFETY: a `warren_bytes` of a valid task.
            body: unsafe { task.body.as_slice() },
            headers: if task.headers.is_null() {
                &[]
            } else {
                // SAFETY: not null, so `n_headers` fields, which live as long as the task.
                unsafe { std::slice::from_raw_parts(task.headers, task.n_headers as usize) }
            },
        })
    }

    /// The headers; one that is not UTF-8 (which a host never sends) is left out.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.headers.iter().filter_map(|field| {
            // SAFETY: fields of a valid task.
            let (key, value) = unsafe { (field.key.as_slice(), field.value.as_slice()) };
            Some((std::str::from_utf8(key).ok()?, std::str::from_utf8(value).ok()?))
        })
    }
}

/// Borrows a pair: the result must not outlive it.
pub(crate) fn field(key: &str, value: &str) -> Field {
    Field { key: Bytes::of(key.as_bytes()), value: Bytes::of(value.as_bytes()) }
}
