//! Reading from a host: its frames and what it prints.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::unix::AsyncFd;

use super::SupervisedHost;
use super::agreed::Reported;
use super::link::HostLink;
use crate::host::frame::{self, FieldReader, Malformed, from_host};
use crate::host::output::OutputStream;
use crate::host::{HostEvent, Seq, ring};

/// Reads from one host before others get their turn.
pub(super) const READS_PER_TURN: usize = 4;
/// Bytes of output read from one stream before others get their turn. More than this is never waiting when a
/// host has died, as it is what a pipe holds.
const OUTPUT_PER_TURN: usize = 64 << 10;

/// What a turn of reading came to.
pub(super) enum Pumped {
    /// All that was there is read.
    Empty,
    /// The turn is over, more may be there.
    More,
    /// The other end is closed.
    End,
}

impl SupervisedHost {
    /// Returns when the socket has ended or what came is no frame of a sane host.
    pub(super) async fn read_frames(&self, link: &HostLink) {
        while let Ok(mut guard) = link.socket.readable().await {
            match self.pump(link, READS_PER_TURN) {
                Ok(Pumped::Empty) => guard.clear_ready(),
                Ok(Pumped::More) => tokio::task::yield_now().await,
                Ok(Pumped::End) => return,
                Err(Malformed(what)) => {
                    let why = format!(
                        "killed: it sent {what}, so its memory is damaged, most likely by the handler"
                    );
                    return self.condemn(why);
                }
            }
        }
    }

    /// Reads and handles frames.
    pub(super) fn pump(&self, link: &HostLink, reads: usize) -> Result<Pumped, Malformed> {
        let mut input = self.input.borrow_mut();
        for _ in 0..reads {
            let room = input.room();
            let asked = room.len();
            let n = match rustix::net::recv(&link.socket, room, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Ok(Pumped::End),
                Ok((n, _)) => n,
                Err(Errno::AGAIN) => return Ok(Pumped::Empty),
                Err(Errno::INTR) => continue,
                Err(_) => return Ok(Pumped::End),
            };
            input.filled(n);
            // What a task printed was written before its report: read it first, and it is known whose it is.
            if has_output(link) {
                self.take_output(link, &link.stdout, &self.stdout);
                self.take_output(link, &link.stderr, &self.stderr);
            }
            while let Some((kind, payload)) = input.next()? {
                self.frame(kind, payload)?;
            }
            if n < asked {
                return Ok(Pumped::Empty);
            }
        }
        Ok(Pumped::More)
    }

    /// Handles one frame, or says what is wrong with it.
    fn frame(&self, kind: u8, payload: &[u8]) -> Result<(), Malformed> {
        let mut r = FieldReader(payload);
        let event = match kind {
            from_host::REPORT => {
                let report = frame::parse_report(payload)?;
                let reported = self.agreed.borrow_mut().report(report.seq)?;
                for lines in [&self.stdout, &self.stderr] {
                    lines.borrow_mut().finish(&mut |event| self.emit(event));
                }
                if self.quitting.get() {
                    self.changed.notify_one();
                }
                if reported == Reported::Awaited {
                    self.emit(HostEvent::Report(Box::new(report)));
                }
                return Ok(());
            }
            from_host::WITHDRAWN => {
                let seq = r.u64()?;
                self.agreed.borrow_mut().withdraw(seq)?;
                HostEvent::Withdrawn { seq }
            }
            from_host::READY => {
                self.agreed.borrow_mut().ready()?;
                self.changed.notify_one();
                HostEvent::Ready
            }
            from_host::PROGRESS => {
                let (seq, permille, note) = (r.u64()?, r.u32()?, r.text()?);
                self.agreed.borrow().mention(seq)?;
                HostEvent::Progress { seq, permille: permille.min(1000), note }
            }
            from_host::LOG => {
                let (seq, level, message, fields) = (r.u64()?, r.i32()?, r.text()?, r.pairs()?);
                self.agreed.borrow().mention(seq)?;
                let bytes = frame::log_bytes(&message, &fields);
                if !self.logs.borrow_mut().admit((seq, level, bytes), Instant::now(), |_, _, _| {}) {
                    return Err(Malformed("more log lines than were agreed"));
                }
                HostEvent::Log { seq, level, message, fields }
            }
            from_host::CREATE_FAILED | from_host::SETUP_FAILED => {
                let error = frame::parse_error(&mut r)?;
                self.agreed.borrow_mut().failed()?;
                self.unusable.set(kind == from_host::SETUP_FAILED);
                *self.create_error.borrow_mut() = Some(error);
                return r.end();
            }
            _ => return Err(Malformed("an unknown kind of frame")),
        };
        r.end()?;
        self.emit(event);
        Ok(())
    }

    /// Never returns.
    pub(super) async fn read_output(
        &self,
        link: &HostLink,
        pipe: &AsyncFd<OwnedFd>,
        lines: &RefCell<OutputStream>,
    ) {
        while let Ok(mut guard) = pipe.readable().await {
            match self.take_output(link, pipe, lines) {
                Pumped::Empty => guard.clear_ready(),
                Pumped::More => tokio::task::yield_now().await,
                Pumped::End => break,
            }
        }
        std::future::pending::<()>().await;
    }

    /// Reads what is there, up to a bound.
    pub(super) fn take_output(
        &self,
        link: &HostLink,
        pipe: &AsyncFd<OwnedFd>,
        lines: &RefCell<OutputStream>,
    ) -> Pumped {
        let mut chunk = [0; 8 << 10];
        let mut total = 0;
        while total < OUTPUT_PER_TURN {
            let n = match rustix::io::read(pipe, &mut chunk) {
                Ok(0) => return Pumped::End,
                Ok(n) => n,
                Err(Errno::AGAIN) => return Pumped::Empty,
                Err(Errno::INTR) => continue,
                Err(_) => return Pumped::End,
            };
            total += n;
            let seq = self.printing(link);
            lines.borrow_mut().push(seq, &chunk[..n], &mut |event| self.emit(event));
        }
        Pumped::More
    }

    /// The task whose output is being read: the one that runs, or the one that ended and is not reported yet.
    fn printing(&self, link: &HostLink) -> Seq {
        match ring::counters(&link.ring) {
            Ok((started, ended)) if started > ended => started,
            Ok((_, ended)) if ended > self.agreed.borrow().reported() => ended,
            _ => 0,
        }
    }
}

/// Whether one of the two streams has something to be read: hardly ever, and so one system call, not two.
fn has_output(link: &HostLink) -> bool {
    let mut pipes = [PollFd::new(&link.stdout, PollFlags::IN), PollFd::new(&link.stderr, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Interrupted: look.
    rustix::event::poll(&mut pipes, Some(&now)) != Ok(0)
}
