//! The clock a call is measured with: the system's, or in the test kit one that only moves when told.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

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

fn monotonic_ns() -> i64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec * NANOS_PER_SECOND + time.tv_nsec
}

/// Whether `fd` became readable (or broken) within the time; may return `false` early, on a signal.
fn readable_within(fd: BorrowedFd<'_>, nanoseconds: i64) -> bool {
    let timeout =
        Timespec { tv_sec: nanoseconds / NANOS_PER_SECOND, tv_nsec: nanoseconds % NANOS_PER_SECOND };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
}
