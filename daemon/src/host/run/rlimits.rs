//! The kernel's bounds on this process and on each that it starts.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::host::frame::Init;

/// Sets what holds for the life of the process. Before the plugin is loaded: its own data counts.
pub(super) fn set(init: &Init) -> io::Result<()> {
    bound(Resource::Nofile, init.max_files.into())?;
    if init.memory > 0 {
        // Private memory that can be written, wherever it comes from. RLIMIT_AS would count address space as well
        // that is only reserved: 64 MiB for the heap of each thread alone.
        bound(Resource::Data, init.memory)?;
    }
    Ok(())
}

/// Sets both limits, as far as the daemon's own allow it: the daemon has warned where they do not.
fn bound(resource: Resource, value: u64) -> io::Result<()> {
    let value = getrlimit(resource).maximum.map_or(value, |most| value.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}

/// The bound on a task's CPU time. The kernel knows one for the life of a process only, so it is moved on for each
/// task; it ends the process by SIGXCPU.
pub(super) struct CpuBound {
    per_task: Duration,
    /// Cannot be raised, and so is left alone.
    maximum: Option<u64>,
}

impl CpuBound {
    /// Zero: no bound.
    pub(super) fn new(per_task: Duration) -> Self {
        Self { per_task, maximum: getrlimit(Resource::Cpu).maximum }
    }

    /// A task begins.
    pub(super) fn arm(&self) {
        if !self.per_task.is_zero() {
            let used = clock_gettime(ClockId::ProcessCPUTime);
            let used = Duration::new(used.tv_sec as u64, used.tv_nsec as u32);
            self.set(Some(whole_seconds(used.saturating_add(self.per_task))));
        }
    }

    /// No task runs any more, and none will.
    pub(super) fn lift(&self) {
        if !self.per_task.is_zero() {
            self.set(self.maximum);
        }
    }

    fn set(&self, current: Option<u64>) {
        let current = match (current, self.maximum) {
            (Some(wanted), Some(most)) => Some(wanted.min(most)),
            (wanted, most) => wanted.or(most),
        };
        // Moving the soft limit below the hard one is always allowed.
        let _ = setrlimit(Resource::Cpu, Rlimit { current, maximum: self.maximum });
    }
}

/// Rounded up: the kernel counts whole seconds here, and a task is to have what it was promised.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_gets_at_least_what_it_was_promised() {
        for (millis, seconds) in [(0, 0), (1, 1), (1000, 1), (1001, 2), (2999, 3)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds, "{millis} ms");
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }
}
