//! A model of the link: connecting, subscribing, cancelling, settling, and losing all of it.

use std::sync::Arc;
use std::time::Duration;

use super::agenda::AgendaItem;
use super::broker::{MessagePlace, SubscriptionModel, Uid};
use super::choice::For;
use super::fault::Fault;
use super::world::World;
use crate::broker::{ConsumerId, Delivery, LinkEvent};
use crate::config;
use crate::engine::core::Event;

impl World {
    /// The daemon connects, or connects again.
    pub(super) fn connect(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        daemon.link += 1;
        let link = daemon.link;
        let takes = self.choices.span(
            Duration::from_micros(200),
            Duration::from_millis(400),
            For::Pause,
            self.incarnation,
            link,
        );
        let daemon = self.incarnation;
        self.agenda.add(self.now + takes, AgendaItem::Connected { daemon, link });
    }

    pub(super) fn on_connected(&mut self, number: u64, link: u64) {
        let Some(daemon) = self.daemon.as_mut().filter(|daemon| daemon.link == link) else { return };
        if number != self.incarnation {
            return;
        }
        daemon.is_connected = true;
        daemon.subscribing.clear();
        self.tell_connected();
        self.subscribe();
    }

    /// Subscribes to what is wanted and has no live subscription, and cancels what is not wanted.
    pub(super) fn subscribe(&mut self) {
        let number = self.incarnation;
        let Some(daemon) = self.daemon.as_mut().filter(|daemon| daemon.is_connected) else { return };
        let consuming: Vec<(u32, usize, u16)> = self
            .broker
            .subscriptions
            .iter()
            .filter(|(_, one)| one.daemon == number && one.is_open && one.is_consuming)
            .map(|(consumer, one)| (*consumer, one.queue, one.window))
            .collect();
        let mut cancelled = Vec::new();
        for (consumer, queue, window) in &consuming {
            if !daemon.wanted.contains(&(*queue, *window)) {
                cancelled.push(*consumer);
            }
        }
        let mut subscribed = Vec::new();
        for (queue, _) in &daemon.wanted {
            let has_one = consuming.iter().any(|(_, other, _)| other == queue);
            if !has_one && !daemon.subscribing.contains(queue) {
                daemon.subscribing.push(*queue);
                subscribed.push(*queue);
            }
        }
        let link = daemon.link;
        for queue in subscribed {
            let takes = self.way(queue as u64, self.events) + Duration::from_micros(100);
            self.agenda.add(self.now + takes, AgendaItem::Subscribed { daemon: number, link, queue });
        }
        for consumer in cancelled {
            let takes = self.way(u64::from(consumer), self.events);
            self.agenda.add(self.now + takes, AgendaItem::CancelDone { consumer });
        }
    }

    pub(super) fn on_subscribed(&mut self, number: u64, link: u64, queue: usize) {
        let Some(daemon) = self.daemon.as_mut().filter(|daemon| daemon.link == link && daemon.is_connected)
        else {
            return;
        };
        if number != self.incarnation {
            return;
        }
        daemon.subscribing.retain(|other| *other != queue);
        let Some((_, window)) = daemon.wanted.iter().find(|(other, _)| *other == queue).copied() else {
            return;
        };
        self.broker.next_consumer += 1;
        let consumer = self.broker.next_consumer;
        self.broker.subscriptions.insert(consumer, SubscriptionModel::new(number, queue, window));
        let name: Arc<str> = self.setup().queues[queue].config.name.clone();
        let event = LinkEvent::Consuming { consumer: ConsumerId(consumer), queue: name, window };
        self.tell_of_subscription(consumer, event);
        self.agenda.add(self.now + Duration::from_secs(2), AgendaItem::AskSeen { consumer });
        self.hand_out(queue);
    }

    /// Tells something about a subscription, in the order of its channel.
    fn tell_of_subscription(&mut self, consumer: u32, event: LinkEvent) {
        let way = self.way(u64::from(consumer), self.events + self.broker.messages.len() as u64);
        let now = self.now;
        let Some(one) = self.broker.subscriptions.get_mut(&consumer) else { return };
        // What is lost is told before it comes again.
        let after_loss = self.broker.queues[one.queue].loss_told;
        one.to_daemon = one.to_daemon.max(now + way).max(after_loss);
        let at = one.to_daemon;
        self.tell_at(at, Event::Link(event));
    }

