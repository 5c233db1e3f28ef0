//! The C functions behind an exported handler: one vtable per [`Handler`] type. Panics end here.
//!
//! Public only for [`export_plugin!`](crate::export_plugin) and the test kit, which drives handlers through the
//! same vtable as production does.
#![allow(unsafe_code)] // These functions are the boundary: their arguments are a foreign caller's.

use crate::abi::{self, Bytes, fault};
use crate::answer;
use crate::call::Call;
use crate::failure::Kind;
use crate::message::millis;
use crate::raw::{RawCall, RawHost, RawTask};
use crate::time::Time;
use crate::{Failure, Handler, Host, Logger, Outcome, Task, panics, settings};
use std::ffi::c_void;

/// The vtable of a handler.
pub const fn vtable<H: Handler>() -> abi::Plugin {
    abi::Plugin {
        magic: abi::MAGIC,
        struct_size: size_of::<abi::Plugin>() as u32,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        flags: 0,
        create: Some(create::<H>),
        handle: Some(handle::<H>),
        quiesce: Some(quiesce::<H>),
        destroy: Some(destroy::<H>),
    }
}

/// What `*instance` points to.
pub(crate) struct Instance<H> {
    handler: H,
    logger: Logger,
    /// The test kit puts its own clock here.
    pub(crate) time: Time,
}

unsafe extern "C" fn create<H: Handler>(
    host: *const abi::Host,
    settings: Bytes,
    call: *const abi::Call,
    instance: *mut *mut c_void,
) -> i32 {
    // SAFETY: the contract of `create`: valid during this call.
    let (call, settings) = unsafe { (RawCall::new(call), settings.as_slice()) };
    // SAFETY: the contract of `create`: valid until `destroy` returns, or, when this fails, until this returns. The
    // logger is closed before either.
    let logger = Logger::new(unsafe { RawHost::new(host) });
    let made = panics::caught(|| {
        let settings = settings::parse::<H::Settings>(settings)?;
        let handler = H::new(settings, &Host::new(logger.clone()))?;
        Ok(Box::new(Instance { handler, logger: logger.clone(), time: Time::System }))
    });
    match made.unwrap_or_else(|panic| Err(Failure::new(Kind::Fault, fault::PANIC, panic))) {
        Ok(made) => {
            // SAFETY: the contract of `create`: a place for one pointer.
            unsafe { instance.write(Box::into_raw(made).cast()) };
            abi::DONE
        }
        Err(failure) => {
            logger.close();
            report(&call, &failure)
        }
    }
}

unsafe extern "C" fn handle<H: Handler>(
    instance: *mut c_void,
    task: *const abi::Task,
    call: *const abi::Call,
) -> i32 {
    // SAFETY: the contract of `handle`: all are valid during this call, and one call at a time uses the instance.
    let (instance, task, call) =
        unsafe { (&mut *instance.cast::<Instance<H>>(), RawTask::new(task), RawCall::new(call)) };
    let Instance { handler, logger, time } = instance;
    let call = Call::new(call, time, logger);
    let task = match task {
        Ok(task) => Task::new(task),
        Err(field) => {
            let message = format!("the host's task has text that is not UTF-8 in `{field}`");
            return report(call.raw(), &Failure::new(Kind::Fault, fault::ABI, message));
        }
    };
    let outcome: Outcome = panics::caught(|| handler.handle(&task, &call))
        .unwrap_or_else(|panic| Err(Failure::new(Kind::Fault, fault::PANIC, panic)));
    match outcome {
        Ok(done) => {
            if !(done.bytes().is_empty() && done.content_type().is_empty()) {
                let answer = answer::bounded(done.content_type().as_bytes(), done.bytes());
                if !answer.note.is_empty() {
                    call.logger().warn(&answer.note);
                }
                call.raw().set_result(&answer.content_type, &answer.body);
            }
            abi::DONE
        }
        Err(failure) => report(call.raw(), &failure),
    }
}

unsafe extern "C" fn quiesce<H: Handler>(instance: *mut c_void, call: *const abi::Call) -> i32 {
    // SAFETY: the contract of `quiesce`: as for `handle`.
    let (instance, call) = unsafe { (&mut *instance.cast::<Instance<H>>(), RawCall::new(call)) };
    let Instance { handler, logger, time } = instance;
    let call = Call::new(call, time, logger);
    match panics::caught(|| handler.quiesce(&call)) {
        Ok(()) => abi::DONE,
        Err(panic) => report(call.raw(), &Failure::new(Kind::Fault, fault::PANIC, panic)),
    }
}

unsafe extern "C" fn destroy<H: Handler>(instance: *mut c_void) {
    // SAFETY: the contract of `destroy`: called once, last, with what `create` made.
    let instance = unsafe { Box::from_raw(instance.cast::<Instance<H>>()) };
    let logger = instance.logger.clone();
    if let Err(panic) = panics::caught(|| drop(instance)) {
        logger.error(&format!("the handler panicked while it was dropped: {panic}"));
    }
    logger.close();
}

/// Hands a failure to the host; returns the status that goes with it.
fn report(call: &RawCall<'_>, failure: &Failure) -> i32 {
    let retry_after = failure.retry_after().map_or(0, |delay| millis(delay).max(1));
    call.set_error(failure.code(), failure.message(), retry_after);
    match failure.kind() {
        Kind::Retry => abi::RETRY,
        Kind::Reject => abi::REJECT,
        Kind::Cancelled => abi::CANCELLED,
        Kind::Fault => abi::FAULT,
    }
}
