//! The configured queues, and which subscription feeds which.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::ConsumerId;
use crate::config;
use crate::model::status::{Counts, Histogram};

use super::keys::QueueKey;

/// One queue.
#[derive(Debug)]
pub(super) struct ConsumedQueue {
    pub(super) config: Arc<config::Queue>,
    /// The live subscription, if there is one.
    pub(super) consumer: Option<ConsumerId>,
    /// For how long it was consumed by earlier subscriptions.
    consumed: Duration,
    /// When the live one began.
    since: Instant,
    /// Still configured. A removed queue stays until its deliveries are settled.
    pub(super) configured: bool,
    /// Why it is left alone, when what it delivers ends the connection; a sentence with the remedy.
    pub(super) quarantine: Option<String>,
    /// An operator paused it: no consumer, no starts.
    pub(super) paused: bool,
    pub(super) counts: Counts,
    /// From delivery to start.
    pub(super) waits: Histogram,
    /// Its tasks that cannot be settled.
    pub(super) stuck: Stuck,
    /// What its delay queues, or the clocks of who writes to them, do that they should not.
    pub(super) odd: Option<Seen>,
}

/// Tasks of one queue that cannot be settled.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    pub(super) tasks: usize,
    /// Why one of them cannot.
    pub(super) why: Option<String>,
}

/// Something odd, and when it was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) what: String,
    pub(super) last: Instant,
    pub(super) logged: Instant,
}

impl ConsumedQueue {
    /// It is to be consumed: configured, and not paused by an operator.
    fn is_wanted(&self) -> bool {
        self.configured && !self.paused
    }

    /// It is to be consumed and is not.
    pub(super) fn is_missing(&self) -> bool {
        self.is_wanted() && self.consumer.is_none()
    }

    /// Its window is full of tasks that cannot be settled: nothing comes any more.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.tasks >= usize::from(self.config.window())
    }
}

/// All queues, and which subscription feeds which.
#[derive(Debug, Default)]
pub(super) struct Queues {
    list: Vec<ConsumedQueue>,
    by_consumer: Vec<(ConsumerId, QueueKey)>,
}

impl Queues {
    /// Takes over the configured queues; known ones keep their counts and subscription.
    pub(super) fn configure(&mut self, configured: &[config::Queue], now: Instant) {
        for queue in &mut self.list {
            queue.configured = false;
        }
        for config in configured {
            let config = Arc::new(config.clone());
            match self.list.iter_mut().find(|q| q.config.name == config.name) {
                Some(known) => {
                    known.config = config;
                    known.configured = true;
                }
                None => self.list.push(ConsumedQueue {
                    config,
                    consumer: None,
                    consumed: Duration::ZERO,
                    quarantine: None,
                    since: now,
                    configured: true,
                    paused: false,
                    counts: Counts::default(),
                    waits: Histogram::default(),
                    stuck: Stuck::default(),
                    odd: None,
                }),
            }
        }
        for queue in &mut self.list {
            // A pause ends with its queue: nobody would remember it when that is configured again.
            queue.paused &= queue.configured;
        }
    }

    /// A queue's new subscription.
    pub(super) fn consuming(&mut self, consumer: ConsumerId, name: &str, now: Instant) -> Option<QueueKey> {
        let key = self.list.iter().position(|q| &*q.config.name == name)?;
        let queue = &mut self.list[key];
        queue.consumed = queue.consumed_for(now);
        (queue.consumer, queue.since, queue.quarantine) = (Some(consumer), now, None);
        self.by_consumer.push((consumer, key));
        Some(key)
    }

    /// A subscription ended.
    pub(super) fn lost(&mut self, consumer: ConsumerId, now: Instant) {
        self.by_consumer.retain(|(c, _)| *c != consumer);
        for queue in &mut self.list {
            if queue.consumer == Some(consumer) {
                queue.consumed = queue.consumed_for(now);
                queue.consumer = None;
            }
        }
    }

    /// The queue that a subscription feeds. The list is as short as there are queues.
    pub(super) fn fed_by(&self, consumer: ConsumerId) -> Option<QueueKey> {
        self.by_consumer.iter().rev().find(|(c, _)| *c == consumer).map(|(_, key)| *key)
    }

    /// Whether every configured queue is being consumed and can take tasks, those aside that an operator paused.
    pub(super) fn all_consuming(&self) -> bool {
        self.iter().all(|q| !q.is_wanted() || (q.consumer.is_some() && !q.is_stuck()))
    }

    /// Which queue takes no tasks, if one does not.
    pub(super) fn unready(&self) -> Option<String> {
        let missing = || self.iter().filter(|q| q.is_missing());
        if let Some(quarantine) = missing().find_map(|queue| queue.quarantine.clone()) {
            return Some(quarantine);
        }
        match (missing().next(), self.first_stuck()) {
            (Some(queue), _) => Some(format!("queue `{}` is not consumed", queue.config.name)),
            (None, Some(queue)) => Some(format!("queue `{}` is stuck", queue.config.name)),
            (None, None) => None,
        }
    }

    /// A queue that takes no tasks because those in hand cannot be settled.
    pub(super) fn first_stuck(&self) -> Option<&ConsumedQueue> {
        self.iter().find(|q| q.is_wanted() && q.is_stuck())
    }

    /// The queues to subscribe to: configured and not paused.
    pub(super) fn wanted(&self) -> Vec<config::Queue> {
        let wanted = self.iter().filter(|q| q.is_wanted());
        wanted.map(|q| config::Queue::clone(&q.config)).collect()
    }

    /// What comes from a queue ends the connection, and it is left alone.
    pub(super) fn quarantined(&mut self, name: &str, why: &str) {
        if let Some(queue) = self.list.iter_mut().find(|queue| &*queue.config.name == name) {
            queue.quarantine = Some(why.to_owned());
        }
    }

    /// A configured queue by its name.
    pub(super) fn named(&self, name: &str) -> Option<QueueKey> {
        self.list.iter().position(|q| q.configured && &*q.config.name == name)
    }

    /// How many there are, removed ones included.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ConsumedQueue> {
        self.list.iter()
    }
}

impl ConsumedQueue {
    /// For how long it has been consumed since the start, all subscriptions together.
    pub(super) fn consumed_for(&self, now: Instant) -> Duration {
        let live = self.consumer.map_or(Duration::ZERO, |_| now.saturating_duration_since(self.since));
        self.consumed + live
    }
}

impl std::ops::Index<QueueKey> for Queues {
    type Output = ConsumedQueue;

    fn index(&self, key: QueueKey) -> &ConsumedQueue {
        &self.list[key]
    }
}

impl std::ops::IndexMut<QueueKey> for Queues {
    fn index_mut(&mut self, key: QueueKey) -> &mut ConsumedQueue {
        &mut self.list[key]
    }
}
