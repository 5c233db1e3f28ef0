//! What the daemon knows of deliveries that it does not hold any more. When a link is lost the broker delivers again what
//! it has not seen settled, marked as redelivered, as it does when a consumer's process has died. The difference matters:
//! a task whose start ends the process is to be counted, and dead as `poison` in the end; a task that only lost its link
//! is not, and one that had ended is not to be run again.
//!
//! A redelivery is looked at in this order, after those that a run still stands for (`arrival::reattach`):
//!
//! | the daemon knows that | so |
//! | --- | --- |
//! | it had this message and did not start it: it waited when its link was lost, or was given back | it runs, uncounted |
//! | this task ended here, its copies are confirmed, and the acknowledgement may be lost with its link | it is acknowledged |
//! | a link of the queue was lost with room in its window, so that the message may have been on its way here; or one went back for want of room for its body | it runs, uncounted |
//! | nothing: a process may have died of it, this daemon's predecessor or another one | it is counted as it starts |
//!
//! The first rule comes before the second for the sake of equal messages: if one of two has ended and the other waited, the
//! second has to run.
//!
//! *May be lost* is meant narrowly. The broker never holds more unsettled deliveries than the window, so only the last
//! acknowledgements of a window are in doubt, and of those only what was sent after the broker last answered on that
//! channel (`session.rs` asks every few seconds). Only messages with an id of their own are remembered: another message
//! that is equal in everything, as producers without ids do publish, would be taken for the one that ended, and never run.
//!
//! One lost link explains at most as many redeliveries as its window had room for. They may come at any time: if one of
//! these tasks ends the daemon, what explained it is gone with the process, and the next start is counted.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::keys::QueueKey;
use crate::broker::{ConsumerId, Delivery};
use crate::task;
use crate::task::sameness::Digests;

/// How long the redelivery of a message is waited for, counted while its queue is consumed. The broker redelivers as soon
/// as a consumer is there again, so that minutes without one mean that another consumer took it.
pub(super) const REDELIVERED_WITHIN: Duration = Duration::from_mins(5);

/// Messages remembered of one queue in each respect: as many as a channel can have unacknowledged. The oldest is forgotten
/// first.
const BOUND: usize = 65_535;

/// All of it, by queue.
#[derive(Debug, Default)]
pub(super) struct Losses {
    digests: Digests,
    feeds: HashMap<ConsumerId, Feed>,
    queues: HashMap<QueueKey, Known>,
}

/// One subscription.
#[derive(Debug)]
struct Feed {
    queue: QueueKey,
    window: usize,
    /// The last acknowledgements that the broker is not known to have seen, by when they were made.
    in_doubt: VecDeque<(Instant, u64)>,
}

/// What is known of one queue's messages.
#[derive(Debug, Default)]
struct Known {
    unstarted: Bag,
    ended: Bag,
    /// Redeliveries of messages never seen here that are explained anyway.
    excused: usize,
}

/// What a redelivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redelivery {
    /// Its task ended here: it only needs its acknowledgement.
    Ended,
    /// Nobody died of it.
    Explained,
    /// Somebody may have.
    Unexplained,
}

/// A bounded collection of digests. A message that is in it twice can be taken out twice.
#[derive(Debug, Default)]
struct Bag {
    counts: HashMap<u64, DigestCount>,
    /// In the order they came, with those that were taken out since.
    order: VecDeque<(Duration, u64)>,
}

#[derive(Debug, Default)]
struct DigestCount {
    live: usize,
    in_order: usize,
}

impl Losses {
    /// What equal messages have in common.
    pub(super) fn digest(&self, delivery: &Delivery) -> u64 {
        self.digests.of(&delivery.properties, &delivery.body)
    }

    /// A queue's new subscription.
    pub(super) fn consuming(&mut self, consumer: ConsumerId, queue: QueueKey, window: u16) {
        let feed = Feed { queue, window: usize::from(window), in_doubt: VecDeque::new() };
        self.feeds.insert(consumer, feed);
    }

    /// A delivery goes back without having been started.
    pub(super) fn unstarted(&mut self, queue: QueueKey, delivery: &Delivery) {
        let digest = self.digest(delivery);
        self.queues.entry(queue).or_default().unstarted.put(Duration::ZERO, digest);
    }

