//! What is to happen and when. Things of one instant happen in the order in which they were put there.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::broker::Uid;
use crate::engine::core::Event;
use crate::host::{HostId, Seq};

/// Something that is to happen.
#[derive(Debug)]
pub(super) enum AgendaItem {
    /// The operation of this place in the plan.
    Operation(usize),
    /// What an operation did is undone.
    Undo(Undo),
    /// The daemon starts.
    StartDaemon,
    /// The daemon is told something. Of an earlier daemon nothing arrives.
    Tell { daemon: u64, event: Box<Event> },
    /// The broker gets a settlement.
    Settle { consumer: u32, tag: u64, requeue: bool },
    /// The consuming connection is up again.
    Connected { daemon: u64, link: u64 },
    /// The broker takes a subscription.
    Subscribed { daemon: u64, link: u64, queue: usize },
    /// The broker has cancelled a consumer.
    CancelDone { consumer: u32 },
    /// The link asks whether all was seen.
    AskSeen { consumer: u32 },
    /// A message's time in its delay queue, or with another consumer, is over.
    Back(Uid),
    /// A publication is tried.
    Publish { daemon: u64, publication: u64 },
    /// The broker answers it.
    Answer { daemon: u64, publication: u64, attempt: u64 },
    /// A record of a finished task is written.
    Record { daemon: u64, number: u64 },
    /// Something happens to a host.
    Host { daemon: u64, host: HostId, step: HostStep },
    /// Nothing disturbs any more.
    Quiet,
}

/// What is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    Block,
    MachineShort,
    PauseQueue(usize),
    PauseHandler(usize),
    SecondDrain,
}

/// What happens to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostStep {
    Created,
    CreateFails,
    RunEnds(Seq),
    /// The host's own clock.
    TimeIsUp(Seq),
    Cancel(Seq),
    Recall(Seq),
    Report,
    Quit,
    DieIdle(Seq),
    Kill,
}

#[derive(Debug)]
struct AgendaEntry {
    at: Duration,
    order: u64,
    item: AgendaItem,
}

impl PartialEq for AgendaEntry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for AgendaEntry {}

impl PartialOrd for AgendaEntry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AgendaEntry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<AgendaEntry>>,
    order: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Duration, item: AgendaItem) {
        self.order += 1;
        self.heap.push(Reverse(AgendaEntry { at, order: self.order, item }));
    }

    pub(super) fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub(super) fn take(&mut self) -> Option<AgendaItem> {
        self.heap.pop().map(|Reverse(entry)| entry.item)
    }
}