    /// The broker hands out what there is room for.
    pub(super) fn hand_out(&mut self, queue: usize) {
        while let Some((consumer, tag, uid)) = self.broker.hand_out(queue) {
            let message = &self.broker.messages[uid];
            self.ledger.handed_out.insert((consumer, tag), (uid, message.deliveries > 1));
            let delivery = Delivery {
                consumer: ConsumerId(consumer),
                tag,
                redelivered: message.deliveries > 1,
                received: self.unix(),
                properties: message.properties.clone(),
                body: message.body.clone(),
                note: None,
            };
            self.tell_of_subscription(consumer, LinkEvent::Delivery(delivery));
        }
    }

    /// A message reaches its work queue, for the first time or again.
    pub(super) fn come_back(&mut self, uid: Uid) {
        let message = &self.broker.messages[uid];
        if message.place != MessagePlace::Away {
            return;
        }
        let queue = message.queue;
        if message.deliveries > 0 {
            self.broker.requeue(uid);
        } else {
            self.broker.enqueue(uid);
        }
        self.hand_out(queue);
    }

    /// The configuration names other queues, or some are paused.
    pub(super) fn consume(&mut self, queues: &[config::Queue]) {
        if self.daemon.as_ref().is_some_and(|daemon| daemon.drain.is_some()) {
            return self.broken("a drain consumes nothing", format!("{} queues", queues.len()));
        }
        let wanted = queues.iter().filter_map(|queue| {
            let at = self.setup().queues.iter().position(|known| known.config.name == queue.name)?;
            Some((at, queue.window()))
        });
        let wanted = wanted.collect();
        if let Some(daemon) = &mut self.daemon {
            daemon.wanted = wanted;
        }
        self.subscribe();
    }

