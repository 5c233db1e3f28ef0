//! The daemon settles and publishes: held against what the ledger says it owes.

use std::time::Duration;

use super::broker::{HandKey, Uid};
use super::ledger::{Hand, HandStage, Owed, Published, reason_after};
use super::world::{START, World};
use crate::engine::core::{Again, Copy, CopyKind};
use crate::model::{DeadReason, UnixMs};
use crate::settlement::MAX_REDELIVERIES;

impl World {
    /// A settlement that may be made: the message. Says what is wrong with any other.
    fn settle(&mut self, consumer: u32, tag: u64) -> Option<Uid> {
        let key = (consumer, tag);
        let is_over = self.broker.subscriptions.get(&consumer).is_none_or(|one| one.is_lost);
        let Some(told) = self.ledger.told.get_mut(&key) else {
            self.broken("only what was delivered is settled", format!("{key:?}"));
            return None;
        };
        if told.is_settled {
            self.broken("a tag is settled once", format!("{key:?}"));
            return None;
        }
        told.is_settled = true;
        let uid = told.message;
        if is_over {
            self.broken("a tag is settled on its live subscription", format!("{key:?}, message {uid}"));
            return None;
        }
        if let Some(hand) = self.hand_of(uid, key).map(|hand| &self.ledger.hands[&hand]) {
            let seen = match hand.stage {
                HandStage::Sent(host, seq) => format!("message {uid}, which host {} has as {seq}", host.0),
                HandStage::Publishing(what) => format!("message {uid}, whose {what:?} is not confirmed"),
                HandStage::Waiting | HandStage::Ended => return Some(uid),
            };
            self.broken("nothing is settled before its outcome and its confirms", seen);
            return None;
        }
        Some(uid)
    }

    /// The hand that a claim belongs to.
    fn hand_of(&self, uid: Uid, claim: HandKey) -> Option<HandKey> {
        let key = self.broker.messages[uid].hand?;
        self.ledger.hands.get(&key).filter(|hand| hand.claim == claim && hand.is_held).map(|_| key)
    }

    pub(super) fn on_ack(&mut self, consumer: u32, tag: u64) {
        let Some(uid) = self.settle(consumer, tag) else { return };
        let queue = self.broker.messages[uid].queue;
        let task = self.broker.messages[uid].task;
        let is_dropped = self.was_done_before(uid);
        let key = self.hand_of(uid, (consumer, tag));
        let hand = key.and_then(|key| self.ledger.hands.remove(&key));
        let owed = hand.as_ref().map(|hand| hand.owed);
        let Some(known) = self.ledger.tasks.get_mut(&task) else { return };
        let ended_itself = self.broker.messages[uid].ended_here;
        let equal_ended = known.task.has_id && self.ledger.ended_here.contains(&task);
        let came_again = self.ledger.handed_out.get(&(consumer, tag)).is_some_and(|(_, again)| *again);
        let may_be_lost = came_again && self.ledger.has_lost[queue];
        let mut ended = true;
        match owed {
            Some(Owed::Done { publishes: false }) => {
                known.done += 1;
                self.ledger.counts[queue].done += 1;
                self.check_remembered(uid);
            }
            Some(Owed::Ack(what)) => match what {
                Published::FollowUps => {
                    known.done += 1;
                    self.check_remembered(uid);
                }
                Published::Dead(_) => known.dead += 1,
                _ => {}
            },
            // It ended here, and its acknowledgement was lost.
            None if ended_itself => self.ledger.is_uncertain[queue] |= is_dropped,
            // A run that failed and lost its tag is forgotten in the end; an equal message was done meanwhile.
            Some(Owed::Run | Owed::Again) | None if is_dropped => {
                known.dropped += 1;
                self.ledger.counts[queue].deduplicated += 1;
                self.ledger.is_uncertain[queue] |= owed.is_none() && may_be_lost;
                ended = false;
            }
            // Or an equal one did, for which it is taken.
            None if equal_ended && may_be_lost => {
                known.dropped += 1;
                ended = false;
            }
            owed => {
                let seen = format!("message {uid} of task {task} is acknowledged, owed is {owed:?}");
                return self.broken("nothing is acknowledged before all that belongs to it is done", seen);
            }
        }
        let message = &mut self.broker.messages[uid];
        if hand.is_some() {
            message.hand = None;
        }
        message.ended_here |= ended;
        if ended {
            self.ledger.ended_here.insert(task);
        }
        self.send_settlement(consumer, tag, false);
    }

