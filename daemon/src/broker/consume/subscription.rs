//! The subscriptions of all links: which consumer a tag belongs to, and what is settled there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::link::End;
use super::presence::Presence;
use super::settler::{Frame, Settler};
use crate::broker::dial::{BrokerConnection, LinkError, answered, loss_of, open_channel};
use crate::broker::event::{ConsumerId, Delivery, LinkEvent, LinkEvents};
use crate::broker::queues::{QueueError, consumers};
use crate::broker::wire::{BodyRoom, LargeBody, Note, Notes};
use crate::config::Queue;
use crate::failpoint::failpoint;
use crate::model::UnixMs;

/// Deliveries handed over in one go before others get their turn on the event loop.
const DELIVERIES_AT_ONCE: usize = 256;

/// Consumers that the broker is asked for in one go: a thousand idle queues are not a thousand questions at one time.
const MAX_ASKED_FOR: usize = 64;

/// Our consumer's tag: unique on its channel, where it is the only one.
pub(super) const CONSUMER_TAG: &str = "warrend";

/// Numbers the connections that consume.
pub(in crate::broker) type SessionId = u32;

/// The subscriptions of all sessions that are neither lost nor released.
pub(in crate::broker) struct Subscriptions {
    events: LinkEvents,
    /// The memory for bodies over `daemon.max_task_bytes`.
    pub(in crate::broker) room: Arc<BodyRoom>,
    next: Cell<u32>,
    all: RefCell<BTreeMap<ConsumerId, Rc<Subscription>>>,
}

/// One queue on one channel.
pub(super) struct Subscription {
    pub(super) session: SessionId,
    pub(super) queue: Arc<str>,
    pub(super) channel: Channel,
    window: u16,
    settler: RefCell<Settler>,
    notes: Arc<Notes>,
    /// Deliveries whose body was withheld, with its size: each goes back to the queue when there is room for it.
    withheld: RefCell<VecDeque<(u64, u64)>>,
    /// Something was settled that the broker is not known to have seen.
    unseen: Cell<bool>,
    presence: Presence,
    /// No delivery comes any more; what is open can still be settled.
    stopped: Cell<bool>,
    /// The channel is gone: what its buffer still holds is void.
    lost: Cell<bool>,
    pump: RefCell<Option<AbortHandle>>,
}

impl Subscriptions {
    pub(in crate::broker) fn new(events: LinkEvents, max_task_bytes: u64) -> Self {
        let room = BodyRoom::new(max_task_bytes);
        Self { events, room, next: Cell::new(1), all: RefCell::default() }
    }

    pub(super) fn tell(&self, event: LinkEvent) {
        (self.events)(event);
    }

