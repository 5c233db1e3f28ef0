//! Which task runs, until when, and whether it should stop. Everything about cancelling goes by the task's
//! sequence number under one lock, so that a late cancel or deadline cannot hit the next task.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
};
use warren_plugin::hosting::StopReason;

use super::setup::move_up;
use crate::host::frame::ControlMessage;
use crate::host::{QUEUE_LIMIT, Seq};

/// How long a report may wait behind the task after it.
const FLUSH_WITHIN_NS: i64 = 2_000_000;
/// Cancels remembered for tasks that wait in the host: more cannot wait.
const MAX_PENDING: usize = 2 * QUEUE_LIMIT;
/// The timer is not armed.
const UNARMED: i64 = i64::MAX;

/// Whether a task may start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    Run,
    /// It was cancelled while it waited.
    Cancelled,
}

/// The state of the running call.
pub(super) struct Gate {
    state: Mutex<GateState>,
    /// Copies for the sinks, which ask often and from any thread.
    running: AtomicU64,
    cancel: AtomicBool,
    deadline: AtomicI64,
    /// Readable while the running task should stop; handed to the plugin.
    event: OwnedFd,
    /// Wakes the control thread.
    timer: OwnedFd,
}

struct GateState {
    running: Seq,
    newest: Seq,
    deadline: i64,
    asked: bool,
    signalled: bool,
    /// Cancelled before they started.
    pending: Vec<Seq>,
    /// When the timer fires, or [`UNARMED`].
    armed: i64,
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub(super) fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// `timeout` after `now`; 0, the ABI's word for none, when it is zero.
pub(super) fn deadline(now: i64, timeout: Duration) -> i64 {
    if timeout.is_zero() {
        return 0;
    }
    now.saturating_add(i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX))
}

