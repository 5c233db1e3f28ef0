//! One delivery in hand: what is known of it, and how far it is.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keys::{EntryKey, PoolKey, QueueKey};
use super::scheduler::{ScheduledTask, TaskKeys};
use crate::broker::{ConsumerId, Delivery, reply};
use crate::dedup::Fingerprint;
use crate::host::{HostId, Seq};
use crate::model::{CancelCause, DeadReason, FollowUp, Outcome, TaskError, TaskId, TaskResult};
use crate::settlement::Settlement;
use crate::task::sameness;
use crate::text::one_line;

/// One delivery in hand. It leaves the table when it is settled, or when the broker took it back.
#[derive(Debug)]
pub(super) struct Entry {
    /// The message itself; shared with the future that publishes its copy.
    pub(super) delivery: Rc<Delivery>,
    /// Who may settle it. Differs from the delivery's own tag after it was reattached.
    pub(super) ownership: Ownership,
    /// When this daemon received the delivery. A return from a host does not change it.
    pub(super) arrived: Instant,
    /// The number of the delivery, counted from the start of the daemon: an older one has a lower number.
    pub(super) order: u64,
    pub(super) queue: QueueKey,
    pub(super) id: TaskId,
    /// Attempt, from 1.
    pub(super) attempt: u32,
    /// How often its start was cut short by the end of a daemon.
    pub(super) redeliveries: u32,
    /// It was delivered before, and may be what ended the daemon that had it.
    pub(super) suspect: bool,
    /// Tells its task from others, on a queue with `deduplicate`.
    pub(super) fingerprint: Option<Fingerprint>,
    /// Where it goes, once that is known.
    pub(super) route: Option<Route>,
    /// How many hosts ended with it in front and had not started it or not reported its outcome.
    pub(super) unreported_ends: u32,
    pub(super) stage: EntryStage,
}

/// Where a task goes.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) pool: PoolKey,
    /// The prefix that matched.
    pub(super) prefix: Arc<str>,
    /// Where the argument text stands in the body.
    pub(super) argument: Range<usize>,
    pub(super) keys: TaskKeys,
}

/// Who may settle a delivery at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// The daemon, on this subscription by this tag.
    Held(ConsumerId, u64),
    /// Nobody: the link was lost, when the queue had been consumed for so long. A redelivery of the same message
    /// reattaches it.
    Detached(Duration),
}

/// How far a delivery is.
#[derive(Debug)]
pub(super) enum EntryStage {
    /// It has just arrived, or is routed anew. No entry is in this stage at the end of a turn.
    Arrived,
    /// A duplicate is in hand, or it is not known yet whether its task was done.
    HeldBack,
    /// The scheduler has it.
    Waiting,
    /// A host has it.
    Sent(Sent),
    /// Its copies are on their way to the broker.
    Publishing(Publishing),
    /// The outcome is known, and nobody holds a tag for it.
    Decided(Box<Decision>),
    /// The copies are confirmed, and nobody holds a tag for it: it only needs its acknowledgement.
    Confirmed,
}

/// A task that was written to a host, which runs it now or next.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) host: HostId,
    pub(super) seq: Seq,
    /// Why it was asked to stop, if it was.
    pub(super) cancelled: Option<CancelCause>,
    /// What the handler said last of its progress.
    pub(super) progress: Option<(u32, String)>,
}

/// A publication under way.
#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) since: Instant,
    /// Why the broker refused it last.
    pub(super) refused: Option<String>,
    pub(super) purpose: Purpose,
}

/// What a publication is for: decides what is counted and logged when it is confirmed.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The next attempt.
    Retry,
    /// The handler is given no tasks now.
    Park,
    /// It was stopped in good order, and a plain return would count it.
    Restart,
    /// The start that was cut short is counted.
    Recount,
    /// It is not due yet.
    Onward,
    /// A dead letter; with the attempt that ended, if it was started.
    Dead(DeadReason, Option<Box<EndedAttempt>>),
    /// The follow-ups and the reply of a task that is done.
    FollowUps(Box<EndedAttempt>),
}