    pub(super) fn on_requeue(&mut self, consumer: u32, tag: u64) {
        let Some(uid) = self.settle(consumer, tag) else { return };
        let queue = self.broker.messages[uid].queue;
        self.ledger.counts[queue].requeued += 1;
        if let Some(key) = self.hand_of(uid, (consumer, tag)) {
            let Some(hand) = self.ledger.hands.remove(&key) else { return };
            let message = &mut self.broker.messages[uid];
            message.hand = None;
            match hand.owed {
                Owed::Run | Owed::RunOrFailed { .. } => message.waited_here = true,
                Owed::Back => message.may_start_again(),
                owed => {
                    let seen = format!("message {uid} goes back, owed is {owed:?}");
                    return self.broken("only what did not end goes back", seen);
                }
            }
        } else if self.daemon.as_ref().is_some_and(|daemon| daemon.drain.is_none()) {
            return self
                .broken("only what did not end goes back", format!("message {uid}, which is not in hand"));
        }
        self.send_settlement(consumer, tag, true);
    }

    pub(super) fn on_publish(&mut self, copy: Copy) {
        let key = (copy.delivery.consumer.0, copy.delivery.tag);
        let Some(hand) = self.ledger.hands.get(&key).cloned() else {
            return self.broken("only what is in hand is copied", format!("{key:?}: {:?}", copy.kind));
        };
        if let HandStage::Sent(..) | HandStage::Publishing(_) = hand.stage {
            let seen = format!("message {}: {:?} while {:?}", hand.message, copy.kind, hand.stage);
            return self.broken("one copy is published at a time, and none of what runs", seen);
        }
        if !hand.is_held {
            let seen = format!("message {}: {:?}", hand.message, copy.kind);
            return self.broken("nothing is copied that has no tag", seen);
        }
        let uid = hand.message;
        let what = match self.judge_copy(&hand, &copy) {
            Ok(what) => what,
            Err(why) => {
                let seen = format!("message {uid}: {why}; owed is {:?}, it is {:?}", hand.owed, copy.kind);
                return self.broken("a copy is what its task's end and attempt make it", seen);
            }
        };
        let is_failure = matches!(hand.owed, Owed::RunOrFailed { .. })
            && matches!(what, Published::Retry | Published::Dead(DeadReason::Poison));
        if is_failure {
            self.ledger.counts[self.broker.messages[uid].queue].faults += 1;
        }
        if let Some(hand) = self.ledger.hands.get_mut(&key) {
            hand.stage = HandStage::Publishing(what);
        }
        self.publish(uid, copy);
    }

    /// What a copy is, or what is wrong with it.
    fn judge_copy(&self, hand: &Hand, copy: &Copy) -> Result<Published, String> {
        let message = &self.broker.messages[hand.message];
        if copy.attempt != message.attempt
            && !matches!(copy.kind, CopyKind::Dead { reason: DeadReason::Expired, .. })
        {
            return Err(format!("attempt {} is counted as {}", message.attempt, copy.attempt));
        }
        match &copy.kind {
            CopyKind::Again(again) => self.judge_again(hand, again),
            CopyKind::Onward(wait) => match hand.owed {
                Owed::Run if wait.due > self.unix() && message.due.is_some() => Ok(Published::Onward),
                _ => Err("it is due".to_owned()),
            },
            CopyKind::FollowUps { .. } => match hand.owed {
                Owed::Done { publishes: true } => Ok(Published::FollowUps),
                _ => Err("it is not done".to_owned()),
            },
            CopyKind::Dead { reason, .. } => {
                self.judge_dead(hand, *reason).map(|()| Published::Dead(*reason))
            }
        }
    }

