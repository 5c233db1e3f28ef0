//! The control thread: hands cancels to the gate, and writes reports that wait behind a long task.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::{EXIT_PROTOCOL, Shared, setup};
use crate::host::Seq;
use crate::host::frame::{from_host, put_frame};

/// Enough for two system calls and a lock; it never runs plugin code.
const STACK: usize = 128 << 10;

/// Starts the thread; it ends with the process.
pub(super) fn spawn(shared: &'static Shared, control: &'static OwnedFd) -> io::Result<()> {
    std::thread::Builder::new().name("control".into()).stack_size(STACK).spawn(move || {
        while wait(shared, control).is_ok() {}
        // The daemon is gone. A task that still runs would be killed anyway, and nobody hears of it.
        setup::exit(EXIT_PROTOCOL);
    })?;
    Ok(())
}

/// Sends the daemon the tasks that come back unstarted; the last first, as the daemon puts each in front of what waits.
pub(super) fn send_withdrawn(shared: &Shared, withdrawn: &[Seq]) {
    if withdrawn.is_empty() {
        return;
    }
    shared.outbox.append(|out| {
        for seq in withdrawn.iter().rev() {
            put_frame(out, from_host::WITHDRAWN, |out| out.extend_from_slice(&seq.to_le_bytes()));
        }
    });
    if shared.outbox.try_flush() {
        shared.gate.flush_soon();
    }
}

fn wait(shared: &Shared, control: &OwnedFd) -> io::Result<()> {
    let mut fds = [
        PollFd::new(control, PollFlags::IN),
        PollFd::from_borrowed_fd(shared.gate.timer_fd(), PollFlags::IN),
    ];
    match rustix::event::poll(&mut fds, None) {
        Err(Errno::INTR) => return Ok(()),
        other => other?,
    };
    let (cancels, timer) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
    if cancels {
        send_withdrawn(shared, &shared.gate.take_cancels(control)?);
    }
    if timer {
        let _ = rustix::io::read(shared.gate.timer_fd(), &mut [0_u8; 8]);
        let left = shared.outbox.try_flush();
        shared.gate.tick(left);
    }
    Ok(())
}
