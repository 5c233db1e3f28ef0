//! The descriptors of a running host.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::host::frame::ControlMessage;
use crate::host::spawn::{Process, Spawned};

/// All are registered for reading only: a registration for writing would wake the
/// daemon each time the host takes a frame off its socket.
pub(super) struct HostLink {
    pub(super) process: RefCell<Option<Process>>,
    pub(super) pidfd: AsyncFd<OwnedFd>,
    pub(super) socket: AsyncFd<OwnedFd>,
    pub(super) stdout: AsyncFd<OwnedFd>,
    pub(super) stderr: AsyncFd<OwnedFd>,
    pub(super) control: OwnedFd,
    pub(super) ring: OwnedFd,
}

impl HostLink {
    pub(super) fn new(spawned: Spawned) -> std::io::Result<Self> {
        let Spawned { process, socket, control, stdout, stderr, ring } = spawned;
        for pipe in [&stdout, &stderr] {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let readable = |fd| register(fd, Interest::READABLE);
        Ok(Self {
            pidfd: readable(process.pidfd()?)?,
            process: RefCell::new(Some(process)),
            socket: readable(socket)?,
            stdout: readable(stdout)?,
            stderr: readable(stderr)?,
            control,
            ring,
        })
    }

    pub(super) fn kill(&self) {
        if let Some(process) = &*self.process.borrow() {
            process.kill();
        }
    }

    pub(super) fn cancel(&self, message: ControlMessage) {
        // A host reads its cancels at once, whatever its handler does: when it cannot take one, it is dead or
        // stopped, and the engine's kill comes after the grace.
        let _ = rustix::net::send(&self.control, &message.bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

#[expect(
    deprecated,
    reason = "sound for an `OwnedFd`, which cannot give its number away while registered; the new function is `unsafe`"
)]
pub(super) fn register(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
