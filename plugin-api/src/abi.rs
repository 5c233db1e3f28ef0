//! The C ABI, as `include/warren_plugin.h` states it: the same structs, constants and bounds for Rust.
//!
//! This module is for the two sides of the boundary (the plugin host and the SDK's own shim). A handler
//! written in Rust uses [`crate::Handler`] and never sees it. The contract of every function pointer stands
//! in the header; here stands only what Rust needs on top.
//!
//! Growth rule: structs grow at the end only, and a field may be read only if it lies inside the
//! `struct_size` the other side wrote. [`read_sized`] does that: what lies outside is zero, which for a
//! function pointer is `None`.
#![allow(unsafe_code)] // The layout of foreign structs is read here, and nowhere else in the crate but `raw`.

use std::ffi::c_void;
use std::mem::{MaybeUninit, offset_of, size_of};

#[cfg(not(all(target_pointer_width = "64", target_endian = "little", target_os = "linux")))]
compile_error!("the Warren plugin ABI is defined for LP64 little-endian Linux only");

/// First word of a [`Plugin`]: the bytes `WRRN` in memory order.
pub const MAGIC: u32 = u32::from_le_bytes(*b"WRRN");
/// ABI major version: equal on both sides or the plugin is refused.
pub const ABI_MAJOR: u16 = 1;
/// ABI minor version: a plugin's may not be above its host's.
pub const ABI_MINOR: u16 = 0;
/// The one exported symbol, NUL-terminated for `dlsym`: [`EntryPoint`].
pub const ENTRY_SYMBOL: &[u8] = b"warren_plugin_v1\0";

/// ELF section of the manifest note. Read it from a `PT_NOTE` segment, not by section name: sections may be
/// stripped.
pub const NOTE_SECTION: &str = ".note.warren";
/// Owner of the manifest note, without its NUL.
pub const NOTE_OWNER: &str = "warren";
/// Type of the manifest note. Its descriptor is JSON; NUL bytes at its end are padding and not part of it.
pub const NOTE_TYPE: u32 = 1;

/// Status: finished. The task is acknowledged once its follow-ups are confirmed.
pub const DONE: i32 = 0;
/// Status: try again later.
pub const RETRY: i32 = 1;
/// Status: never again; the task becomes a dead letter.
pub const REJECT: i32 = 2;
/// Status: stopped because it was asked to, or because its deadline has passed. Without either it is a fault.
pub const CANCELLED: i32 = 3;
/// Status: the handler itself is broken (a panic, above all). Any value above is a fault too.
pub const FAULT: i32 = 4;

/// Task flag: the broker had delivered this task before.
pub const TASK_REDELIVERED: u32 = 1;
/// Task flag: the producer gave no id; this one is Warren's and says nothing about duplicates by the
/// producer.
pub const TASK_ID_GENERATED: u32 = 2;

/// Log level.
pub const LOG_ERROR: i32 = 1;
/// Log level.
pub const LOG_WARN: i32 = 2;
/// Log level.
pub const LOG_INFO: i32 = 3;
/// Log level.
pub const LOG_DEBUG: i32 = 4;
/// Log level.
pub const LOG_TRACE: i32 = 5;

/// `publish` took the message.
pub const PUBLISH_OK: i32 = 0;
/// `publish` is not allowed here: in `create`, in `quiesce`, or after the call returned.
pub const PUBLISH_NOT_ALLOWED: i32 = 1;
/// The message is malformed: text that is not UTF-8, a negative duration, or a queue, type or header name over
/// [`MAX_WORD_BYTES`], for which AMQP has no room.
pub const PUBLISH_INVALID: i32 = 2;
/// More than [`MAX_FOLLOW_UPS`] in one task. The task is a fault whatever it returns.
pub const PUBLISH_TOO_MANY: i32 = 3;
/// A body over [`MAX_FOLLOW_UP_BYTES`], or properties over [`MAX_FOLLOW_UP_PROPERTIES`]. The task is a fault
/// whatever it returns.
pub const PUBLISH_TOO_LARGE: i32 = 4;

