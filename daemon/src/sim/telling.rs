//! The daemon is told something: the ledger takes note of what that means, and the core of what it is.

use std::time::Duration;

use super::broker::{HandKey, Uid};
use super::fault::Fault;
use super::ledger::{Hand, HandStage, Owed, Published};
use super::plan::TaskPlan;
use super::trace;
use super::world::World;
use crate::broker::{Delivery, LinkEvent};
use crate::engine::core::{CopyResult, EntryKey, Event};
use crate::host::HostEvent;
use crate::model::Outcome;
use crate::task::sameness;

/// For so long a run that has ended waits for the redelivery of its message.
const GIVEN_UP: Duration = Duration::from_mins(5);

impl World {
    /// Tells the core something, and performs what it wants done.
    pub(super) fn tell(&mut self, event: Event) {
        if let Event::Link(LinkEvent::Delivery(delivery)) = &event
            && self.broker.subscriptions.get(&delivery.consumer.0).is_none_or(|one| one.is_deaf)
        {
            return self.fault(Fault::DeliveryLost);
        }
        if let Event::Link(LinkEvent::Seen { consumer, .. }) = &event
            && self.broker.subscriptions.get(&consumer.0).is_none_or(|one| one.has_lost_settlements)
        {
            return;
        }
        self.events += 1;
        self.note(|| trace::event(&event));
        let arrived = match &event {
            Event::Link(event) => self.note_link(event),
            Event::Host { host, event, .. } => {
                self.note_host(*host, event);
                None
            }
            Event::Copy { entry, result } => {
                self.note_copy(*entry, result);
                None
            }
            Event::DedupLoaded { queue, .. } => {
                let at = self.setup().queues.iter().position(|known| known.config.name == *queue);
                if let Some((daemon, at)) = self.daemon.as_mut().zip(at) {
                    daemon.has_read[at] = true;
                }
                None
            }
            Event::ConsumersStopped => None,
        };
        let exited = match &event {
            Event::Host { host, event: HostEvent::Exited(_), .. } => Some(*host),
            _ => None,
        };
        let now = self.clock();
        let Some(daemon) = &mut self.daemon else { return };
        daemon.core.on(event, now, &mut daemon.actions);
        if let Some((key, uid)) = arrived {
            self.find_hand(key, uid);
        }
        if let Some(host) = exited {
            self.resolve_exit(host);
        }
        self.perform();
        if let Some((key, uid)) = arrived {
            self.check_arrival(key, uid);
        }
    }

    fn note_link(&mut self, event: &LinkEvent) -> Option<(HandKey, Uid)> {
        match event {
            LinkEvent::Delivery(delivery) => self.note_delivery(delivery),
            LinkEvent::Lost { consumer, .. } => {
                self.note_lost(consumer.0);
                None
            }
            _ => None,
        }
    }

    fn note_lost(&mut self, consumer: u32) {
        let Some(one) = self.broker.subscriptions.get_mut(&consumer) else { return };
        one.is_lost = true;
        self.ledger.has_lost[one.queue] = true;
        let mine: Vec<HandKey> = self
            .ledger
            .hands
            .iter()
            .filter(|(_, hand)| hand.is_held && hand.claim.0 == consumer)
            .map(|(key, _)| *key)
            .collect();
        for key in mine {
            let Some(hand) = self.ledger.hands.get_mut(&key) else { continue };
            if hand.stage == HandStage::Waiting {
                self.forget_hand(key);
            } else {
                (hand.is_held, hand.waits_since) = (false, self.now);
            }
        }
    }

    /// The daemon has a delivery no more, and had not started it: the broker hands it out again.
    pub(super) fn forget_hand(&mut self, key: HandKey) {
        let Some(hand) = self.ledger.hands.remove(&key) else { return };
        let message = &mut self.broker.messages[hand.message];
        message.hand = None;
        message.waited_here = true;
    }

    fn note_delivery(&mut self, delivery: &Delivery) -> Option<(HandKey, Uid)> {
        let key = (delivery.consumer.0, delivery.tag);
        let (uid, _) = *self.ledger.handed_out.get(&key)?;
        self.ledger.told.insert(key, super::ledger::Told { message: uid, is_settled: false });
        let queue = self.broker.messages[uid].queue;
        self.ledger.counts[queue].delivered += 1;
        Some((key, uid))
    }

