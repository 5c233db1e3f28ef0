//! The call a handler works in: when to stop, and where to report.

use crate::failure::Kind;
use crate::raw::RawCall;
use crate::time::Time;
use crate::{Failure, Logger, Message, abi, reject};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// One call into the handler. It may be lent to scoped threads.
pub struct Call<'a> {
    raw: RawCall<'a>,
    time: &'a Time,
    logger: &'a Logger,
}

impl<'a> Call<'a> {
    pub(crate) fn new(raw: RawCall<'a>, time: &'a Time, logger: &'a Logger) -> Self {
        Self { raw, time, logger }
    }

    pub(crate) fn raw(&self) -> &RawCall<'a> {
        &self.raw
    }

    /// An error once the task should stop: it was cancelled (the daemon drains, an operator asked) or its
    /// deadline has passed. Return that error as it is.
    pub fn check(&self) -> Result<(), Failure> {
        // In this order, because a host says cancelled once the deadline has passed, too.
        let cancelled = self.cancelled();
        if self.remaining() == Some(Duration::ZERO) {
            return Err(Failure::new(Kind::Cancelled, "timeout", "its time is up"));
        }
        if cancelled {
            return Err(Failure::new(Kind::Cancelled, "cancelled", "asked to stop"));
        }
        Ok(())
    }

    /// Whether the task should stop, as [`check`](Self::check) but without the reason: to end a loop whose
    /// error comes from somewhere else.
    pub fn cancelled(&self) -> bool {
        self.raw.cancelled()
    }

    /// Time left before the deadline, zero when it has passed; `None` without a deadline. For the time limits
    /// of what the handler calls.
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.raw.deadline_ns();
        let left = deadline.saturating_sub(self.time.now_ns()).max(0);
        (deadline != 0).then(|| Duration::from_nanos(left as u64))
    }

    /// Becomes and stays readable when the task should stop: for `poll` beside other descriptors. Never read
    /// or close it.
    pub fn cancel_fd(&self) -> Option<BorrowedFd<'_>> {
        self.raw.cancel_fd()
    }

    /// Waits. Ends early, with the error of [`check`](Self::check), when the task should stop.
    pub fn sleep(&self, duration: Duration) -> Result<(), Failure> {
        self.check()?;
        let wait = self.remaining().map_or(duration, |left| left.min(duration));
        self.time.wait(wait, self.cancel_fd());
        self.check()
    }

    /// Says how far the task is, in thousandths, with a line for people. Cheap; the host lets a few a second
    /// pass.
    pub fn progress(&self, permille: u32, note: &str) {
        self.raw.progress(permille.min(1000), note);
    }

    /// Adds a follow-up task, sent if this one is done. At most [`abi::MAX_FOLLOW_UPS`] of at most
    /// [`abi::MAX_FOLLOW_UP_BYTES`]; the error beyond that says so.
    #[allow(clippy::needless_pass_by_value)] // It is gone once it is published; a borrow would invite sending it twice.
    pub fn publish(&self, message: Message) -> Result<(), Failure> {
        let why = match message.with_abi(|message| self.raw.publish(message)) {
            abi::PUBLISH_OK => return Ok(()),
            abi::PUBLISH_NOT_ALLOWED => {
                "a follow-up can be published only while a task is handled".to_owned()
            }
            abi::PUBLISH_INVALID => "the follow-up is malformed".to_owned(),
            abi::PUBLISH_TOO_MANY => format!("a task can have at most {} follow-ups", abi::MAX_FOLLOW_UPS),
            abi::PUBLISH_TOO_LARGE => format!(
                "a follow-up can have at most {} bytes of body and {} of properties, all of a task {} bytes of body",
                abi::MAX_FOLLOW_UP_BYTES,
                abi::MAX_FOLLOW_UP_PROPERTIES,
                abi::MAX_FOLLOW_UPS_BYTES
            ),
            other => format!("the host refused the follow-up with code {other}"),
        };
        Err(reject("follow-up-refused", why))
    }

    /// The handler's log.
    pub fn logger(&self) -> &Logger {
        self.logger
    }
}