/// Most bytes of a result's body: it is a summary for people and for the log (the artefact belongs in a
/// file), and it crosses the host's socket in one frame. A longer one is left out, and a line says so.
pub const MAX_RESULT_BYTES: usize = 256 * 1024;
/// Most bytes of a content type (of a longer one its parameters are left out), an error code or a log field's key (cut).
pub const MAX_WORD_BYTES: usize = 255;
/// Most bytes of an error message. A longer one is cut at a character boundary. The header of a retry or dead letter keeps
/// the first 1,024 bytes, because all headers travel in one frame.
pub const MAX_ERROR_BYTES: usize = 8 * 1024;
/// Most follow-ups of one task: they are held in memory until it is done and each waits for a confirm. More
/// is a fault.
pub const MAX_FOLLOW_UPS: usize = 1_000;
/// Most bytes of one follow-up's body: the same bound as for a task that arrives. More is a fault.
pub const MAX_FOLLOW_UP_BYTES: usize = 1024 * 1024;
/// Most bytes of one follow-up's id, queue, type, content type and headers together: the broker takes
/// properties in one frame, and the smallest frame in use is 8,192 bytes. More is a fault.
pub const MAX_FOLLOW_UP_PROPERTIES: usize = 4 * 1024;
/// Most bytes of follow-up bodies of one task together: what a host may make the daemon hold. More is a
/// fault.
pub const MAX_FOLLOW_UPS_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of a log line or a progress note. A longer one is cut at a character boundary.
pub const MAX_LOG_BYTES: usize = 8 * 1024;
/// Most fields of one log line; the rest is left out.
pub const MAX_LOG_FIELDS: usize = 32;
/// Most bytes of all keys and values of one log line together. What is over it is cut.
pub const MAX_LOG_FIELDS_BYTES: usize = 4 * MAX_LOG_BYTES;

/// Error codes of faults, the same from every host and from the test kit.
pub mod fault {
    /// The handler panicked; the message has the payload and the place.
    pub const PANIC: &str = "panic";
    /// A follow-up over its bound.
    pub const OVERSIZE: &str = "oversize";
    /// The plugin returned a status that the ABI does not have.
    pub const UNKNOWN_STATUS: &str = "unknown-status";
    /// The handler said "cancelled", but nobody had asked it to stop and its deadline had not passed.
    pub const NOT_CANCELLED: &str = "not-cancelled";
    /// `set_result` or `publish` in `create` or `quiesce`.
    pub const NOT_ALLOWED: &str = "not-allowed";
    /// The other side broke the ABI: a missing function, text that is not UTF-8.
    pub const ABI: &str = "abi";
}

/// Borrowed bytes. Text is UTF-8 without a terminating NUL. Frozen: it never grows.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    /// Start; may be null when `len` is 0.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: usize,
}

/// A key and a value, both text. Frozen: it never grows.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// `log(ctx, level, message, fields, n)`.
pub type LogFn = unsafe extern "C" fn(*mut c_void, i32, Bytes, *const Field, usize);
/// `cancelled(ctx)`: not 0 when the task should stop.
pub type CancelledFn = unsafe extern "C" fn(*mut c_void) -> i32;
/// `progress(ctx, permille, note)`.
pub type ProgressFn = unsafe extern "C" fn(*mut c_void, u32, Bytes);
/// `set_result(ctx, content_type, body)`.
pub type SetResultFn = unsafe extern "C" fn(*mut c_void, Bytes, Bytes);
/// `set_error(ctx, code, message, retry_after_ms)`.
pub type SetErrorFn = unsafe extern "C" fn(*mut c_void, Bytes, Bytes, i64);
/// `publish(ctx, message)`: 0 or one of the `PUBLISH_` codes.
pub type PublishFn = unsafe extern "C" fn(*mut c_void, *const Message) -> i32;
/// `create(host, settings_json, call, instance)`.
pub type CreateFn = unsafe extern "C" fn(*const Host, Bytes, *const Call, *mut *mut c_void) -> i32;
/// `handle(instance, task, call)`.
pub type HandleFn = unsafe extern "C" fn(*mut c_void, *const Task, *const Call) -> i32;
/// `quiesce(instance, call)`.
pub type QuiesceFn = unsafe extern "C" fn(*mut c_void, *const Call) -> i32;
/// `destroy(instance)`.
pub type DestroyFn = unsafe extern "C" fn(*mut c_void);
/// The exported symbol `warren_plugin_v1`.
pub type EntryPoint = unsafe extern "C" fn() -> *const Plugin;