    /// Subscribes to a queue on a channel of its own. Its pump reports to `ended` when the stream has ended.
    pub(super) async fn subscribe(
        self: &Rc<Self>,
        session: SessionId,
        dialled: &BrokerConnection,
        queue: &Queue,
        ended: mpsc::UnboundedSender<(ConsumerId, End)>,
    ) -> Result<ConsumerId, QueueError> {
        let broken = |error: LinkError| error.about(&queue.name);
        let name = ShortString::try_new(&*queue.name)
            .map_err(|_| QueueError::NameTooLong(queue.name.to_string()))?;
        let channel = open_channel(&dialled.connection).await.map_err(broken)?;
        answered(channel.basic_qos(queue.window(), BasicQosOptions::default())).await.map_err(broken)?;
        let consuming = channel.basic_consume(
            name,
            CONSUMER_TAG.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = answered(consuming).await.map_err(broken)?;

        let id = ConsumerId(self.next.get());
        self.next.set(id.0 + 1);
        let subscription = Rc::new(Subscription {
            session,
            queue: queue.name.clone(),
            channel,
            window: queue.window(),
            settler: RefCell::default(),
            notes: dialled.notes.clone(),
            withheld: RefCell::default(),
            unseen: Cell::new(false),
            presence: Presence::default(),
            stopped: Cell::new(false),
            lost: Cell::new(false),
            pump: RefCell::default(),
        });
        self.all.borrow_mut().insert(id, subscription.clone());
        let window = queue.window();
        self.tell(LinkEvent::Consuming { consumer: id, queue: queue.name.clone(), window });
        let pump = tokio::task::spawn_local(pump(self.clone(), id, subscription.clone(), consumer, ended));
        *subscription.pump.borrow_mut() = Some(pump.abort_handle());
        Ok(id)
    }

    pub(super) fn get(&self, id: ConsumerId) -> Option<Rc<Subscription>> {
        self.all.borrow().get(&id).cloned()
    }

    /// The subscriptions of one session.
    pub(super) fn of(&self, session: SessionId) -> Vec<(ConsumerId, Rc<Subscription>)> {
        let all = self.all.borrow();
        all.iter().filter(|(_, one)| one.session == session).map(|(id, one)| (*id, one.clone())).collect()
    }

    /// Tells of a delivery, unless its body was withheld.
    fn delivered(&self, id: ConsumerId, subscription: &Subscription, delivery: lapin::message::Delivery) {
        let lapin::message::Delivery { delivery_tag: tag, redelivered, mut properties, data: body, .. } =
            delivery;
        let note = subscription.notes.take(subscription.channel.id(), tag);
        if redelivered {
            self.void_closed(&subscription.queue);
        }
        subscription.settler.borrow_mut().delivered(tag);
        subscription.presence.delivered(Instant::now());
        if let Some(Note { body: LargeBody::Withheld(size), .. }) = note {
            tracing::info!(
                QUEUE = &*subscription.queue,
                size,
                "no room for one more large body; it goes back"
            );
            subscription.withheld.borrow_mut().push_back((tag, size));
            self.tell(LinkEvent::Withheld { consumer: id });
            return;
        }
        if let Some(altered) = note.as_ref().and_then(|note| note.altered.as_ref()) {
            altered.record(&mut properties);
        }
        let note = note.map(Box::new);
        let received = UnixMs::now();
        self.tell(LinkEvent::Delivery(Delivery {
            consumer: id,
            tag,
            redelivered,
            received,
            properties,
            body,
            note,
        }));
    }

    /// Notes that a delivery is done with.
    pub(in crate::broker) fn ack(&self, id: ConsumerId, tag: u64) {
        self.settle(id, tag, Settler::ack);
    }

    /// Notes that a delivery goes back to its queue.
    pub(in crate::broker) fn requeue(&self, id: ConsumerId, tag: u64) {
        self.settle(id, tag, Settler::requeue);
    }

    fn settle(&self, id: ConsumerId, tag: u64, how: impl FnOnce(&mut Settler, u64) -> bool) {
        if let Some(subscription) = self.all.borrow().get(&id) {
            let noted = how(&mut subscription.settler.borrow_mut(), tag);
            if !noted {
                // Sending it would close the channel; not sending it costs nothing.
                tracing::error!(QUEUE = &*subscription.queue, tag, "settled twice, or never delivered");
            }
        }
    }

    /// Sends what was noted. True when a stopped subscription is now settled to its end.
    pub(in crate::broker) fn flush(&self) -> bool {
        let mut finished = false;
        for subscription in self.all.borrow().values() {
            let mut settler = subscription.settler.borrow_mut();
            subscription.give_back_withheld(&mut settler, &self.room);
            if !settler.is_flushed() {
                settler.flush(|frame| subscription.send(frame));
                subscription.unseen.set(true);
                failpoint!("settle::after-ack");
                finished |= subscription.stopped.get() && settler.is_done();
            }
        }
        finished
    }

    /// Our cancel went through and the buffer is read: no delivery follows, what is open stays valid.
    pub(super) fn stopped(&self, id: ConsumerId) {
        let Some(subscription) = self.get(id) else { return };
        subscription.stopped.set(true);
        self.tell(LinkEvent::Stopped { consumer: id });
    }

    /// Everything of it is settled and seen by the broker.
    pub(super) fn released(&self, id: ConsumerId) {
        if self.all.borrow_mut().remove(&id).is_some() {
            self.tell(LinkEvent::Released { consumer: id });
        }
    }

    /// Of a session's subscriptions, those with a settlement that the broker is not known to have seen.
    pub(super) fn unseen(&self, session: SessionId) -> Vec<(ConsumerId, Rc<Subscription>)> {
        let all = self.all.borrow();
        let unseen = all.iter().filter(|(_, one)| one.session == session && one.unseen.replace(false));
        unseen.map(|(id, one)| (*id, one.clone())).collect()
    }

    /// Of a session's subscriptions, those that the broker is to be asked for now.
    pub(super) fn idle(&self, session: SessionId) -> Vec<(ConsumerId, Rc<Subscription>)> {
        let (all, now) = (self.all.borrow(), Instant::now());
        let idle = all
            .iter()
            .filter(|(_, one)| one.session == session && !one.stopped.get() && one.presence.is_due(now));
        idle.take(MAX_ASKED_FOR).map(|(id, one)| (*id, one.clone())).collect()
    }

    /// A redelivery is on its way to the engine. When it comes from the channel of a stopped consumer that the broker
    /// has closed (by its `consumer_timeout`), the engine has to know before: nobody reads from that channel any more.
    fn void_closed(&self, queue: &str) {
        let all = self.all.borrow();
        let closed: Vec<_> = all
            .iter()
            .filter(|(_, one)| one.stopped.get() && &*one.queue == queue && !one.channel.status().connected())
            .map(|(id, _)| *id)
            .collect();
        drop(all);
        for id in closed {
            self.lost(id, "the broker closed the channel");
        }
    }

    /// The channel is gone, and with it every unsettled tag.
    pub(super) fn lost(&self, id: ConsumerId, why: &str) {
        let Some(subscription) = self.all.borrow_mut().remove(&id) else { return };
        subscription.lost.set(true);
        if let Some(pump) = subscription.pump.borrow_mut().take() {
            pump.abort();
        }
        self.tell(LinkEvent::Lost { consumer: id, why: why.to_owned() });
    }
}

impl Subscription {
    /// No delivery comes any more, and all are settled.
    pub(super) fn is_finished(&self) -> bool {
        self.stopped.get() && self.settler.borrow().is_done()
    }

