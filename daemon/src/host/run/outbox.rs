//! What the host has to say, collected and written in batches: a wake-up of the daemon costs more than a
//! small task.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::setup;
use crate::host::QUEUE_LIMIT;
use crate::host::frame::ReportFrame;
use crate::host::write_buffer::WriteBuffer;

/// Bytes that may wait: above, whoever appends writes them out first.
const MAX_WAITING_BYTES: usize = 64 << 10;
/// After a task of this length its report does not wait for the next one: the next is likely to take as long.
const LONG_TASK: Duration = Duration::from_micros(200);

/// Frames waiting to be written, and the socket.
pub(super) struct Outbox {
    socket: OwnedFd,
    waiting: Mutex<UnsentFrames>,
    /// Whether anything waits; so that asking takes no lock.
    is_waiting: AtomicBool,
}

#[derive(Default)]
struct UnsentFrames {
    bytes: WriteBuffer,
    reports: usize,
}

impl Outbox {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: Mutex::default(), is_waiting: AtomicBool::new(false) }
    }

    /// Whether frames wait.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }

    /// Adds a frame; somebody must flush later.
    pub(super) fn append(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = self.lock();
        fill(waiting.bytes.end());
        self.added(&mut waiting);
    }

    /// Adds a report, and writes all that waits when it should not wait.
    pub(super) fn report(&self, report: &ReportFrame<'_>, duration: Duration) {
        let mut waiting = self.lock();
        report.put(waiting.bytes.end());
        waiting.reports += 1;
        if waiting.reports >= QUEUE_LIMIT || duration >= LONG_TASK {
            self.write(&mut waiting);
        } else {
            self.added(&mut waiting);
        }
    }

    /// Writes all that waits, however long the daemon takes to read it.
    pub(super) fn flush(&self) {
        if self.is_waiting() {
            self.write(&mut self.lock());
        }
    }

    /// Writes what the socket takes at once. `true`: something is left, by the socket's fault or because
    /// another thread is at it.
    pub(super) fn try_flush(&self) -> bool {
        if !self.is_waiting() {
            return false;
        }
        let Ok(mut waiting) = self.waiting.try_lock() else { return true };
        match rustix::net::send(&self.socket, waiting.bytes.rest(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
        {
            Ok(n) => self.wrote(&mut waiting, n),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => gone(),
        }
        self.is_waiting()
    }

    fn added(&self, waiting: &mut UnsentFrames) {
        if waiting.bytes.rest().len() > MAX_WAITING_BYTES {
            self.write(waiting);
        } else {
            self.is_waiting.store(true, Ordering::Relaxed);
        }
    }

    fn write(&self, waiting: &mut UnsentFrames) {
        while !waiting.bytes.is_empty() {
            match rustix::net::send(&self.socket, waiting.bytes.rest(), SendFlags::NOSIGNAL) {
                Ok(n) => self.wrote(waiting, n),
                Err(Errno::INTR) => {}
                Err(_) => gone(),
            }
        }
    }

    fn wrote(&self, waiting: &mut UnsentFrames, count: usize) {
        waiting.bytes.wrote(count, 2 * MAX_WAITING_BYTES);
        if waiting.bytes.is_empty() {
            waiting.reports = 0;
            self.is_waiting.store(false, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnsentFrames> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The daemon is gone, or the plugin closed the socket: either way this host is of no use any more.
fn gone() -> ! {
    setup::complain(
        "the plugin host cannot reach the daemon: that is gone, or the handler closed a descriptor not its own",
    );
    setup::exit(super::EXIT_PROTOCOL)
}
