//! The order in which waiting tasks are started, and how fast. Checked whenever a task is given to a host.
//!
//! Of the tasks of one queue for one handler the one that came first starts first; where the handler tells tasks apart by a
//! key (`fair_by`, `exclusive_by`), of those of one key. Two tasks of one key of `exclusive_by` never run at once.

use std::time::Duration;

use super::broker::{HandKey, Uid};
use super::ledger::{Hand, HandStage, Owed};
use super::setup::HandlerSetup;
use super::world::World;
use crate::host::HostId;

/// By so much a start may come late, which the rate makes up for.
const LATE: Duration = Duration::from_millis(25);

impl World {
    /// A waiting task is about to start.
    pub(super) fn check_order(&mut self, starts: HandKey) {
        let hand = &self.ledger.hands[&starts];
        if !self.is_in_order(hand) {
            return;
        }
        let (queue, handler) = (self.broker.messages[hand.message].queue, self.handler_of(hand.message));
        let is_keyed = self
            .setup_of(hand.message)
            .is_some_and(|setup| setup.limits.fair_by.is_some() || setup.limits.exclusive_by.is_some());
        let before = self.ledger.hands.values().find(|other| {
            other.order < hand.order
                && other.stage == HandStage::Waiting
                && other.owed == Owed::Run
                && self.is_in_order(other)
                && self.broker.messages[other.message].queue == queue
                && self.handler_of(other.message) == handler
                && (!is_keyed || self.key_of(other.message) == self.key_of(hand.message))
        });
        if let Some(before) = before {
            let seen = format!("message {} starts before message {}", hand.message, before.message);
            self.broken("of one queue and handler the first comes first", seen);
        }
    }

    /// Not so what a host gave back, and what may have been held back as a duplicate.
    fn is_in_order(&self, hand: &Hand) -> bool {
        !hand.was_put_back && self.window_of(hand.message).is_zero()
    }

    /// A task is given to a host: no more of them in a time than the handler's rate says.
    pub(super) fn check_rate(&mut self, host: HostId) {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return };
        let Some(host) = daemon.hosts.get(&host) else { return };
        let Some(rate) = daemon.loaded.generations[&host.generation].1.limits.rate else { return };
        let starts = &mut daemon.starts[host.handler];
        starts.push_back(now);
        while starts.front().is_some_and(|first| *first + rate.unit <= now) {
            starts.pop_front();
        }
        let made_up_for = (f64::from(rate.tasks) * LATE.as_secs_f64() / rate.unit.as_secs_f64()).ceil();
        let (most, seen) = ((rate.tasks + rate.burst) as usize + 1 + made_up_for as usize, starts.len());
        if seen > most {
            self.broken("no more tasks start in a time than the rate says", format!("{seen} of {most}"));
        }
    }

    /// No two tasks of one key of `exclusive_by` run at once.
    pub(super) fn may_run_beside(&self, host: HostId, uid: Uid) -> Result<(), (&'static str, String)> {
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let host = &daemon.hosts[&host];
        let by = |generation: u64| &daemon.loaded.generations[&generation].1.limits.exclusive_by;
        let (Some(_), Some(key)) = (by(host.generation), self.key_of(uid)) else { return Ok(()) };
        let others = daemon
            .hosts
            .values()
            .filter(|other| other.handler == host.handler && by(other.generation) == by(host.generation));
        let mut given =
            others.flat_map(|other| &other.given).filter_map(|(_, key)| self.ledger.hands.get(key));
        match given.find(|other| self.key_of(other.message) == Some(key)) {
            Some(other) => {
                Err(("two tasks of one key never run at once", format!("beside {}", other.message)))
            }
            None => Ok(()),
        }
    }

    /// Whether another task of its key has its turn.
    pub(super) fn is_held_by_key(&self, hand: &Hand, setup: &HandlerSetup) -> bool {
        let key = self.key_of(hand.message);
        setup.limits.exclusive_by.is_some()
            && key.is_some()
            && self.ledger.hands.values().any(|other| {
                other.message != hand.message
                    && matches!(other.stage, HandStage::Waiting | HandStage::Sent(..))
                    && self.handler_of(other.message) == self.handler_of(hand.message)
                    && self.key_of(other.message) == key
            })
    }

    /// The handler and the generation that a waiting task may be given to. `None`: it does not wait for a worker, or is given
    /// to nobody now.
    pub(super) fn awaits(&self, hand: &Hand) -> Option<(usize, u64)> {
        let daemon = self.daemon.as_ref()?;
        let is_waiting = hand.is_held && hand.stage == HandStage::Waiting && hand.owed == Owed::Run;
        let handler = self.handler_of(hand.message).filter(|_| is_waiting)?;
        let queue = self.broker.messages[hand.message].queue;
        let is_paused = daemon.paused_queues[queue] || daemon.paused_handlers[handler];
        Some((handler, daemon.loaded.active[handler].filter(|_| !is_paused)?))
    }

    /// The handler that takes a message.
    pub(super) fn handler_of(&self, uid: Uid) -> Option<usize> {
        self.task_of(uid)?.handler
    }

    pub(super) fn key_of(&self, uid: Uid) -> Option<u8> {
        self.task_of(uid)?.key
    }

    /// The generation in force that takes a message.
    pub(super) fn setup_of(&self, uid: Uid) -> Option<&HandlerSetup> {
        let loaded = &self.daemon.as_ref()?.loaded;
        let generation = loaded.active[self.handler_of(uid)?]?;
        Some(&loaded.generations[&generation].1)
    }
}
