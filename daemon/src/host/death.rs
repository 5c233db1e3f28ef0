//! How a host ended, and whether that was by one of its bounds.

use std::os::fd::BorrowedFd;

use rustix::process::{WaitId, WaitIdOptions};

use super::Bound;
use crate::config::Bounds;
use crate::model::duration::{format_duration, format_size};

/// SIGXCPU, by number, as wait statuses have it.
const XCPU: i32 = 24;
/// How runtimes say that an allocation failed before they end: Rust, C++, `perror`, Go and Java.
const NO_MEMORY: [&str; 5] = [
    "memory allocation of ",
    "std::bad_alloc",
    "Cannot allocate memory",
    "out of memory",
    "OutOfMemoryError",
];

/// How a host ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Death {
    /// In words.
    pub(super) why: String,
    /// The signal that ended it, if one did.
    pub(super) signal: Option<i32>,
    /// Exit status 0.
    pub(super) success: bool,
    /// The kernel killed it, or something it had started, for the memory of its group.
    pub(super) out_of_memory: bool,
}

/// Reaps a host that is dead, and says how it ended; `None`: it is not dead.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> Option<Death> {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    let (signal, success, why) = match status {
        Ok(None) => return None,
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => (None, code == 0, format!("exit status {code}")),
            (None, Some(signal)) => (Some(signal), false, describe_signal(signal)),
            (None, None) => (None, false, "ended in an unknown way".into()),
        },
        Err(error) => (None, false, format!("ended, its status is lost: {error}")),
    };
    Some(Death { why, signal, success, out_of_memory: false })
}

/// Whether a line on standard error says that there was no memory to be had.
pub(super) fn is_out_of_memory(line: &str) -> bool {
    NO_MEMORY.iter().any(|words| line.contains(words))
}

/// How a host ended, in words, and the bound that it died of. `short_of_memory`: its last task said it was. The
/// kernel refuses memory by an error code that only the handler sees; so without a group, its word is all there is.
pub(super) fn explain(death: &Death, bounds: &Bounds, short_of_memory: bool) -> (String, Option<Bound>) {
    let memory = || format_size(bounds.memory);
    let Death { why, signal, out_of_memory, .. } = death;
    if *signal == Some(XCPU) && !bounds.cpu_time.is_zero() {
        let limit = format_duration(bounds.cpu_time);
        (format!("over its `cpu_time` of {limit}; {why}"), Some(Bound::CpuTime))
    } else if *out_of_memory && bounds.memory > 0 {
        (format!("over its `memory` of {}; {why}", memory()), Some(Bound::Memory))
    } else if short_of_memory && bounds.memory > 0 {
        (format!("most likely over its `memory` of {}, as it printed; {why}", memory()), Some(Bound::Memory))
    } else {
        (why.clone(), None)
    }
}

fn describe_signal(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal} ({name})")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_death_is_put_down_to_a_bound_that_is_set_and_nothing_else() {
        let set = Bounds { memory: 64 << 20, cpu_time: Duration::from_secs(2), ..Bounds::default() };
        let none = Bounds::default();
        let by = |signal, out_of_memory| Death {
            why: format!("signal {signal}"),
            signal: Some(signal),
            out_of_memory,
            ..Death::default()
        };
        let table = [
            (by(24, false), set, false, "over its `cpu_time` of 2s; signal 24", Some(Bound::CpuTime)),
            (by(24, false), none, false, "signal 24", None),
            (by(9, true), set, false, "over its `memory` of 64MiB; signal 9", Some(Bound::Memory)),
            (by(9, true), none, false, "signal 9", None),
            (
                by(6, false),
                set,
                true,
                "most likely over its `memory` of 64MiB, as it printed; signal 6",
                Some(Bound::Memory),
            ),
            (by(6, false), none, true, "signal 6", None),
            (by(6, false), set, false, "signal 6", None),
        ];
        for (death, bounds, short, why, over) in table {
            assert_eq!(explain(&death, &bounds, short), (why.to_owned(), over), "{death:?}");
        }
    }

    #[test]
    fn failed_allocations_are_known_by_what_runtimes_print() {
        for line in [
            "memory allocation of 268435456 bytes failed",
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "malloc: Cannot allocate memory",
            "fatal error: runtime: out of memory",
        ] {
            assert!(is_out_of_memory(line), "{line}");
        }
        assert!(!is_out_of_memory("thread 'main' panicked at src/lib.rs:7:5: memory of an elephant"));
    }
}