    /// Gives back one delivery whose body was withheld, when there is room for it: it is first in its queue again. All of
    /// them when no delivery comes any more.
    fn give_back_withheld(&self, settler: &mut Settler, room: &BodyRoom) {
        let mut withheld = self.withheld.borrow_mut();
        while let Some((tag, size)) = withheld.front().copied() {
            if !self.stopped.get() && !room.has_room(size) {
                return;
            }
            withheld.pop_front();
            settler.requeue(tag);
            if !self.stopped.get() {
                return;
            }
        }
    }

    /// Waits for an answer of the broker's, which it gives when it has seen what was sent before. Nothing changes, and no
    /// queue is asked: one that does not answer would hold up what comes after.
    pub(super) async fn round_trip(&self) -> Result<(), LinkError> {
        answered(self.channel.basic_qos(self.window, BasicQosOptions::default())).await
    }

    /// Asks the broker for the consumer; why the consumer counts as lost, if it does.
    pub(super) async fn forgotten(&self, connection: &Connection) -> Option<&'static str> {
        self.presence.asked(Instant::now());
        let answer = consumers(connection, &self.queue).await;
        self.presence.answered(answer.ok()?)
    }

    /// Waits until the broker has seen all that was sent: it answers a channel's frames in order. Without this, an
    /// acknowledgement right before a close may be lost, and its task comes back.
    pub(super) async fn barrier(&self) -> Result<(), LinkError> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let name = ShortString::from(&*self.queue);
        answered(self.channel.queue_declare(name, options, FieldTable::default())).await.map(drop)
    }

    /// Queues one frame. Polled once: the first poll puts the frame into lapin's queue, and waiting for it to be
    /// written would tell us nothing. On a dead channel it fails at once, and the broker redelivers.
    fn send(&self, frame: Frame) {
        let _ = match frame {
            Frame::Ack(tag) => {
                self.channel.basic_ack(tag, BasicAckOptions { multiple: false }).now_or_never()
            }
            Frame::AckUpTo(tag) => {
                self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).now_or_never()
            }
            Frame::Requeue(tag) => {
                let options = BasicNackOptions { multiple: false, requeue: true };
                self.channel.basic_nack(tag, options).now_or_never()
            }
        };
    }
}

/// Reads the stream to its end and hands every delivery over, as many at a time as are there.
async fn pump(
    subscriptions: Rc<Subscriptions>,
    id: ConsumerId,
    subscription: Rc<Subscription>,
    mut consumer: lapin::Consumer,
    ended: mpsc::UnboundedSender<(ConsumerId, End)>,
) {
    let end = loop {
        let mut item = Some(consumer.next().await);
        let mut batch = 0;
        let end = loop {
            let Some(next) = item else { break None };
            if let Some(end) = hand_over(&subscriptions, id, &subscription, next) {
                break Some(end);
            }
            batch += 1;
            item = if batch < DELIVERIES_AT_ONCE { consumer.next().now_or_never() } else { None };
        };
        if let Some(end) = end {
            break end;
        }
        if batch == DELIVERIES_AT_ONCE {
            tokio::task::yield_now().await;
        }
    };
    // The session is gone when nobody listens.
    let _ = ended.send((id, end));
}

fn hand_over(
    subscriptions: &Subscriptions,
    id: ConsumerId,
    subscription: &Subscription,
    item: Option<lapin::Result<lapin::message::Delivery>>,
) -> Option<End> {
    match item {
        Some(Ok(delivery)) => {
            if !subscription.lost.get() {
                subscriptions.delivered(id, subscription, delivery);
            }
            None
        }
        Some(Err(error)) => {
            let loss = loss_of(&error);
            Some(if error.is_amqp_soft_error() { End::Channel(loss.why) } else { End::Connection(loss) })
        }
        None => Some(End::Cancelled),
    }
}