    pub(super) fn stop_consuming(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.wanted.clear();
            if let Some(drain) = &mut daemon.drain {
                drain.is_waiting_for_consumers = true;
            }
        }
        self.subscribe();
        self.note_consumers_stopped();
    }

    /// Tells when the last consumer has ended.
    fn note_consumers_stopped(&mut self) {
        let number = self.incarnation;
        let left = self.broker.subscriptions.values().any(|one| one.daemon == number && one.is_consuming);
        let Some(drain) = self.daemon.as_mut().and_then(|daemon| daemon.drain.as_mut()) else { return };
        if !left && std::mem::take(&mut drain.is_waiting_for_consumers) {
            let last = self.broker.subscriptions.values().filter(|one| one.daemon == number);
            let at = last.map(|one| one.to_daemon).max().unwrap_or_default().max(self.now);
            self.tell_at(at, Event::ConsumersStopped);
        }
    }

    pub(super) fn on_cancel_done(&mut self, consumer: u32) {
        let Some(one) = self.broker.subscriptions.get_mut(&consumer).filter(|one| one.is_open) else {
            return;
        };
        if !std::mem::take(&mut one.is_consuming) {
            return;
        }
        self.tell_of_subscription(consumer, LinkEvent::Stopped { consumer: ConsumerId(consumer) });
        self.release(consumer);
        self.note_consumers_stopped();
        self.subscribe();
    }

    /// A stopped subscription on which nothing is open any more comes to its end.
    fn release(&mut self, consumer: u32) {
        let Some(one) = self.broker.subscriptions.get_mut(&consumer).filter(|one| one.is_open) else {
            return;
        };
        if one.is_consuming || !one.unsettled.is_empty() {
            return;
        }
        one.is_open = false;
        self.tell_of_subscription(consumer, LinkEvent::Released { consumer: ConsumerId(consumer) });
    }

    /// A settlement is sent.
    pub(super) fn send_settlement(&mut self, consumer: u32, tag: u64, requeue: bool) {
        let way = self.way(u64::from(consumer), tag);
        let now = self.now;
        let Some(one) = self.broker.subscriptions.get_mut(&consumer).filter(|one| one.is_open) else {
            return self.fault(Fault::AckLost);
        };
        one.is_unseen = true;
        one.to_broker = one.to_broker.max(now + way);
        one.on_their_way.push((tag, requeue));
        let at = one.to_broker;
        self.agenda.add(at, AgendaItem::Settle { consumer, tag, requeue });
    }

    pub(super) fn settle_at_broker(&mut self, consumer: u32, tag: u64, requeue: bool) {
        let Some(one) = self.broker.subscriptions.get_mut(&consumer).filter(|one| one.is_open) else {
            return;
        };
        one.on_their_way.retain(|(other, _)| *other != tag);
        let queue = one.queue;
        if !self.broker.settle(consumer, tag, requeue) {
            return self
                .broken("a tag is settled once", format!("{consumer}/{tag} is not open at the broker"));
        }
        self.release(consumer);
        self.hand_out(queue);
    }

    /// The first `count` settlements that were on their way arrive before the end.
    fn settle_on_their_way(&mut self, consumer: u32, count: usize) {
        let Some(one) = self.broker.subscriptions.get_mut(&consumer) else { return };
        let rest = one.on_their_way.split_off(count.min(one.on_their_way.len()));
        for (tag, requeue) in std::mem::replace(&mut one.on_their_way, rest) {
            self.broker.settle(consumer, tag, requeue);
        }
    }

    pub(super) fn ask_seen(&mut self, consumer: u32) {
        let Some(one) = self.broker.subscriptions.get_mut(&consumer).filter(|one| one.is_open) else {
            return;
        };
        if one.is_lost || one.daemon != self.incarnation {
            return;
        }
        if std::mem::take(&mut one.is_unseen) {
            // The answer comes behind what was sent before.
            let answered = one.to_broker.max(self.now);
            one.to_daemon = one.to_daemon.max(answered);
            let before = self.clock().instant;
            self.tell_of_subscription(consumer, LinkEvent::Seen { consumer: ConsumerId(consumer), before });
        }
        self.agenda.add(self.now + Duration::from_secs(3), AgendaItem::AskSeen { consumer });
    }

    /// One subscription is lost, or all of a connection.
    pub(super) fn lose_subscriptions(&mut self, consumers: &[u32]) {
        for consumer in consumers {
            let Some(one) = self.broker.subscriptions.get_mut(consumer) else { continue };
            // A link that is lost after everything was settled is not told of again.
            if !one.is_open {
                continue;
            }
            one.is_deaf = self.choices.chance(500, For::Lost, u64::from(*consumer), 0);
            let at = one.to_daemon.max(self.now)
                + self.choices.span(
                    Duration::ZERO,
                    self.plan.setup.latency,
                    For::Lost,
                    u64::from(*consumer),
                    1,
                );
            one.to_daemon = at;
            let queue = &mut self.broker.queues[one.queue];
            queue.loss_told = queue.loss_told.max(at);
            let settlements = self.broker.lose(*consumer);
            if let Some(one) = self.broker.subscriptions.get_mut(consumer) {
                one.has_lost_settlements = settlements > 0;
            }
            for _ in 0..settlements {
                self.fault(Fault::AckLost);
            }
            self.tell_lost(*consumer, at);
        }
        for queue in 0..self.broker.queues.len() {
            self.hand_out(queue);
        }
        self.note_consumers_stopped();
    }

    /// The daemon is gone, and its connection with it. In good order everything that was sent has arrived.
    pub(super) fn close_link(&mut self, is_orderly: bool) {
        let mine: Vec<u32> = self.broker.subscriptions.keys().copied().collect();
        for consumer in mine {
            let Some(one) = self.broker.subscriptions.get(&consumer).filter(|one| one.is_open) else {
                continue;
            };
            let sent = one.on_their_way.len();
            let arrive = self.choices.below(sent as u64 + 1, For::Lost, u64::from(consumer), 2);
            self.settle_on_their_way(consumer, if is_orderly { sent } else { arrive as usize });
            for _ in 0..self.broker.lose(consumer) {
                self.fault(Fault::AckLost);
            }
        }
        self.broker.subscriptions.clear();
    }
}