/// What the host gives a plugin for life: valid from `create` until `destroy` returns.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// Size of the writer's struct.
    pub struct_size: u32,
    /// The host's ABI major.
    pub abi_major: u16,
    /// The host's ABI minor.
    pub abi_minor: u16,
    /// First argument of every function here.
    pub ctx: *mut c_void,
    /// Writes a log line; from any thread.
    pub log: Option<LogFn>,
}

/// One call into the plugin: valid until that call returns.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Size of the writer's struct.
    pub struct_size: u32,
    /// Readable once the task should stop; -1: never.
    pub cancel_fd: i32,
    /// First argument of every function here.
    pub ctx: *mut c_void,
    /// `CLOCK_MONOTONIC` in nanoseconds; 0: no deadline.
    pub deadline_ns: i64,
    /// Whether the task should stop.
    pub cancelled: Option<CancelledFn>,
    /// Reports progress.
    pub progress: Option<ProgressFn>,
    /// Sets the result; copied, the last one wins.
    pub set_result: Option<SetResultFn>,
    /// Sets the error; copied, the last one wins.
    pub set_error: Option<SetErrorFn>,
    /// Adds a follow-up task; copied.
    pub publish: Option<PublishFn>,
}

/// A follow-up task.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// Size of the writer's struct.
    pub struct_size: u32,
    /// Number of `headers`.
    pub n_headers: u32,
    /// Message id; empty: `<task id>/<n>`, so that a rerun repeats its ids.
    pub id: Bytes,
    /// Queue; empty: the task's own.
    pub queue: Bytes,
    /// AMQP `type`; empty: none.
    pub message_type: Bytes,
    /// AMQP `content_type`; empty: none.
    pub content_type: Bytes,
    /// The body.
    pub body: Bytes,
    /// String headers.
    pub headers: *const Field,
    /// Milliseconds before it becomes visible; 0: none.
    pub delay_ms: i64,
    /// Milliseconds until it expires; 0: never.
    pub expires_ms: i64,
    /// AMQP priority 0 to 255; negative: none.
    pub priority: i32,
    /// Zero.
    pub reserved: u32,
}

/// The task to handle; valid during the call.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// Size of the writer's struct.
    pub struct_size: u32,
    /// Counts from 1.
    pub attempt: u32,
    /// `TASK_` bits; others are to be ignored.
    pub flags: u32,
    /// Number of `headers`.
    pub n_headers: u32,
    /// Message id.
    pub id: Bytes,
    /// The queue it came from.
    pub queue: Bytes,
    /// The prefix that matched, or the AMQP `type` that did.
    pub prefix: Bytes,
    /// What follows the prefix, trimmed.
    pub argument: Bytes,
    /// AMQP `content_type`; empty: none.
    pub content_type: Bytes,
    /// The whole body, any bytes.
    pub body: Bytes,
    /// Headers; values that are not strings as JSON.
    pub headers: *const Field,
}

/// The plugin's vtable, static in the plugin.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Plugin {
    /// [`MAGIC`].
    pub magic: u32,
    /// Size of the writer's struct.
    pub struct_size: u32,
    /// ABI major it was built for.
    pub abi_major: u16,
    /// ABI minor it needs.
    pub abi_minor: u16,
    /// None yet; zero.
    pub flags: u32,
    /// Makes the handler.
    pub create: Option<CreateFn>,
    /// Runs one task.
    pub handle: Option<HandleFn>,
    /// Optional: end threads, flush.
    pub quiesce: Option<QuiesceFn>,
    /// Frees the handler.
    pub destroy: Option<DestroyFn>,
}

