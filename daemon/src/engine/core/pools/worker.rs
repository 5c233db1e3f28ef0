//! One plugin host and the tasks that it was given.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::engine::core::keys::{EntryKey, PoolKey, QueueKey};
use crate::engine::core::scheduler::RunCharge;
use crate::host::{QUEUE_LIMIT, Seq};

/// Once the task in front has run this long, nothing is queued behind it, and what is queued is asked back, so that
/// another host can take it. Well above what tasks that are queued at all usually take.
pub(in crate::engine::core) const LONG: Duration = Duration::from_millis(20);

/// One plugin host.
#[derive(Debug)]
pub(in crate::engine::core) struct Worker {
    pub(in crate::engine::core) pool: PoolKey,
    /// It has said that it takes tasks.
    is_ready: bool,
    /// The queue whose tasks it runs; one at a time, so that each queue's `workers` holds.
    pub(super) queue: Option<QueueKey>,
    /// What it was given and has not reported, in order.
    given: VecDeque<Given>,
    last_seq: Seq,
    /// Since when the first of `given` has been running.
    pub(in crate::engine::core) head_since: Instant,
    /// When the running task was asked to stop; the host is killed `grace` later.
    pub(in crate::engine::core) cancelled_at: Option<Instant>,
    /// It takes no more tasks, and ends when those it has are done.
    pub(in crate::engine::core) leaving: bool,
    /// It was to be killed.
    pub(in crate::engine::core) killed: bool,
    pub(super) idle_since: Instant,
    /// Tasks that it has reported.
    pub(in crate::engine::core) tasks: u64,
}

/// One task given to a host.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::core) struct Given {
    pub(in crate::engine::core) seq: Seq,
    pub(in crate::engine::core) entry: EntryKey,
    /// Asked back because the task in front of it runs long.
    pub(in crate::engine::core) recalled: bool,
    pub(in crate::engine::core) charge: RunCharge,
}

impl Worker {
    pub(super) fn new(pool: PoolKey, now: Instant) -> Self {
        Self {
            pool,
            is_ready: false,
            queue: None,
            given: VecDeque::with_capacity(QUEUE_LIMIT),
            last_seq: 0,
            head_since: now,
            cancelled_at: None,
            leaving: false,
            killed: false,
            idle_since: now,
            tasks: 0,
        }
    }

    pub(super) fn ready(&mut self, now: Instant) {
        self.is_ready = true;
        self.idle_since = now;
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub(super) fn is_idle(&self) -> bool {
        self.is_ready && self.given.is_empty()
    }

    /// Whether another task of this queue may be queued behind those it has.
    pub(super) fn takes_more(&self, queue: QueueKey, depth: usize, now: Instant) -> bool {
        self.queue == Some(queue)
            && self.given.len() < depth
            && now < self.head_since + LONG
            && !self.leaving
            && self.cancelled_at.is_none()
    }

    /// Numbers a task that is given to it.
    pub(super) fn push(&mut self, entry: EntryKey, charge: RunCharge, now: Instant) -> Seq {
        self.last_seq += 1;
        if self.given.is_empty() {
            self.head_since = now;
        }
        self.given.push_back(Given { seq: self.last_seq, entry, recalled: false, charge });
        self.last_seq
    }

    /// Takes out a task that was reported or came back.
    pub(in crate::engine::core) fn take(&mut self, seq: Seq, now: Instant) -> Option<Given> {
        let at = self.given.iter().position(|given| given.seq == seq)?;
        if at == 0 {
            self.head_since = now;
            self.cancelled_at = None;
        }
        self.given.remove(at)
    }

    /// What it was given and has not reported, in order; the first one runs.
    pub(in crate::engine::core) fn given(&self) -> impl DoubleEndedIterator<Item = Given> {
        self.given.iter().copied()
    }

    /// The task that runs.
    pub(in crate::engine::core) fn head(&self) -> Option<Given> {
        self.given.front().copied()
    }

    /// The queue whose tasks it runs.
    pub(in crate::engine::core) fn queue(&self) -> Option<QueueKey> {
        self.queue
    }

    /// The running task has run for so long: what its flow was charged for it, and is from now on.
    pub(in crate::engine::core) fn recharge(&mut self, running: Duration) -> Option<(RunCharge, RunCharge)> {
        let head = self.given.front_mut()?;
        let is = head.charge.running(running);
        Some((std::mem::replace(&mut head.charge, is), is))
    }

    pub(in crate::engine::core) fn tasks_in_hand(&self) -> usize {
        self.given.len()
    }

    /// The entry of one of its tasks.
    pub(in crate::engine::core) fn entry_of(&self, seq: Seq) -> Option<EntryKey> {
        self.given.iter().find(|given| given.seq == seq).map(|given| given.entry)
    }

    /// The running task was asked to stop.
    pub(in crate::engine::core) fn cancel_head(&mut self, now: Instant) {
        self.cancelled_at.get_or_insert(now);
    }

    /// Asks back what waits behind the running task and was not asked back before; what is to be recalled.
    pub(in crate::engine::core) fn recall_queued(&mut self) -> impl Iterator<Item = Seq> {
        self.given.iter_mut().skip(1).filter(|given| !given.recalled).map(|given| {
            given.recalled = true;
            given.seq
        })
    }

    /// After a fault it reports what is queued without starting it, and ends.
    pub(in crate::engine::core) fn spoiled(&mut self) {
        self.leaving = true;
        self.given.iter_mut().for_each(|given| given.recalled = true);
    }
}
