//! Loads the plugin and calls its vtable. Everything here runs on the main thread.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use warren_plugin::abi::{self, Bytes, Field};
use warren_plugin::hosting::{Ending, Phase, PluginTable, call_table, host_table};

use super::{Shared, gate, setup};
use crate::host::frame::TaskFrame;
use crate::model::TaskError;

/// The loaded plugin and, once created, its handler.
pub(super) struct Plugin {
    table: PluginTable,
    /// Given to `create`; the plugin keeps the pointer until `destroy` returns, hence leaked.
    host: &'static abi::Host,
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
        // SAFETY: the entry point takes nothing; what it returns keeps the contract of the header, which is all that a
        // plugin can be held to.
        let table = unsafe { PluginTable::read(entry()) }?;
        Ok(Self { table, host: Box::leak(Box::new(host_table(shared))), headers: RefCell::default() })
    }

    pub(super) fn create(&self, shared: &Shared, settings: &str, timeout: Duration) -> Result<(), TaskError> {
        let deadline = gate::deadline(gate::now_ns(), timeout);
        shared.gate.set_deadline(deadline);
        shared.sinks.open(Phase::Setup);
        let call = call_table(shared, -1, deadline);
        // SAFETY: the first call, on the main thread; `host` is never freed, nor is what it names.
        let status = unsafe { self.table.create(self.host, settings.as_bytes(), &call) };
        shared.gate.set_deadline(0);
        let created = shared.sinks.close(|record| record.created(status, !self.table.instance().is_null()));
        created.map_err(|(_, error)| error.into())
    }

    /// Runs one task; the status is the plugin's, whatever it may be.
    pub(super) fn handle(&self, shared: &Shared, task: &TaskFrame<'_>, deadline: i64) -> i32 {
        let call = call_table(shared, shared.gate.event_fd(), deadline);
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
        // SAFETY: `create` succeeded and `destroy` was not called; task and call are valid during the call; one call at
        // a time, on the main thread.
        unsafe { self.table.handle(&task, &call) }
    }

    /// Lets the handler end its threads and flush, until `grace` has passed.
    pub(super) fn quiesce(&self, shared: &Shared, grace: Duration) {
        let deadline = gate::deadline(gate::now_ns(), grace);
        shared.gate.set_deadline(deadline);
        shared.sinks.open(Phase::Setup);
        // SAFETY: as for `handle`; no task follows.
        let status = unsafe { self.table.quiesce(&call_table(shared, -1, deadline)) };
        shared.gate.set_deadline(0);
        let (ending, error) = shared.sinks.close(|record| record.verdict(status, None));
        if ending != Ending::Done {
            let why = error.map_or_else(String::new, |error| format!(": {} {}", error.code, error.message));
            setup::complain(&format!("quiesce returned {status}{why}"));
        }
    }

    /// Frees the handler. No call follows.
    pub(super) fn destroy(&self) {
        // SAFETY: called once and last, on the main thread.
        unsafe { self.table.destroy() };
    }
}

fn refused(code: &str, message: String) -> TaskError {
    TaskError { code: code.into(), message, retry_after: None }
}