impl Bytes {
    /// No bytes.
    pub const EMPTY: Self = Self { ptr: std::ptr::null(), len: 0 };

    /// Borrows `bytes`: the result must not outlive them.
    pub const fn of(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// The bytes; a null pointer is read as none.
    ///
    /// # Safety
    /// `ptr` is null, or valid for reading `len` bytes that nobody changes during `'a`.
    pub const unsafe fn as_slice<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: not null, so valid for `len` bytes as the caller promises; u8 needs no alignment.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// A struct of this ABI that states its own size, so that an older or newer writer's can be read.
///
/// # Safety
/// The type is `#[repr(C)]`, all-zero bytes are a value of it, and a `u32` with the size of the writer's
/// struct lies at [`SIZE_AT`](Self::SIZE_AT).
pub unsafe trait SizedStruct: Copy {
    /// Offset of the `u32` that holds the size.
    const SIZE_AT: usize = 0;
}

// SAFETY: repr(C) of integers, pointers and optional function pointers; the size is the first field.
unsafe impl SizedStruct for Host {}
// SAFETY: as above.
unsafe impl SizedStruct for Call {}
// SAFETY: as above.
unsafe impl SizedStruct for Message {}
// SAFETY: as above.
unsafe impl SizedStruct for Task {}
// SAFETY: as above, but the size is the second field.
unsafe impl SizedStruct for Plugin {
    const SIZE_AT: usize = offset_of!(Plugin, struct_size);
}

/// Copies a struct that the other side wrote: only what lies inside its `struct_size`, the rest zero. The
/// `struct_size` of the copy stays the writer's. A size that cuts a pointer in two counts as without that
/// pointer.
///
/// # Safety
/// `source` is valid for reading up to `SIZE_AT + 4` bytes and for as many bytes as the size there says. It
/// need not be aligned.
pub unsafe fn read_sized<T: SizedStruct>(source: *const T) -> T {
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: the caller promises the size field; `len` is within both the writer's struct and `copy`. Zero bytes
    // are a `T`, as the trait promises, and so is the beginning of a writer's `T` over them: it ends on a multiple
    // of 8, which never cuts a pointer in two.
    unsafe {
        let size = source.cast::<u8>().add(T::SIZE_AT).cast::<u32>().read_unaligned() as usize;
        let len = size.min(size_of::<T>()) & !7;
        std::ptr::copy_nonoverlapping(source.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), len);
        copy.assume_init()
    }
}

/// The header's layout, once more. A failure here means that header and Rust disagree.
macro_rules! layout {
    ($type:ident: $size:literal, $($field:ident @ $offset:literal),*) => {
        const _: () = {
            assert!(size_of::<$type>() == $size && std::mem::align_of::<$type>() == 8);
            $(assert!(offset_of!($type, $field) == $offset);)*
        };
    };
}

layout!(Bytes: 16, ptr @ 0, len @ 8);
layout!(Field: 32, key @ 0, value @ 16);
layout!(Host: 24, struct_size @ 0, abi_major @ 4, abi_minor @ 6, ctx @ 8, log @ 16);
layout!(Call: 64, struct_size @ 0, cancel_fd @ 4, ctx @ 8, deadline_ns @ 16, cancelled @ 24, progress @ 32,
    set_result @ 40, set_error @ 48, publish @ 56);
layout!(Message: 120, struct_size @ 0, n_headers @ 4, id @ 8, queue @ 24, message_type @ 40, content_type @ 56,
    body @ 72, headers @ 88, delay_ms @ 96, expires_ms @ 104, priority @ 112, reserved @ 116);
layout!(Task: 120, struct_size @ 0, attempt @ 4, flags @ 8, n_headers @ 12, id @ 16, queue @ 32, prefix @ 48,
    argument @ 64, content_type @ 80, body @ 96, headers @ 112);
layout!(Plugin: 48, magic @ 0, struct_size @ 4, abi_major @ 8, abi_minor @ 10, flags @ 12, create @ 16,
    handle @ 24, quiesce @ 32, destroy @ 40);