    /// Finds out what the core takes a delivery for: something new, or one that it has already.
    fn find_hand(&mut self, key: HandKey, uid: Uid) {
        let Some(daemon) = &self.daemon else { return };
        let is_draining = daemon.drain.is_some();
        let holder = daemon.core.original_of_claim(key);
        let before = self.broker.messages[uid].hand;
        if is_draining {
            // It is given back whatever it is. What runs of it goes on, and nobody hears of its end.
            self.broker.messages[uid].may_start_again();
            return;
        }
        match (holder, before) {
            (Some(original), _) if original != key => self.reattach(key, uid, original),
            (Some(_), Some(before)) if self.is_given_up(before) => {
                self.ledger.hands.remove(&before);
                self.broker.messages[uid].may_start_again();
                self.take_in(key, uid);
            }
            (Some(_), Some(before)) => {
                let seen = format!("message {uid} comes again as {key:?}, and is in hand as {before:?}");
                self.broken("a redelivery is given to the run of its message", seen);
            }
            (Some(_), None) => self.take_in(key, uid),
            // Settled at once: it ended here before, or was done before. Or an equal one did.
            (None, before) => {
                let is_forgotten = |key: &HandKey| daemon.core.waits(*key).is_none();
                let has_ended = |before: &HandKey| {
                    let hand = self.ledger.hands.get(before);
                    hand.is_none_or(|hand| hand.stage == HandStage::Ended && is_forgotten(before))
                };
                let ended = before.filter(has_ended).or_else(|| self.equal_that_ended(uid));
                if let Some(original) = ended.or(before) {
                    self.reattach(key, uid, original);
                }
            }
        }
    }

    /// Whether a run that has ended waited for a tag until the core gave it up.
    fn is_given_up(&self, key: HandKey) -> bool {
        let is_known = self.daemon.as_ref().is_some_and(|daemon| daemon.core.waits(key).is_some());
        !is_known
            && self.ledger.hands.get(&key).is_some_and(|hand| {
                hand.stage == HandStage::Ended && !hand.is_held && hand.waits_since + GIVEN_UP <= self.now
            })
    }

    /// The run of an equal message that has ended and waited for a tag, until now: a delivery that is dropped because its
    /// task was done before gives it none.
    fn equal_that_ended(&self, uid: Uid) -> Option<HandKey> {
        let core = &self.daemon.as_ref()?.core;
        let task = self.broker.messages[uid].task;
        let is_equal = |(key, hand): &(&HandKey, &super::ledger::Hand)| {
            hand.stage == HandStage::Ended
                && !hand.is_held
                && self.broker.messages[hand.message].task == task
                && self.are_equal(hand.message, uid)
                && core.waits(**key).is_none()
        };
        self.ledger.hands.iter().find(is_equal).map(|(key, _)| *key)
    }

    /// The run of one delivery goes on under another one.
    fn reattach(&mut self, key: HandKey, uid: Uid, original: HandKey) {
        let Some(hand) = self.ledger.hands.get(&original) else {
            return self.broken(
                "a redelivery is given to the run of its message",
                format!("{original:?} is not in hand"),
            );
        };
        let (other, is_held) = (hand.message, hand.is_held);
        if is_held {
            let seen = format!("message {uid} takes over {original:?}, which has a tag");
            return self.broken("a redelivery is given to the run of its message", seen);
        }
        if other != uid {
            if !self.are_equal(other, uid) {
                let seen = format!("message {uid} is given to the run of message {other}");
                return self.broken("a redelivery is given to the run of its message", seen);
            }
            let mine = self.broker.messages[uid].hand.take();
            self.broker.messages[other].hand = mine;
            if let Some(hand) = mine.and_then(|mine| self.ledger.hands.get_mut(&mine)) {
                hand.message = other;
            }
        }
        self.broker.messages[uid].hand = Some(original);
        if let Some(hand) = self.ledger.hands.get_mut(&original) {
            (hand.message, hand.claim, hand.is_held) = (uid, key, true);
        }
    }

    /// Whether nobody but the broker can tell two messages apart.
    pub(super) fn are_equal(&self, one: Uid, other: Uid) -> bool {
        let [one, other] = [one, other].map(|uid| &self.broker.messages[uid]);
        sameness::is_same_message((&one.properties, &one.body), (&other.properties, &other.body))
    }