/// An attempt that has ended.
#[derive(Debug, Clone)]
pub(super) struct EndedAttempt {
    pub(super) outcome: Outcome,
    /// What the log says of it.
    pub(super) error: Option<TaskError>,
    pub(super) duration: Duration,
    pub(super) cancelled: Option<CancelCause>,
}

/// What is to be done at the broker for a task.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) settlement: Settlement,
    /// Goes into the headers of a retry or dead letter.
    pub(super) error: TaskError,
    /// Confirmed before the acknowledgement; empty unless the settlement is one.
    pub(super) follow_ups: Vec<FollowUp>,
    /// Goes into the reply.
    pub(super) result: Option<TaskResult>,
    /// Its attempt was started, and stopped because it was asked to.
    pub(super) interrupted: bool,
    /// The attempt that led to it, where that is logged only when the copies are confirmed.
    pub(super) ended: Option<Box<EndedAttempt>>,
}

impl Decision {
    /// A settlement, and nothing that goes with it.
    pub(super) fn of(settlement: Settlement) -> Self {
        Self {
            settlement,
            error: TaskError::default(),
            follow_ups: Vec::new(),
            result: None,
            interrupted: false,
            ended: None,
        }
    }
}

impl Entry {
    /// What the scheduler knows of it.
    pub(super) fn task(&self, key: EntryKey) -> ScheduledTask {
        let keys = self.route.as_ref().map_or_else(TaskKeys::default, |route| route.keys);
        ScheduledTask { entry: key, order: self.order, keys }
    }

    /// The sender waits to be told how it ends.
    pub(super) fn wants_reply(&self) -> bool {
        reply::is_wanted(&self.delivery.properties)
    }

    /// The argument text. The router only hands out ranges of valid UTF-8.
    pub(super) fn argument(&self) -> &str {
        let range = self.route.as_ref().map_or(0..0, |route| route.argument.clone());
        std::str::from_utf8(&self.delivery.body[range]).unwrap_or_default()
    }

    /// The beginning of the body for people, one line.
    pub(super) fn preview(&self) -> String {
        const CHARS: usize = 80;
        let text = String::from_utf8_lossy(&self.delivery.body[..self.delivery.body.len().min(4 * CHARS)]);
        one_line(&text.chars().take(CHARS).collect::<String>()).trim().to_owned()
    }

    /// Whether `other` is the same message again. Two messages that are equal in everything are interchangeable: each
    /// run stands for one of them, so that swapping them loses nothing.
    pub(super) fn is_same_message(&self, other: &Delivery) -> bool {
        let mine = &self.delivery;
        sameness::is_same_message((&mine.properties, &mine.body), (&other.properties, &other.body))
    }

    /// It waits here: no host has it, and its outcome is open.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, EntryStage::Arrived | EntryStage::HeldBack | EntryStage::Waiting)
    }

    pub(super) fn pool(&self) -> Option<PoolKey> {
        self.route.as_ref().map(|route| route.pool)
    }

    /// What a host was given of it.
    pub(super) fn sent(&self) -> Option<&Sent> {
        match &self.stage {
            EntryStage::Sent(sent) => Some(sent),
            _ => None,
        }
    }

    pub(super) fn sent_mut(&mut self) -> Option<&mut Sent> {
        match &mut self.stage {
            EntryStage::Sent(sent) => Some(sent),
            _ => None,
        }
    }

    /// What is being published for it.
    pub(super) fn publishing(&self) -> Option<&Publishing> {
        match &self.stage {
            EntryStage::Publishing(publishing) => Some(publishing),
            _ => None,
        }
    }

    /// Its host is asked to stop it; the first cause counts.
    pub(super) fn cancel(&mut self, cause: CancelCause) {
        if let EntryStage::Sent(sent) = &mut self.stage {
            sent.cancelled.get_or_insert(cause);
        }
    }
}
