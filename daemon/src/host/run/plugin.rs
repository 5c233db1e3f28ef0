//! Loads the plugin and calls its vtable. Everything here runs on the main thread.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use warren_plugin::abi::{self, Bytes, Field};

use super::call::{self, Phase};
use super::{Shared, gate, setup};
use crate::host::frame::TaskFrame;
use crate::model::TaskError;

/// The loaded plugin and, once created, its handler.
pub(super) struct Plugin {
    create: abi::CreateFn,
    handle: abi::HandleFn,
    quiesce: Option<abi::QuiesceFn>,
    destroy: abi::DestroyFn,
    /// Given to `create`; the plugin keeps the pointer until `destroy` returns, hence leaked.
    host: &'static abi::Host,
    instance: Cell<*mut c_void>,
    /// The running task's headers; kept to save the allocation.
    headers: RefCell<Vec<Field>>,
}

impl Plugin {
    /// Loads the sealed plugin under the name of its descriptor, which stays open for the life of the
    /// process.
    pub(super) fn load(library: OwnedFd, shared: &'static Shared) -> Result<Self, TaskError> {
        let path = format!("/proc/self/fd/{}", library.as_raw_fd());
        // Never closed: see `setup::Channel::plugin`.
        let _ = library.into_raw_fd();
        // SAFETY: the plugin's initialisers run here. That is what this process is for.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|error| refused("load", format!("the plugin cannot be loaded: {error}")))?;
        // SAFETY: the symbol has this type in every plugin whose note names our ABI, and the note was
        // checked.
        let entry = unsafe { library.get::<abi::EntryPoint>(abi::ENTRY_SYMBOL) }
            .map_err(|error| refused("load", format!("the plugin has no entry point: {error}")))?;
        let entry = *entry;
        std::mem::forget(library); // `dlclose` is a no-op at best: the process ends instead.
        // SAFETY: the entry point takes nothing and returns a pointer to a static.
        let table = unsafe { entry() };
        if table.is_null() {
            return Err(refused(abi::fault::ABI, "warren_plugin_v1 returned a null pointer".into()));
        }
        // SAFETY: not null, and a vtable of any minor version begins with magic and size.
        let table = unsafe { abi::read_sized(table) };
        let host = abi::Host {
            struct_size: size_of::<abi::Host>() as u32,
            abi_major: abi::ABI_MAJOR,
            abi_minor: abi::ABI_MINOR,
            ctx: call::ctx(shared),
            log: Some(call::log),
        };
        Self::of_table(&table, Box::leak(Box::new(host)))
    }

    fn of_table(table: &abi::Plugin, host: &'static abi::Host) -> Result<Self, TaskError> {
        let abi_error = |message: String| Err(refused(abi::fault::ABI, message));
        if table.magic != abi::MAGIC {
            return abi_error("the plugin's table does not begin with the magic word".into());
        }
        if table.abi_major != abi::ABI_MAJOR || table.abi_minor > abi::ABI_MINOR {
            return abi_error(format!(
                "the plugin's table is of ABI {}.{}, this host speaks {}.{}",
                table.abi_major,
                table.abi_minor,
                abi::ABI_MAJOR,
                abi::ABI_MINOR
            ));
        }
        let (Some(create), Some(handle), Some(destroy)) = (table.create, table.handle, table.destroy) else {
            return abi_error("the plugin's table lacks create, handle or destroy".into());
        };
        Ok(Self {
            create,
            handle,
            quiesce: table.quiesce,
            destroy,
            host,
            instance: Cell::new(std::ptr::null_mut()),
            headers: RefCell::default(),
        })
    }

    /// Makes the handler.
    pub(super) fn create(&self, shared: &Shared, settings: &str, timeout: Duration) -> Result<(), TaskError> {
        let deadline = gate::deadline(gate::now_ns(), timeout);
        shared.gate.set_deadline(deadline);
        shared.sinks.open(Phase::Setup);
        let call = call::of(shared, -1, deadline);
        let mut instance = std::ptr::null_mut();
        // SAFETY: all pointers are valid during the call, `host` for ever; this is the main thread.
        let status = unsafe {
            (self.create)(self.host, Bytes::of(settings.as_bytes()), &raw const call, &raw mut instance)
        };
        shared.gate.set_deadline(0);
        let (fault, error) = shared.sinks.close(|written| (written.fault.take(), written.error.take()));
        if status == abi::DONE && fault.is_none() {
            if instance.is_null() {
                return Err(refused(abi::fault::ABI, "create succeeded, but made no instance".into()));
            }
            self.instance.set(instance);
            return Ok(());
        }
        Err(fault
            .or(error)
            .unwrap_or_else(|| refused("create", format!("create returned {status} and said nothing"))))
    }

    /// Runs one task; the status is the plugin's, whatever it may be.
    pub(super) fn handle(&self, shared: &Shared, task: &TaskFrame<'_>, deadline: i64) -> i32 {
        let call = call::of(shared, shared.gate.event_fd(), deadline);
        let mut headers = self.headers.borrow_mut();
        headers.clear();
        let mut fields = task.headers;
        for _ in 0..task.n_headers {
            // The daemon wrote them: what is missing is damage that the next frame will show.
            let (Ok(key), Ok(value)) = (fields.bytes(), fields.bytes()) else { break };
            headers.push(Field { key: Bytes::of(key), value: Bytes::of(value) });
        }
        let mut flags = 0;
        flags |= if task.redelivered { abi::TASK_REDELIVERED } else { 0 };
        flags |= if task.id_generated { abi::TASK_ID_GENERATED } else { 0 };
        let task = abi::Task {
            struct_size: size_of::<abi::Task>() as u32,
            attempt: task.attempt,
            flags,
            n_headers: headers.len() as u32,
            id: Bytes::of(task.id),
            queue: Bytes::of(task.queue),
            prefix: Bytes::of(task.prefix),
            argument: Bytes::of(task.argument),
            content_type: Bytes::of(task.content_type),
            body: Bytes::of(task.body),
            headers: headers.as_ptr(),
        };
        // SAFETY: `create` succeeded and `destroy` was not called; all pointers are valid during the call;
        // one call at a time, on the main thread.
        unsafe { (self.handle)(self.instance.get(), &raw const task, &raw const call) }
    }

    /// Lets the handler end its threads and flush, until `grace` has passed.
    pub(super) fn quiesce(&self, shared: &Shared, grace: Duration) {
        let Some(quiesce) = self.quiesce else { return };
        let deadline = gate::deadline(gate::now_ns(), grace);
        shared.gate.set_deadline(deadline);
        shared.sinks.open(Phase::Setup);
        let call = call::of(shared, -1, deadline);
        // SAFETY: as for `handle`.
        let status = unsafe { quiesce(self.instance.get(), &raw const call) };
        shared.gate.set_deadline(0);
        let error = shared.sinks.close(|written| written.fault.take().or(written.error.take()));
        if status != abi::DONE {
            let error = error.unwrap_or_default();
            setup::complain(&format!("quiesce returned {status}: {} {}", error.code, error.message));
        }
    }

    /// Frees the handler. No call follows.
    pub(super) fn destroy(&self) {
        // SAFETY: `create` succeeded, this is called once and last, on the main thread.
        unsafe { (self.destroy)(self.instance.get()) };
    }
}

fn refused(code: &str, message: String) -> TaskError {
    TaskError { code: code.into(), message, retry_after: None }
}