    fn judge_again(&self, hand: &Hand, again: &Again) -> Result<Published, String> {
        let message = &self.broker.messages[hand.message];
        let (attempt, redeliveries) = (message.attempt, message.redeliveries);
        let kept = (attempt, redeliveries);
        let copied = (again.attempt, again.redeliveries);
        let failed = matches!(hand.owed, Owed::Again | Owed::RunOrFailed { is_last: false });
        let waits = matches!(hand.owed, Owed::Run | Owed::RunOrFailed { .. });
        match &again.failure {
            Some(_) if failed && copied == (attempt + 1, 0) => Ok(Published::Retry),
            Some(_) => Err(format!("attempt {attempt} failed")),
            None if hand.owed == Owed::Back && copied == (attempt, 0) => Ok(Published::Restart),
            None if waits && !again.delay.is_zero() && copied == kept => Ok(Published::Park),
            None if waits && again.delay.is_zero() && copied == (attempt, redeliveries + 1) => {
                match (hand.is_redelivered, hand.explained) {
                    (false, _) => Err("it was not delivered before".to_owned()),
                    (true, Some(true)) => Err("what explains its redelivery is known".to_owned()),
                    (true, _) => Ok(Published::Recount),
                }
            }
            None => Err(format!("it was attempt {attempt}, cut short {redeliveries} times")),
        }
    }

    fn judge_dead(&self, hand: &Hand, reason: DeadReason) -> Result<(), String> {
        let message = &self.broker.messages[hand.message];
        let wrong = |why: &str| Err(why.to_owned());
        match hand.owed {
            Owed::Dead => {
                let expected = hand.ending.map(|(outcome, cancelled)| reason_after(outcome, cancelled));
                if expected == Some(reason) { Ok(()) } else { Err(format!("the reason is {expected:?}")) }
            }
            Owed::DeadRefused if reason == DeadReason::Refused => Ok(()),
            Owed::RunOrFailed { is_last: true } if reason == DeadReason::Poison => Ok(()),
            Owed::Run | Owed::RunOrFailed { .. } => match reason {
                DeadReason::Cancelled if hand.is_called_off => Ok(()),
                DeadReason::Expired if message.deadline.is_some_and(|at| at <= self.unix()) => Ok(()),
                DeadReason::Poison if message.redeliveries >= MAX_REDELIVERIES => Ok(()),
                DeadReason::Unroutable if !self.is_routed(hand.message) => Ok(()),
                _ => wrong("nothing ended it"),
            },
            _ => wrong("it did not end so"),
        }
    }

    /// Whether a handler takes a message's task now.
    fn is_routed(&self, uid: Uid) -> bool {
        let handler = self.handler_of(uid);
        let Some(daemon) = &self.daemon else { return false };
        handler.is_some_and(|handler| daemon.loaded.active[handler].is_some())
    }

    /// Whether a task was done within the time in which duplicates of it are dropped: at most one and a half of that.
    fn was_done_before(&self, uid: Uid) -> bool {
        let window = self.window_of(uid);
        !window.is_zero()
            && self
                .recorded_of(uid)
                .is_some_and(|at| self.now < at + window + window / 2 + Duration::from_millis(1))
    }

    /// For how long duplicates of a message's task are dropped; zero: they are not.
    pub(super) fn window_of(&self, uid: Uid) -> Duration {
        match self.task_of(uid) {
            Some(task) if task.has_id => {
                self.setup().queues[self.broker.messages[uid].queue].config.deduplicate
            }
            _ => Duration::ZERO,
        }
    }

    /// A task that is done is recorded before it is acknowledged.
    fn check_remembered(&mut self, uid: Uid) {
        if !self.window_of(uid).is_zero() && self.recorded_of(uid).is_none() {
            self.broken("what is done is recorded before it is acknowledged", format!("message {uid}"));
        }
    }

    /// A record is handed to the store.
    pub(super) fn note_recorded(&mut self, queue: &str, print: u128) {
        let now = self.now;
        for known in self.ledger.tasks.values_mut() {
            let is_of_queue = &*self.plan.setup.queues[known.task.queue].config.name == queue;
            if is_of_queue && known.print == Some(print) {
                known.recorded = Some(now);
            }
        }
    }

    /// What a daemon that starts finds recorded.
    pub(super) fn remember_recorded(&mut self) {
        for known in self.ledger.tasks.values_mut() {
            let queue = &self.plan.setup.queues[known.task.queue].config.name;
            let recorded = known.print.and_then(|print| self.records.recorded(queue, print));
            known.recorded = recorded.and_then(|at| UnixMs(at).since(START));
        }
    }
}
