//! The boundary itself, with structs made by hand: older and newer writers, broken text, missing functions.
#![allow(unsafe_code)] // Plays a foreign host: there is no safe way to hand over a broken struct.

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use warren_plugin::abi::{self, Bytes, read_sized};
use warren_plugin::hosting::bounded_text;
use warren_plugin::{Call, Done, Failure, Handler, Host, Message, NoSettings, Outcome, Task, shim};

/// Answers with the argument, and tries everything a call offers.
struct Echo;

impl Handler for Echo {
    type Settings = NoSettings;

    fn new(_: NoSettings, host: &Host) -> Result<Self, Failure> {
        host.info("made");
        Ok(Self)
    }

    fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome {
        call.check()?;
        call.progress(500, "half");
        if task.argument() == "publish" {
            call.publish(Message::new("more"))?;
        }
        Ok(Done::text(task.argument()))
    }
}

const ECHO: abi::Plugin = shim::vtable::<Echo>();

/// What the hand-made host was told.
#[derive(Default)]
struct Told {
    error: Mutex<(String, String)>,
}

unsafe extern "C" fn set_error(ctx: *mut c_void, code: Bytes, message: Bytes, _retry_after_ms: i64) {
    // SAFETY: `ctx` is the `Told` of the running test; both texts are valid during this call.
    let (told, code, message) = unsafe { (&*ctx.cast::<Told>(), code.as_slice(), message.as_slice()) };
    *told.error.lock().unwrap() =
        (bounded_text(code, 100).into_owned(), bounded_text(message, 1000).into_owned());
}

/// The barest call that a host of ABI 1.0 could give: every function but `set_error` is missing.
fn bare_call(told: &Told) -> abi::Call {
    abi::Call {
        struct_size: size_of::<abi::Call>() as u32,
        cancel_fd: -1,
        ctx: std::ptr::from_ref(told).cast_mut().cast(),
        deadline_ns: 0,
        cancelled: None,
        progress: None,
        set_result: None,
        set_error: Some(set_error),
        publish: None,
    }
}

fn task(argument: &[u8]) -> abi::Task {
    abi::Task {
        struct_size: size_of::<abi::Task>() as u32,
        attempt: 1,
        flags: 0,
        n_headers: 0,
        id: Bytes::of(b"t-1"),
        queue: Bytes::EMPTY,
        prefix: Bytes::EMPTY,
        argument: Bytes::of(argument),
        content_type: Bytes::EMPTY,
        body: Bytes::of(argument),
        headers: null(),
    }
}

/// Status of one task run by a handler that lives just for it, and the error it set.
fn run(task: &abi::Task, settings: &[u8]) -> (i32, String, String) {
    let told = Told::default();
    let call = bare_call(&told);
    let host = abi::Host {
        struct_size: size_of::<abi::Host>() as u32,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        ctx: null_mut(),
        log: None,
    };
    let mut instance = null_mut();
    // SAFETY: all of it lives until this function returns, and the order of calls is the contract's.
    let status = unsafe {
        let created =
            ECHO.create.unwrap()(&raw const host, Bytes::of(settings), &raw const call, &raw mut instance);
        if created == abi::DONE {
            let status = ECHO.handle.unwrap()(instance, task, &raw const call);
            assert_eq!(ECHO.quiesce.unwrap()(instance, &raw const call), abi::DONE);
            ECHO.destroy.unwrap()(instance);
            status
        } else {
            assert!(instance.is_null(), "a failed create leaves the instance alone");
            created
        }
    };
    let (code, message) = told.error.into_inner().unwrap();
    (status, code, message)
}

#[test]
fn a_host_without_optional_functions_is_no_crash() {
    assert_eq!(run(&task(b"hello"), b"{}").0, abi::DONE);
    let (status, code, _) = run(&task(b"publish"), b"{}");
    assert_eq!((status, code.as_str()), (abi::REJECT, "follow-up-refused"));
}

#[test]
fn a_task_whose_text_is_not_utf8_is_a_fault_of_the_host() {
    let (status, code, message) = run(&task(b"\xff"), b"{}");
    assert_eq!((status, code.as_str()), (abi::FAULT, abi::fault::ABI));
    assert!(message.contains("`argument`"), "{message}");
}

#[test]
fn a_failed_create_says_why_and_leaves_the_instance_alone() {
    let (status, code, message) = run(&task(b""), br#"{"colour":"red"}"#);
    assert_eq!((status, code.as_str()), (abi::REJECT, "bad-settings"));
    assert!(message.contains("unknown field `colour`"), "{message}");
}

#[test]
fn a_shorter_struct_reads_as_zero_beyond_its_size() {
    let told = Told::default();
    let mut call = bare_call(&told);
    for (size, ctx_is_null, set_error_is_none) in [
        (size_of::<abi::Call>(), false, false),
        (offset_of!(abi::Call, publish), false, false),
        (offset_of!(abi::Call, set_error), false, true),
        (offset_of!(abi::Call, set_error) + 4, false, true),
        (offset_of!(abi::Call, ctx), true, true),
        (0, true, true),
    ] {
        call.struct_size = size as u32;
        // SAFETY: `call` has all its fields; the reader is to stop at the size stated.
        let read = unsafe { read_sized(&raw const call) };
        assert_eq!(
            (read.ctx.is_null(), read.set_error.is_none()),
            (ctx_is_null, set_error_is_none),
            "{size}"
        );
    }
}

#[test]
fn a_longer_struct_is_read_as_far_as_it_is_known() {
    #[repr(C)]
    struct Newer {
        known: abi::Plugin,
        unknown: [u64; 4],
    }
    let mut newer = Newer { known: ECHO, unknown: [u64::MAX; 4] };
    newer.known.struct_size = size_of::<Newer>() as u32;
    // SAFETY: the struct is as long as it says.
    let read = unsafe { read_sized((&raw const newer).cast::<abi::Plugin>()) };
    assert_eq!((read.magic, read.struct_size as usize), (abi::MAGIC, size_of::<Newer>()));
    assert!(read.destroy.is_some());
    assert_eq!(newer.unknown, [u64::MAX; 4]);
}
