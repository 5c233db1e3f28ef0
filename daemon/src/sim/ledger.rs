//! The ledger: what the daemon was told of each delivery, and what it owes for it. Counted here a second time, from what the
//! models of broker and hosts did, so that the core's own account can be held against it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::broker::{HandKey, Uid};
use super::plan::TaskPlan;
use crate::host::{HostId, Seq};
use crate::model::status::Counts;
use crate::model::{CancelCause, DeadReason, FaultCause, Outcome};

/// A delivery in the daemon's hand.
#[derive(Debug, Clone)]
pub(super) struct Hand {
    pub(super) message: Uid,
    /// The consumer and the tag by which it is to be settled.
    pub(super) claim: HandKey,
    /// The subscription is not known to be lost.
    pub(super) is_held: bool,
    pub(super) stage: HandStage,
    pub(super) owed: Owed,
    /// Why it was asked to stop, by the first who asked.
    pub(super) cancelled: Option<CancelCause>,
    /// An operator cancelled it before it was started.
    pub(super) is_called_off: bool,
    /// Its host was asked to give it back.
    pub(super) is_recalled: bool,
    /// Hosts that ended with it in front and did not report it.
    pub(super) unreported: u32,
    /// It was given back by a host.
    pub(super) was_put_back: bool,
    /// It came as a redelivery.
    pub(super) is_redelivered: bool,
    /// Whether something explains that it was delivered before. If nothing does, a start of it has to be counted first; if
    /// something does, it must not be. `None`: the daemon may take it either way.
    pub(super) explained: Option<bool>,
    /// When it arrived, and the how-manieth that was.
    pub(super) arrived: Duration,
    pub(super) order: u64,
    /// Since when it waits for a worker, or runs without a tag.
    pub(super) waits_since: Duration,
    /// The most attempts of the generation that ran it last.
    pub(super) attempts: u32,
    /// How its attempt ended, and why it had been asked to stop.
    pub(super) ending: Option<(Outcome, Option<CancelCause>)>,
}

/// How far it is, as the daemon knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandStage {
    Waiting,
    Sent(HostId, Seq),
    Publishing(Published),
    Ended,
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    Retry,
    Park,
    Restart,
    Recount,
    Onward,
    Dead(DeadReason),
    FollowUps,
}

/// What the daemon owes for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    /// A run, or whatever is done with a task that is not run.
    Run,
    /// It is done: follow-ups and reply, if there are any, and the acknowledgement.
    Done { publishes: bool },
    /// It failed and is to be tried again.
    Again,
    /// It is a dead letter.
    Dead,
    /// The broker does not take its copy: it is a dead letter.
    DeadRefused,
    /// It goes back, its attempt not counted.
    Back,
    /// Its host died: either it waits again, or this was its attempt.
    RunOrFailed { is_last: bool },
    /// Everything is confirmed: the acknowledgement.
    Ack(Published),
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndedRun {
    pub(super) outcome: Outcome,
    pub(super) cancelled: Option<CancelCause>,
    /// The handler asked for a delay of its own.
    pub(super) has_wish: bool,
    pub(super) is_last: bool,
    /// It has follow-ups, or somebody waits for a reply.
    pub(super) publishes: bool,
}

impl Owed {
    /// What the end of an attempt leads to: the rules of the guide, written a second time.
    pub(super) fn after(attempt: EndedRun) -> Self {
        let EndedRun { outcome, cancelled, has_wish, is_last, publishes } = attempt;
        match (outcome, cancelled) {
            (Outcome::Done, _) => Self::Done { publishes },
            (Outcome::Reject, _) | (_, Some(CancelCause::Operator)) => Self::Dead,
            (Outcome::Retry, Some(CancelCause::Drain)) if has_wish => Self::failed(is_last),
            (_, Some(CancelCause::Drain)) => Self::Back,
            _ => Self::failed(is_last),
        }
    }

    pub(super) fn failed(is_last: bool) -> Self {
        if is_last { Self::Dead } else { Self::Again }
    }
}

/// The reason that a dead letter of a failed attempt has to give.
pub(super) fn reason_after(outcome: Outcome, cancelled: Option<CancelCause>) -> DeadReason {
    match (outcome, cancelled) {
        (Outcome::Reject, _) => DeadReason::Rejected,
        (_, Some(CancelCause::Operator)) => DeadReason::Cancelled,
        (_, Some(CancelCause::Timeout)) | (Outcome::TimedOut | Outcome::Fault(FaultCause::CpuTime), _) => {
            DeadReason::Timeout
        }
        (Outcome::Fault(FaultCause::HostDied), _) => DeadReason::Poison,
        _ => DeadReason::Attempts,
    }
}

/// A delivery that the daemon was told of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) message: Uid,
    pub(super) is_settled: bool,
}

/// What is known of a task, over all its messages.
#[derive(Debug, Clone)]
pub(super) struct KnownTask {
    pub(super) task: TaskPlan,
    /// How often it was published.
    pub(super) published: u64,
    /// How it is remembered where duplicates are dropped.
    pub(super) print: Option<u128>,
    /// When it was recorded as done last, as far as the present daemon knows.
    pub(super) recorded: Option<Duration>,
    /// How often it was started and is not known to be over.
    pub(super) runs: u64,
    /// How often it came to each end.
    pub(super) done: u64,
    pub(super) dead: u64,
    pub(super) dropped: u64,
    pub(super) taken_elsewhere: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) hands: BTreeMap<HandKey, Hand>,
    /// What the broker handed out to the present daemon, and whether as a redelivery; what of it the daemon was told.
    pub(super) handed_out: BTreeMap<HandKey, (Uid, bool)>,
    pub(super) told: BTreeMap<HandKey, Told>,
    pub(super) tasks: BTreeMap<usize, KnownTask>,
    /// Tasks of which the present daemon has acknowledged a message as ended.
    pub(super) ended_here: BTreeSet<usize>,
    /// What the core has to have counted, by queue.
    pub(super) counts: Vec<Counts>,
    /// Queues that lost a subscription in the life of the present daemon.
    pub(super) has_lost: Vec<bool>,
    /// Queues of which equal messages may have been taken for each other, so that not all counts can be told.
    pub(super) is_uncertain: Vec<bool>,
    pub(super) arrivals: u64,
}

impl Ledger {
    /// The present daemon has ended, and all that it knew with it.
    pub(super) fn forget_daemon(&mut self) {
        self.hands.clear();
        self.handed_out.clear();
        self.told.clear();
        self.ended_here.clear();
        self.counts.iter_mut().for_each(|counts| *counts = Counts::default());
        self.has_lost.fill(false);
        self.is_uncertain.fill(false);
    }
}