impl Gate {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(GateState {
                running: 0,
                newest: 0,
                deadline: 0,
                asked: false,
                signalled: false,
                pending: Vec::new(),
                armed: UNARMED,
            }),
            running: AtomicU64::new(0),
            cancel: AtomicBool::new(false),
            deadline: AtomicI64::new(0),
            event: move_up(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?,
            timer: move_up(rustix::time::timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )?)?,
        })
    }

    /// The running task; 0: none.
    pub(super) fn running(&self) -> Seq {
        self.running.load(Ordering::Relaxed)
    }

    /// Whether the running call should stop.
    pub(super) fn cancelled(&self) -> bool {
        if self.cancel.load(Ordering::Acquire) {
            return true;
        }
        let deadline = self.deadline.load(Ordering::Relaxed);
        deadline != 0 && now_ns() >= deadline
    }

    /// The descriptor that is readable while the running task should stop.
    pub(super) fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    pub(super) fn timer_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// A call that is no task: it has a deadline, and nobody can cancel it.
    pub(super) fn set_deadline(&self, deadline: i64) {
        self.deadline.store(deadline, Ordering::Relaxed);
    }

    /// The main thread is about to start `seq`; `waiting`: frames wait to be written.
    pub(super) fn begin(&self, seq: Seq, now: i64, deadline: i64, waiting: bool) -> Begin {
        let mut state = self.lock();
        state.newest = seq;
        if !state.pending.is_empty() {
            let cancelled = state.pending.contains(&seq);
            state.pending.retain(|&pending| pending > seq);
            if cancelled {
                return Begin::Cancelled;
            }
        }
        state.running = seq;
        state.deadline = deadline;
        self.running.store(seq, Ordering::Relaxed);
        self.deadline.store(deadline, Ordering::Relaxed);
        // In a run of short tasks the timer is armed for the first one's deadline and not touched again.
        if deadline != 0 {
            self.arm(&mut state, deadline);
        }
        if waiting {
            self.arm(&mut state, now + FLUSH_WITHIN_NS);
        }
        Begin::Run
    }

    /// The main thread will not start `seq`: a recall of it is too late, as it is about to be reported.
    pub(super) fn pass_over(&self, seq: Seq) {
        let mut state = self.lock();
        state.newest = seq;
        state.pending.retain(|&pending| pending > seq);
    }

    /// The running task has returned at `now`.
    pub(super) fn end(&self, now: i64) -> Option<StopReason> {
        let mut state = self.lock();
        let stop = match (state.asked, state.deadline) {
            (true, _) => Some(StopReason::Asked),
            (false, deadline) if deadline != 0 && now >= deadline => Some(StopReason::Deadline),
            _ => None,
        };
        if state.signalled {
            state.signalled = false;
            state.asked = false;
            self.cancel.store(false, Ordering::Release);
            let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
        }
        state.running = 0;
        self.running.store(0, Ordering::Relaxed);
        self.deadline.store(0, Ordering::Relaxed);
        stop
    }

    /// Takes every cancel that has arrived on the control socket. Reading is under the lock, too: once this
    /// has returned, on whichever thread, all that had arrived before is in force. Gives the tasks that were
    /// recalled in time: they will not start, and the daemon is to hear of it now, not when the running task
    /// ends. An error: the daemon is gone.
    pub(super) fn take_cancels(&self, control: &OwnedFd) -> io::Result<Vec<Seq>> {
        let mut state = self.lock();
        let mut withdrawn = Vec::new();
        loop {
            let mut message = [0; ControlMessage::LEN];
            match rustix::net::recv(control, &mut message, RecvFlags::DONTWAIT) {
                Ok((ControlMessage::LEN, _)) => {
                    withdrawn.extend(self.cancel(&mut state, ControlMessage::parse(message)));
                }
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(withdrawn),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The daemon cancels or recalls a task: the running one, one that waits, or one that ended, for which it
    /// is too late. Gives the task back when it was recalled in time.
    fn cancel(
        &self,
        state: &mut GateState,
        ControlMessage { seq, started_too }: ControlMessage,
    ) -> Option<Seq> {
        if seq == state.running {
            if started_too {
                state.asked = true;
                self.signal(state);
            }
        } else if seq > state.newest && state.pending.len() < MAX_PENDING && !state.pending.contains(&seq) {
            state.pending.push(seq);
            return (!started_too).then_some(seq);
        }
        None
    }

    /// Something waits to be written that no task's end will write soon: has the control thread look in time.
    pub(super) fn flush_soon(&self) {
        let at = now_ns() + FLUSH_WITHIN_NS;
        self.arm(&mut self.lock(), at);
    }

    /// The timer fired: stops a task that is past its deadline, then arms the timer for the next event.
    pub(super) fn tick(&self, left: bool) {
        let now = now_ns();
        let mut state = self.lock();
        state.armed = UNARMED;
        if state.running != 0 && state.deadline != 0 && !state.signalled {
            if now >= state.deadline {
                self.signal(&mut state);
            } else {
                let deadline = state.deadline;
                self.arm(&mut state, deadline);
            }
        }
        if left {
            self.arm(&mut state, now + FLUSH_WITHIN_NS);
        }
    }

    fn signal(&self, state: &mut GateState) {
        if !state.signalled {
            state.signalled = true;
            self.cancel.store(true, Ordering::Release);
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    fn arm(&self, state: &mut GateState, at: i64) {
        if at >= state.armed {
            return;
        }
        let value = Timespec { tv_sec: at / 1_000_000_000, tv_nsec: at % 1_000_000_000 };
        let timer = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        if rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &timer).is_ok() {
            state.armed = at;
        }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cancel(gate: &Gate, seq: Seq) {
        gate.cancel(&mut gate.lock(), ControlMessage { seq, started_too: true });
    }

    fn readable(gate: &Gate) -> bool {
        let mut fds = [rustix::event::PollFd::new(&gate.event, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn a_cancel_reaches_the_running_task_and_is_gone_with_it() {
        let gate = Gate::new().unwrap();
        assert_eq!(gate.begin(1, 0, 0, false), Begin::Run);
        cancel(&gate, 1);
        assert!(gate.cancelled() && readable(&gate));
        assert_eq!(gate.end(5), Some(StopReason::Asked));
        assert_eq!(gate.begin(2, 5, 0, false), Begin::Run);
        assert!(!gate.cancelled() && !readable(&gate));
        assert_eq!(gate.end(6), None);
    }

    #[test]
    fn a_late_cancel_does_not_hit_the_next_task() {
        let gate = Gate::new().unwrap();
        gate.begin(1, 0, 0, false);
        gate.end(1);
        cancel(&gate, 1);
        assert_eq!(gate.begin(2, 1, 0, false), Begin::Run);
        cancel(&gate, 1);
        assert!(!gate.cancelled() && !readable(&gate));
    }

    #[test]
    fn a_cancel_of_a_waiting_task_keeps_it_from_starting_and_touches_no_other() {
        let gate = Gate::new().unwrap();
        gate.begin(1, 0, 0, false);
        cancel(&gate, 2);
        assert!(!gate.cancelled());
        gate.end(1);
        assert_eq!(gate.begin(2, 1, 0, false), Begin::Cancelled);
        assert_eq!(gate.begin(3, 1, 0, false), Begin::Run);
    }

    #[test]
    fn a_recall_takes_back_a_waiting_task_and_leaves_a_running_one_alone() {
        let gate = Gate::new().unwrap();
        gate.begin(1, 0, 0, false);
        let recalled =
            [1, 2, 2].map(|seq| gate.cancel(&mut gate.lock(), ControlMessage { seq, started_too: false }));
        assert_eq!(recalled, [None, Some(2), None]);
        assert!(!gate.cancelled() && !readable(&gate));
        assert_eq!(gate.end(1), None);
        assert_eq!(gate.begin(2, 1, 0, false), Begin::Cancelled);
    }

    #[test]
    fn a_recall_of_a_task_that_was_passed_over_gives_nothing_back() {
        let gate = Gate::new().unwrap();
        gate.pass_over(2);
        let recall = |seq| gate.cancel(&mut gate.lock(), ControlMessage { seq, started_too: false });
        assert_eq!([recall(2), recall(3)], [None, Some(3)]);
    }

    #[test]
    fn a_passed_deadline_makes_the_descriptor_readable_at_the_next_tick() {
        let gate = Gate::new().unwrap();
        let now = now_ns();
        gate.begin(1, now, now + 1, false);
        gate.tick(false);
        assert!(gate.cancelled() && readable(&gate));
        assert_eq!(gate.end(now_ns()), Some(StopReason::Deadline));
        assert!(!gate.cancelled() && !readable(&gate));
    }
}