    /// Everything that belongs to a delivery is done, and its acknowledgement is sent.
    pub(super) fn ended(&mut self, consumer: ConsumerId, delivery: &Delivery, now: Instant) {
        let Some(feed) = self.feeds.get_mut(&consumer) else { return };
        if !task::has_known_id(&delivery.properties) {
            return;
        }
        feed.in_doubt.push_back((now, self.digests.of(&delivery.properties, &delivery.body)));
        if feed.in_doubt.len() > feed.window {
            feed.in_doubt.pop_front();
        }
    }

    /// A delivery goes back that was never seen here.
    pub(super) fn withheld(&mut self, consumer: ConsumerId) {
        if let Some(feed) = self.feeds.get(&consumer) {
            self.queues.entry(feed.queue).or_default().excuse(1);
        }
    }

    /// The broker has seen all that was sent on a subscription's channel before then.
    pub(super) fn seen(&mut self, consumer: ConsumerId, before: Instant) {
        if let Some(feed) = self.feeds.get_mut(&consumer) {
            feed.in_doubt.retain(|(at, _)| *at >= before);
        }
    }

    /// The same of everything, and the subscription has ended.
    pub(super) fn released(&mut self, consumer: ConsumerId) {
        self.feeds.remove(&consumer);
    }

    /// A subscription was lost with so many unsettled deliveries in hand. `consumed`: for how long its queue was.
    pub(super) fn lost(
        &mut self,
        consumer: ConsumerId,
        in_hand: usize,
        consumed: impl FnOnce(QueueKey) -> Duration,
    ) {
        let Some(feed) = self.feeds.remove(&consumer) else { return };
        let (known, consumed) = (self.queues.entry(feed.queue).or_default(), consumed(feed.queue));
        for (_, digest) in feed.in_doubt {
            known.ended.put(consumed, digest);
        }
        known.excuse(feed.window.saturating_sub(in_hand));
    }

    /// Takes a redelivery for what it is; what explains it is used up.
    pub(super) fn explain(&mut self, queue: QueueKey, delivery: &Delivery) -> Redelivery {
        let Some(known) = self.queues.get_mut(&queue) else { return Redelivery::Unexplained };
        if !known.unstarted.is_empty() || !known.ended.is_empty() {
            let digest = self.digests.of(&delivery.properties, &delivery.body);
            if known.unstarted.take(digest) {
                return Redelivery::Explained;
            }
            if known.ended.take(digest) {
                return Redelivery::Ended;
            }
        }
        match known.excused.checked_sub(1) {
            Some(left) => {
                known.excused = left;
                Redelivery::Explained
            }
            None => Redelivery::Unexplained,
        }
    }

    /// Forgets what another consumer must have taken.
    pub(super) fn expire(&mut self, consumed: impl Fn(QueueKey) -> Duration) {
        for (queue, known) in &mut self.queues {
            if let Some(before) = consumed(*queue).checked_sub(REDELIVERED_WITHIN) {
                known.ended.forget(before);
            }
        }
    }
}

impl Known {
    fn excuse(&mut self, redeliveries: usize) {
        self.excused = (self.excused + redeliveries).min(BOUND);
    }
}

impl Bag {
    fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn put(&mut self, at: Duration, digest: u64) {
        self.order.push_back((at, digest));
        let count = self.counts.entry(digest).or_default();
        count.live += 1;
        count.in_order += 1;
        if self.order.len() > BOUND {
            self.drop_oldest();
        }
    }

    fn take(&mut self, digest: u64) -> bool {
        let Some(count) = self.counts.get_mut(&digest).filter(|count| count.live > 0) else { return false };
        count.live -= 1;
        true
    }

    fn forget(&mut self, up_to: Duration) {
        while self.order.front().is_some_and(|(at, _)| *at <= up_to) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, digest)) = self.order.pop_front() else { return };
        let Some(count) = self.counts.get_mut(&digest) else { return };
        count.in_order -= 1;
        // What was taken out were the oldest of its kind.
        count.live = count.live.min(count.in_order);
        if count.in_order == 0 {
            self.counts.remove(&digest);
        }
    }
}
