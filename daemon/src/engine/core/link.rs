//! What the link to the broker reports, deliveries aside.

use std::time::Duration;

use crate::broker::{ConsumerId, LinkEvent};

use crate::model::status::BrokerState;

use super::entry::Ownership;
use super::keys::EntryKey;
use super::{Core, Turn};

impl Core {
    pub(super) fn on_link(&mut self, event: LinkEvent, turn: &mut Turn<'_>) {
        let at = turn.now.unix;
        match event {
            LinkEvent::Delivery(delivery) => self.on_delivery(delivery, turn),
            LinkEvent::Connected { address, server } => {
                tracing::info!(%address, %server, "connected to the broker");
                self.broker.address = address;
                self.broker.server = server;
                self.broker.connects += 1;
                self.broker.state = BrokerState::Connected;
            }
            LinkEvent::Consuming { consumer, queue, window } => {
                tracing::info!(%queue, "consuming");
                if let Some(key) = self.queues.consuming(consumer, &queue, turn.now.instant) {
                    self.losses.consuming(consumer, key, window);
                }
            }
            LinkEvent::Stopped { consumer } => {
                let queue = self.queues.fed_by(consumer);
                self.queues.lost(consumer, turn.now.instant);
                self.on_stopped(queue, turn);
            }
            LinkEvent::Seen { consumer, before } => self.losses.seen(consumer, before),
            LinkEvent::Released { consumer } => self.losses.released(consumer),
            LinkEvent::Withheld { consumer } => self.losses.withheld(consumer),
            LinkEvent::Unusable { queue, why } => {
                tracing::error!(%queue, error = %why, "the queue cannot be consumed; trying again");
                self.errors.add(at, None, None, &why);
                self.broker.last_error = Some(why);
            }
            LinkEvent::Quarantined { queue, why, wait } => self.on_quarantined(&queue, &why, wait, turn),
            LinkEvent::Lost { consumer, why } => self.on_lost(consumer, &why, turn),
            LinkEvent::Away { why } => {
                tracing::warn!(error = %why, "the broker is away; trying again");
                self.broker.state = BrokerState::Connecting;
                self.errors.add(at, None, None, &why);
                self.broker.last_error = Some(why);
            }
            LinkEvent::NotPublishing { why } => {
                tracing::warn!(error = %why, "nothing can be published; trying again");
                self.broker.state = BrokerState::NotPublishing;
                self.errors.add(at, None, None, &why);
                self.broker.last_error = Some(why);
            }
            LinkEvent::Blocked(blocked) => {
                tracing::warn!(blocked, "the broker blocks publishing while it is short of memory or disk");
                self.broker.state = if blocked { BrokerState::Blocked } else { BrokerState::Connected };
            }
            LinkEvent::NotTaken { queue, why } => {
                tracing::error!(%queue, error = %why, "the broker rejected a copy; its task stays unacknowledged, trying again");
                self.errors.add(at, None, None, &why);
                self.not_taken = Some(why);
            }
            LinkEvent::Vanished { queue } => {
                let why = format!(
                    "queue `{queue}` was deleted, with all that was in it, and is declared anew: does a policy with \
                     `expires` match it (rabbitmqctl list_policies)?"
                );
                tracing::error!(%queue, error = %why, "a delay or dead-letter queue was deleted");
                self.errors.add(at, None, None, &why);
            }
        }
    }

    fn on_quarantined(&mut self, queue: &str, cause: &str, wait: Duration, turn: &Turn<'_>) {
        let why = format!(
            "queue `{queue}`: what it delivers ends the connection ({cause}); it is left alone for {wait:?} so that \
             other queues go on, then tried again, or at once by `warrenctl reload`. Look at its first messages on the \
             broker's management page or with `rabbitmqadmin get queue={queue} count=5`, and remove the bad one there"
        );
        tracing::error!(QUEUE = queue, error = %why, "queue quarantined");
        self.errors.add(turn.now.unix, None, None, &why);
        self.queues.quarantined(queue, &why);
    }

    /// The tags of a subscription are invalid. What waits is forgotten, because the broker redelivers it; what runs or has
    /// ended goes on, and its redelivery is reattached.
    fn on_lost(&mut self, consumer: ConsumerId, why: &str, turn: &Turn<'_>) {
        tracing::warn!(error = why, "subscription lost; the broker redelivers what was not settled");
        self.broker.last_error = Some(why.to_owned());
        let now = turn.now.instant;
        self.queues.lost(consumer, now);
        let held: Vec<EntryKey> = self
            .in_flight
            .keys_where(|entry| matches!(entry.ownership, Ownership::Held(holder, _) if holder == consumer));
        for key in &held {
            let entry = &self.in_flight[*key];
            if entry.is_waiting() {
                let entry = self.forget_waiting(*key);
                self.losses.unstarted(entry.queue, &entry.delivery);
            } else {
                let digest = self.losses.digest(&entry.delivery);
                let consumed = self.queues[entry.queue].consumed_for(now);
                self.in_flight.detach(*key, consumed, digest);
            }
        }
        self.losses.lost(consumer, held.len(), |queue| self.queues[queue].consumed_for(now));
    }
}
