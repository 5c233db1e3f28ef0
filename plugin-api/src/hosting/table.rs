//! The plugin's functions, checked once and called in the order of their contract.

use super::CallError;
use crate::abi::{self, Bytes, fault};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::null_mut;

/// A plugin's functions and, once `create` has succeeded, its instance.
#[derive(Debug)]
pub struct PluginTable {
    create: abi::CreateFn,
    handle: abi::HandleFn,
    quiesce: Option<abi::QuiesceFn>,
    destroy: abi::DestroyFn,
    instance: Cell<*mut c_void>,
}

impl PluginTable {
    /// Reads the table that a plugin's entry point returned, or says why no host can use it.
    ///
    /// # Safety
    /// `table` is null or points to a `warren_plugin` of any version, whose functions keep the contract of the header.
    pub unsafe fn read(table: *const abi::Plugin) -> Result<Self, CallError> {
        let refused = |message: String| Err(CallError::new(fault::ABI, message));
        if table.is_null() {
            return refused("warren_plugin_v1 returned a null pointer".to_owned());
        }
        // SAFETY: not null, and a table of any minor version begins with magic and size.
        let table = unsafe { abi::read_sized(table) };
        if table.magic != abi::MAGIC {
            return refused("the plugin's table does not begin with the magic word".to_owned());
        }
        if table.abi_major != abi::ABI_MAJOR || table.abi_minor > abi::ABI_MINOR {
            return refused(format!(
                "the plugin's table is of ABI {}.{}, this host speaks {}.{}",
                table.abi_major,
                table.abi_minor,
                abi::ABI_MAJOR,
                abi::ABI_MINOR
            ));
        }
        let (Some(create), Some(handle), Some(destroy)) = (table.create, table.handle, table.destroy) else {
            return refused("the plugin's table lacks create, handle or destroy".to_owned());
        };
        Ok(Self { create, handle, quiesce: table.quiesce, destroy, instance: Cell::new(null_mut()) })
    }

    /// What `create` made; null before.
    pub fn instance(&self) -> *mut c_void {
        self.instance.get()
    }

    /// Makes the handler, and keeps the instance. [`CallRecord::created`](super::CallRecord::created) says what the
    /// status means.
    ///
    /// # Safety
    /// Called once, and first. `host` and all it names are valid until [`destroy`](Self::destroy) has returned, or
    /// during this call if it fails; `call` during this call.
    pub unsafe fn create(&self, host: *const abi::Host, settings_json: &[u8], call: &abi::Call) -> i32 {
        let mut instance = null_mut();
        // SAFETY: the caller's promise.
        let status = unsafe { (self.create)(host, Bytes::of(settings_json), call, &raw mut instance) };
        if status == abi::DONE {
            self.instance.set(instance);
        }
        status
    }

    /// Runs one task; the status is the plugin's, whatever it may be.
    ///
    /// # Safety
    /// `create` has made an instance, which is not destroyed; no other call runs. `task` and `call` are valid during
    /// this call.
    pub unsafe fn handle(&self, task: &abi::Task, call: &abi::Call) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { (self.handle)(self.instance.get(), task, call) }
    }

    /// Lets the handler end its threads and flush. A plugin without the function has nothing to do.
    ///
    /// # Safety
    /// As for [`handle`](Self::handle); no task follows.
    pub unsafe fn quiesce(&self, call: &abi::Call) -> i32 {
        // SAFETY: the caller's promise.
        self.quiesce.map_or(abi::DONE, |quiesce| unsafe { quiesce(self.instance.get(), call) })
    }

    /// Frees the handler, if there is one.
    ///
    /// # Safety
    /// No other call runs, and none follows.
    pub unsafe fn destroy(&self) {
        let instance = self.instance.replace(null_mut());
        if !instance.is_null() {
            // SAFETY: made by `create`; the caller's promise.
            unsafe { (self.destroy)(instance) };
        }
    }
}
