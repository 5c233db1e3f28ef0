//! The clock a call is measured with: the system's, or in the test kit one that only moves when told.
#![allow(unsafe_code)] // clock_gettime and poll: the SDK takes no dependency for two calls of libc.

use std::ffi::{c_int, c_long, c_short, c_ulong};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Where "now" comes from, and how to wait.
#[derive(Clone)]
pub(crate) enum Time {
    System,
    /// Nanoseconds; waiting moves it.
    Manual(Arc<AtomicI64>),
}

impl Time {
    /// Nanoseconds of `CLOCK_MONOTONIC`, or of the manual clock.
    pub(crate) fn now_ns(&self) -> i64 {
        match self {
            Self::System => monotonic_ns(),
            Self::Manual(now) => now.load(Ordering::SeqCst),
        }
    }

    /// Waits for `duration`, or until `fd` is readable.
    pub(crate) fn wait(&self, duration: Duration, fd: Option<BorrowedFd<'_>>) {
        match (self, fd) {
            (Self::Manual(now), _) => {
                now.fetch_add(nanos(duration), Ordering::SeqCst);
            }
            (Self::System, None) => std::thread::sleep(duration),
            (Self::System, Some(fd)) => {
                let end = self.now_ns().saturating_add(nanos(duration));
                loop {
                    let left = end.saturating_sub(self.now_ns());
                    if left <= 0 || readable_within(fd, left) {
                        return;
                    }
                }
            }
        }
    }
}

/// Nanoseconds, as far as they fit.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

unsafe extern "C" {
    fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout_ms: c_int) -> c_int;
}

const CLOCK_MONOTONIC: c_int = 1;
const POLLIN: c_short = 1;

fn monotonic_ns() -> i64 {
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `time` is a writable timespec of this target; the clock always exists on Linux.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &raw mut time) };
    time.seconds * 1_000_000_000 + time.nanoseconds
}

/// Whether `fd` became readable (or broken) within the time; may return `false` early, on a signal.
fn readable_within(fd: BorrowedFd<'_>, nanoseconds: i64) -> bool {
    let timeout = (nanoseconds.saturating_add(999_999) / 1_000_000).min(i64::from(c_int::MAX)) as c_int;
    let mut poll_fd = PollFd { fd: fd.as_raw_fd(), events: POLLIN, revents: 0 };
    // SAFETY: one pollfd, borrowed for the call.
    unsafe { poll(&raw mut poll_fd, 1, timeout) > 0 }
}
