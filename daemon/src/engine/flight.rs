//! One delivery in the daemon's hands, from arrival to settlement.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{ConsumerId, Delivery, reply};
use crate::dedup::Fingerprint;
use crate::model::{CancelCause, FollowUp, TaskError, TaskId, TaskResult};
use crate::settlement::Settlement;
use crate::task::sameness;

use super::lane::LaneKey;
use super::queues::QueueKey;

/// Index of a [`Flight`] in the engine's table.
pub(super) type FlightKey = usize;

/// One delivery in hand. It leaves the table when it is settled, or when the broker took it back.
#[derive(Debug)]
pub(super) struct Flight {
    /// The message itself; shared with the future that publishes its copy.
    pub(super) delivery: Rc<Delivery>,
    /// Where it is settled. Differs from the delivery's own after an adoption.
    pub(super) claim: Claim,
    /// When it arrived.
    pub(super) arrived: Instant,
    /// The queue it came from.
    pub(super) queue: QueueKey,
    /// Its identity.
    pub(super) id: TaskId,
    /// Attempt, from 1.
    pub(super) attempt: u32,
    /// How often its start was cut short by the daemon's own end.
    pub(super) redeliveries: u32,
    /// It was delivered before, and may be what ended the daemon that had it.
    pub(super) suspect: bool,
    /// The prefix that matched.
    pub(super) prefix: Arc<str>,
    /// Where its argument text stands in the body.
    pub(super) argument: Range<usize>,
    /// The lane it waits in or runs on.
    pub(super) lane: LaneKey,
    /// How far it is.
    pub(super) state: State,
    /// How many hosts ended with it in front, and had not started it or not told its outcome.
    pub(super) untold: u32,
    /// Why it was asked to stop, if it was.
    pub(super) cancelled: Option<CancelCause>,
    /// The handler's last word on its progress.
    pub(super) progress: Option<(u32, String)>,
    /// The handler's result, once it is done and where its sender waits for it.
    pub(super) result: Option<TaskResult>,
    /// What tells its task from others, where the queue has `deduplicate`.
    pub(super) print: Option<Fingerprint>,
    /// It waits in no lane: its twin is in hand, or it is not known yet whether it was done.
    pub(super) held_back: bool,
    /// Since when something is being published for it.
    pub(super) publishing: Option<Instant>,
    /// Why that was refused last.
    pub(super) refused: Option<String>,
    /// Its task is done; only its follow-ups and its reply are not confirmed yet.
    pub(super) done: bool,
}

/// Who may still settle a delivery at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// This subscription, by this tag.
    Held(ConsumerId, u64),
    /// Nobody: its link was lost, when its queue had been consumed for so long. A redelivery of the same message may
    /// adopt it.
    Orphan(Duration),
}

/// A flight that nobody may settle, in the list of those.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orphan {
    pub(super) flight: FlightKey,
    /// Of its message: whoever looks for a redelivery's run compares the messages of one flight, not of all.
    pub(super) digest: u64,
}

/// How far a flight is.
#[derive(Debug)]
pub(super) enum State {
    /// In its lane, not given to a host.
    Waiting,
    /// Written to a host, which runs it now or next.
    Sent,
    /// Its outcome is known; its copies are on their way to the broker, or it waits for its adoption.
    Settling,
    /// Its outcome is known and nobody holds a tag for it.
    Finished(Box<Verdict>),
    /// The same, and its copies are confirmed: it only needs its ack.
    Copied,
}

/// What is to be done at the broker for a task whose outcome is known.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) settlement: Settlement,
    /// Goes into the headers of a retry or dead letter.
    pub(super) error: TaskError,
    /// Confirmed before the ack; empty unless the settlement is an ack.
    pub(super) follow_ups: Vec<FollowUp>,
}

impl Flight {
    /// The sender waits to be told how it ends.
    pub(super) fn wants_reply(&self) -> bool {
        reply::is_wanted(&self.delivery.properties)
    }

    /// The argument text. The router only hands out ranges of valid UTF-8.
    pub(super) fn argument(&self) -> &str {
        std::str::from_utf8(&self.delivery.body[self.argument.clone()]).unwrap_or_default()
    }

    /// The beginning of the body for people, one line.
    pub(super) fn preview(&self) -> String {
        const CHARS: usize = 80;
        let text = String::from_utf8_lossy(&self.delivery.body[..self.delivery.body.len().min(4 * CHARS)]);
        text.chars()
            .take(CHARS)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
            .trim()
            .to_owned()
    }

    /// Whether `other` is the same message again. Two messages that are equal in everything are interchangeable: each
    /// run stands for one of them, so that swapping them loses nothing.
    pub(super) fn is_same_message(&self, other: &Delivery) -> bool {
        let mine = &self.delivery;
        sameness::is_same_message((&mine.properties, &mine.body), (&other.properties, &other.body))
    }
}
