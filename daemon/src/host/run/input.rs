//! The host's reader: tasks are parsed in place from one buffer, and the handler borrows from it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::RecvFlags;

use crate::host::frame::{Buffer, Init, MAX_TO_HOST, Malformed, TaskFrame, to_host};

/// Bytes read at once: more than 16 queued small tasks.
const TASK_CHUNK: usize = 64 << 10;

/// What the daemon asks for.
#[derive(Debug)]
pub(super) enum HostRequest<'a> {
    Task(TaskFrame<'a>),
    /// Everything before it is done.
    Quit,
}

pub(super) struct RequestReader {
    socket: OwnedFd,
    buffer: Buffer,
}

impl RequestReader {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, buffer: Buffer::new(TASK_CHUNK, MAX_TO_HOST) }
    }

    /// The next order that has been read whole; `None`: call [`fill`](Self::fill).
    pub(super) fn next(&mut self) -> Result<Option<HostRequest<'_>>, Malformed> {
        match self.buffer.next()? {
            None => Ok(None),
            Some((to_host::TASK, payload)) => Ok(Some(HostRequest::Task(TaskFrame::parse(payload)?))),
            Some((to_host::QUIT, _)) => Ok(Some(HostRequest::Quit)),
            Some(_) => Err(Malformed("an unknown kind of frame")),
        }
    }

    /// The first frame of all.
    pub(super) fn init(&mut self) -> io::Result<Init> {
        let malformed = |error: Malformed| io::Error::other(error.0);
        loop {
            match self.buffer.next().map_err(malformed)? {
                Some((to_host::INIT, payload)) => return Init::parse(payload).map_err(malformed),
                Some(_) => return Err(io::Error::other("the first frame is of another kind")),
                None => {}
            }
            self.fill()?;
        }
    }

    /// Waits for more bytes. An error: the daemon is gone.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        loop {
            match rustix::net::recv(&self.socket, self.buffer.room(), RecvFlags::empty()) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((n, _)) => {
                    self.buffer.filled(n);
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
