//! A model of the broker: messages, queues and subscriptions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lapin::BasicProperties;

use super::setup::Order;
use crate::model::UnixMs;

/// A message. It keeps its number for as long as it lives; a copy is another message.
pub(super) type Uid = usize;

/// A delivery in the daemon's hand, by the consumer and the tag that it came with first.
pub(super) type HandKey = (u32, u64);

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessagePlace {
    Ready,
    Unsettled,
    /// In a delay queue, or with another consumer.
    Away,
    Gone,
}

/// A message in a work queue or on its way there, and what the ledger knows of it.
#[derive(Debug)]
pub(super) struct Message {
    /// The task: the number of the operation that published it.
    pub(super) task: usize,
    pub(super) queue: usize,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
    /// As whoever made the copy has to have counted.
    pub(super) attempt: u32,
    pub(super) redeliveries: u32,
    pub(super) due: Option<UnixMs>,
    pub(super) deadline: Option<UnixMs>,
    pub(super) place: MessagePlace,
    /// Its place in its queue, and how often it was handed out.
    position: i64,
    pub(super) deliveries: u32,
    /// How often a host started it, and how often that may be.
    pub(super) starts: u32,
    pub(super) allowed: u32,
    /// As the present daemon has it, if it does.
    pub(super) hand: Option<HandKey>,
    /// The present daemon acknowledged it.
    pub(super) ended_here: bool,
    /// The present daemon had it, and gave it back or forgot it without a start.
    pub(super) waited_here: bool,
}

impl Message {
    pub(super) fn new(task: usize, queue: usize, properties: BasicProperties, body: Vec<u8>) -> Self {
        Self {
            task,
            queue,
            properties,
            body,
            attempt: 1,
            redeliveries: 0,
            due: None,
            deadline: None,
            place: MessagePlace::Away,
            position: 0,
            deliveries: 0,
            starts: 0,
            allowed: 1,
            hand: None,
            ended_here: false,
            waited_here: false,
        }
    }

    /// A start that had happened does not count any more: something explains that it is repeated.
    pub(super) fn may_start_again(&mut self) {
        self.allowed = self.starts + 1;
    }
}

/// A subscription, as the broker and the link have it.
#[derive(Debug)]
pub(super) struct SubscriptionModel {
    pub(super) daemon: u64,
    pub(super) queue: usize,
    pub(super) window: u16,
    next_tag: u64,
    /// What the broker has handed out here and not seen settled.
    pub(super) unsettled: BTreeMap<u64, Uid>,
    /// It gets deliveries.
    pub(super) is_consuming: bool,
    /// The broker still has it.
    pub(super) is_open: bool,
    /// What is on its way to the daemon does not arrive any more.
    pub(super) is_deaf: bool,
    /// Settlements were lost with it: whether the broker has seen those before is not told any more.
    pub(super) has_lost_settlements: bool,
    /// The daemon knows that it is lost.
    pub(super) is_lost: bool,
    /// Something was settled that the broker is not known to have seen.
    pub(super) is_unseen: bool,
    /// When the last of what was sent arrives, to the daemon and to the broker.
    pub(super) to_daemon: Duration,
    pub(super) to_broker: Duration,
    /// Settlements on their way: the tag, and whether it goes back.
    pub(super) on_their_way: Vec<(u64, bool)>,
}

impl SubscriptionModel {
    pub(super) fn new(daemon: u64, queue: usize, window: u16) -> Self {
        Self {
            daemon,
            queue,
            window,
            next_tag: 0,
            unsettled: BTreeMap::new(),
            is_consuming: true,
            is_open: true,
            is_deaf: false,
            has_lost_settlements: false,
            is_lost: false,
            is_unseen: false,
            to_daemon: Duration::ZERO,
            to_broker: Duration::ZERO,
            on_their_way: Vec::new(),
        }
    }
}