    fn take_in(&mut self, key: HandKey, uid: Uid) {
        let single = self.is_single(uid);
        let has_id = self.task_of(uid).is_some_and(|task| task.has_id);
        self.ledger.arrivals += 1;
        let message = &mut self.broker.messages[uid];
        let known_here = message.waited_here || message.ended_here;
        let is_redelivered = self.ledger.handed_out.get(&key).is_some_and(|(_, again)| *again);
        let explained = match () {
            () if !is_redelivered => Some(true),
            () if !single => None,
            () if message.waited_here => Some(true),
            () if known_here || self.ledger.has_lost[message.queue] => None,
            () => Some(false),
        };
        if message.ended_here && (!has_id || !single) {
            // It cannot be known again.
            message.may_start_again();
            message.ended_here = false;
        }
        message.waited_here = false;
        message.hand = Some(key);
        let hand = Hand {
            message: uid,
            claim: key,
            is_held: true,
            stage: HandStage::Waiting,
            owed: Owed::Run,
            cancelled: None,
            is_called_off: false,
            is_recalled: false,
            unreported: 0,
            was_put_back: false,
            is_redelivered,
            explained,
            arrived: self.now,
            order: self.ledger.arrivals,
            waits_since: self.now,
            attempts: 0,
            ending: None,
        };
        self.ledger.hands.insert(key, hand);
    }

    /// Whether no other message can be taken for this one: its task was published once, and no copy was taken twice.
    pub(super) fn is_single(&self, uid: Uid) -> bool {
        let task = self.broker.messages[uid].task;
        let mut others = self.broker.messages.iter().enumerate();
        self.ledger.tasks.get(&task).is_none_or(|known| known.published == 1)
            && !others
                .any(|(other, message)| message.task == task && other != uid && self.are_equal(other, uid))
    }

    pub(super) fn task_of(&self, uid: Uid) -> Option<TaskPlan> {
        self.ledger.tasks.get(&self.broker.messages[uid].task).map(|known| known.task)
    }

    /// When a message's task was recorded as done last, as far as the present daemon knows.
    pub(super) fn recorded_of(&self, uid: Uid) -> Option<Duration> {
        self.ledger.tasks.get(&self.broker.messages[uid].task).and_then(|known| known.recorded)
    }

    /// What ended here and is known by an id is settled at once when it comes again.
    fn check_arrival(&mut self, key: HandKey, uid: Uid) {
        if self.daemon.is_none() {
            return;
        }
        let is_settled = self.ledger.told.get(&key).is_none_or(|told| told.is_settled);
        let message = &self.broker.messages[uid];
        let has_id = self.task_of(uid).is_some_and(|task| task.has_id);
        if message.ended_here && has_id && self.is_single(uid) && !is_settled {
            self.broken("what has ended is not run again", format!("message {uid}, as {key:?}"));
        }
    }

    fn note_copy(&mut self, entry: EntryKey, result: &CopyResult) {
        let Some(key) = self.daemon.as_ref().and_then(|daemon| daemon.core.original_of(entry)) else {
            return;
        };
        let Some(hand) = self.ledger.hands.get_mut(&key) else { return };
        let HandStage::Publishing(what) = hand.stage else { return };
        let counts = &mut self.ledger.counts[self.broker.messages[hand.message].queue];
        match result {
            CopyResult::Refused(_) => return,
            CopyResult::Confirmed => {
                match what {
                    Published::Retry => counts.retried += 1,
                    Published::Park => counts.parked += 1,
                    Published::Restart => counts.requeued += 1,
                    Published::Recount | Published::Onward => {}
                    Published::Dead(reason) => {
                        counts.dead += 1;
                        counts.expired += u64::from(reason == crate::model::DeadReason::Expired);
                    }
                    Published::FollowUps => counts.done += 1,
                }
                hand.owed = Owed::Ack(what);
            }
            CopyResult::Unacceptable(_) => hand.owed = Owed::DeadRefused,
            CopyResult::FollowUpFailed(_) => return self.note_end(key, Outcome::Retry, false, false),
        }
        hand.stage = HandStage::Ended;
    }
}