/// A work queue.
#[derive(Debug)]
pub(super) struct QueueModel {
    pub(super) order: Order,
    /// When the daemon has been told of the last loss of a subscription.
    pub(super) loss_told: Duration,
    ready: VecDeque<Uid>,
    next: i64,
    front: i64,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct BrokerModel {
    pub(super) messages: Vec<Message>,
    pub(super) queues: Vec<QueueModel>,
    pub(super) subscriptions: BTreeMap<u32, SubscriptionModel>,
    pub(super) next_consumer: u32,
    pub(super) is_blocked: bool,
}

impl QueueModel {
    pub(super) fn new(order: Order) -> Self {
        Self { order, loss_told: Duration::ZERO, ready: VecDeque::new(), next: 0, front: 0 }
    }
}

impl BrokerModel {
    /// A message reaches the end of its queue.
    pub(super) fn enqueue(&mut self, uid: Uid) {
        let message = &mut self.messages[uid];
        let queue = &mut self.queues[message.queue];
        queue.next += 1;
        message.position = queue.next;
        message.place = MessagePlace::Ready;
        queue.ready.push_back(uid);
    }

    /// A message comes back to its queue.
    pub(super) fn requeue(&mut self, uid: Uid) {
        let message = &self.messages[uid];
        let queue = &mut self.queues[message.queue];
        match queue.order {
            Order::End => return self.enqueue(uid),
            Order::Front => {
                queue.front -= 1;
                let position = queue.front;
                queue.ready.push_front(uid);
                self.messages[uid].position = position;
            }
            Order::Place => {
                let position = message.position;
                let messages = &self.messages;
                let at = queue.ready.partition_point(|other| messages[*other].position < position);
                queue.ready.insert(at, uid);
            }
        }
        self.messages[uid].place = MessagePlace::Ready;
    }

    /// Another consumer takes the first message.
    pub(super) fn take_elsewhere(&mut self, queue: usize) -> Option<Uid> {
        let uid = self.queues[queue].ready.pop_front()?;
        self.messages[uid].deliveries += 1;
        self.messages[uid].place = MessagePlace::Away;
        Some(uid)
    }

    /// Hands out what a queue has and its subscriptions have room for: consumer, tag, message.
    pub(super) fn hand_out(&mut self, queue: usize) -> Option<(u32, u64, Uid)> {
        let has_room = |(_, one): &(&u32, &mut SubscriptionModel)| {
            one.queue == queue && one.is_consuming && one.unsettled.len() < usize::from(one.window)
        };
        if self.queues[queue].ready.is_empty() {
            return None;
        }
        let (consumer, one) = self.subscriptions.iter_mut().find(has_room)?;
        let uid = self.queues[queue].ready.pop_front()?;
        one.next_tag += 1;
        one.unsettled.insert(one.next_tag, uid);
        self.messages[uid].deliveries += 1;
        self.messages[uid].place = MessagePlace::Unsettled;
        Some((*consumer, one.next_tag, uid))
    }

    /// A settlement arrives. False: there is no such tag.
    pub(super) fn settle(&mut self, consumer: u32, tag: u64, requeue: bool) -> bool {
        let Some(one) = self.subscriptions.get_mut(&consumer) else { return false };
        let Some(uid) = one.unsettled.remove(&tag) else { return false };
        if requeue {
            self.requeue(uid);
        } else {
            self.messages[uid].place = MessagePlace::Gone;
        }
        true
    }

    /// A subscription ends without the daemon's doing: what it had goes back. The settlements that are lost with it.
    pub(super) fn lose(&mut self, consumer: u32) -> usize {
        let Some(one) = self.subscriptions.get_mut(&consumer) else { return 0 };
        one.is_open = false;
        one.is_consuming = false;
        let lost = std::mem::take(&mut one.on_their_way).len();
        let back = std::mem::take(&mut one.unsettled);
        // The newest first, so that a queue that puts them in front has them in their order.
        for uid in back.into_values().rev() {
            self.requeue(uid);
        }
        lost
    }

    /// Whether every message has come to its end.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.iter().all(|message| message.place == MessagePlace::Gone)
    }
}
