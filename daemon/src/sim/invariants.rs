//! What has to hold after every turn, and at the end.

use std::time::Duration;

use super::hosts::HostModel;
use super::ledger::{Hand, HandStage};
use super::world::World;
use crate::host::HostId;
use crate::model::status::Counts;

/// The whole account is compared after so many turns: that costs more than the turns themselves. Who waits is looked at as
/// rarely while nothing happens.
const ACCOUNT_EVERY: u64 = 32;
/// A task that could run, and for whose handler no host is started, waits no longer than that: the longest pause after hosts
/// that failed, and some.
const WAITS: Duration = Duration::from_secs(40);
/// By so much the core may be late with what the clock decides: a turn that came late, and a tick.
const LATE: Duration = Duration::from_millis(140);

impl World {
    /// The end of a turn of the daemon.
    pub(super) fn end_turn(&mut self) {
        let clock = self.clock();
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return };
        let ticks = clock.instant >= daemon.core.next_tick();
        daemon.core.turn_end(clock, &mut daemon.actions);
        self.perform();
        // The first tick at the deadline asks everything to stop that runs then.
        if ticks
            && let Some(drain) = self.daemon.as_mut().and_then(|daemon| daemon.drain.as_mut())
            && now >= drain.deadline
        {
            drain.has_cancelled = true;
        }
        if self.violation.is_none() && self.daemon.is_some() {
            self.check_turn();
        }
    }

    fn check_turn(&mut self) {
        let clock = self.clock();
        let Some(daemon) = &self.daemon else { return };
        let is_account = self.turns.is_multiple_of(ACCOUNT_EVERY);
        if std::mem::take(&mut self.has_changed) || is_account {
            if daemon.core.has_lost_wakeup(clock) {
                return self.broken(
                    "nothing waits that could run now",
                    "the core would place it if it were asked again",
                );
            }
            self.check_idle_workers();
            self.check_idle_hosts();
            self.watch_sharing();
        }
        self.check_time_limits();
        self.check_drain();
        if is_account {
            self.check_account();
        }
    }

    /// No task waits while a worker that it may use is idle.
    fn check_idle_workers(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        if daemon.drain.is_some() {
            return;
        }
        let mut found = None;
        for hand in self.ledger.hands.values() {
            let Some((handler, generation)) = self.awaits(hand) else { continue };
            let message = &self.broker.messages[hand.message];
            // A duplicate of it may be in hand, or what is recorded not be read yet.
            if !self.window_of(hand.message).is_zero() && self.has_duplicate_in_hand(hand.message) {
                continue;
            }
            let (of_queue, of_handler) = self.busy(message.queue, generation);
            let setup = &daemon.loaded.generations[&generation].1;
            let is_full = of_queue >= usize::from(daemon.loaded.queues[message.queue].workers)
                || setup.limits.workers.is_some_and(|workers| of_handler >= usize::from(workers))
                || (daemon.has_died[handler] && of_handler > 0);
            // Its turn is another task's, or a matter of time.
            if is_full || setup.limits.rate.is_some() || self.is_held_by_key(hand, setup) {
                continue;
            }
            let is_idle = |(_, host): &(&HostId, &HostModel)| {
                host.generation == generation && host.is_ready && host.given.is_empty() && !host.is_leaving
            };
            let idle = daemon.hosts.iter().find(is_idle).map(|(id, _)| *id);
            let waited = self.now.saturating_sub(hand.waits_since.max(daemon.last_start[handler]));
            if let Some(idle) = idle.filter(|_| !self.may_be_loading(hand.message)) {
                found = Some(format!("message {} waits, host {} is idle", hand.message, idle.0));
            } else if waited > WAITS {
                found = Some(format!("message {} has waited for {waited:?}", hand.message));
            }
        }
        if let Some(seen) = found {
            self.broken("no task waits while a worker that it may use is idle", seen);
        }
    }

    /// No more hosts are idle than may be, but for those of handlers with tasks waiting.
    fn check_idle_hosts(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let is_idle = |host: &&HostModel| {
            host.is_ready && host.given.is_empty() && !host.is_leaving && !host.told_fault
        };
        let idle: Vec<&HostModel> = daemon.hosts.values().filter(is_idle).collect();
        let allowed = usize::from(self.setup().max_idle_hosts);
        let is_awaited = |host: &HostModel| {
            let waits = |hand: &Hand| hand.stage == HandStage::Waiting;
            let mut hands = self.ledger.hands.values().filter(|hand| waits(hand));
            hands.any(|hand| self.handler_of(hand.message) == Some(host.handler))
        };
        if idle.len() > allowed && idle.iter().any(|host| !is_awaited(host)) {
            let seen = format!("{} are idle, {allowed} are allowed", idle.len());
            self.broken("no more hosts are idle than may be", seen);
        }
    }

    fn has_duplicate_in_hand(&self, uid: usize) -> bool {
        let task = |uid: usize| (self.broker.messages[uid].task, self.broker.messages[uid].queue);
        self.ledger.hands.values().any(|hand| hand.message != uid && task(hand.message) == task(uid))
    }

    /// What was recorded of the queue may still be read.
    fn may_be_loading(&self, uid: usize) -> bool {
        let queue = self.broker.messages[uid].queue;
        !self.window_of(uid).is_zero() && self.daemon.as_ref().is_some_and(|daemon| !daemon.has_read[queue])
    }

    /// What runs over its time is asked to stop, and killed when it does not.
    fn check_time_limits(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let mut found = None;
        for (id, host) in daemon.hosts.iter().filter(|(_, host)| !host.given.is_empty()) {
            let setup = &daemon.loaded.generations[&host.generation].1;
            let ran = self.now.saturating_sub(host.head_since);
            if host.asked_at.is_none() && ran > setup.timeout + LATE {
                found = Some(format!("host {} has run a task for {ran:?} of {:?}", id.0, setup.timeout));
            }
            let asked = host.asked_at.map(|at| self.now.saturating_sub(at));
            if !host.is_killed && asked.is_some_and(|since| since > setup.limits.grace + LATE) {
                found = Some(format!("host {} was asked to stop {asked:?} ago and is not killed", id.0));
            }
        }
        if let Some(seen) = found {
            self.broken("time limits are enforced", seen);
        }
    }

    /// The core's counts are the ledger's.
    pub(super) fn check_account(&mut self) {
        let now = self.clock().instant;
        let Some(daemon) = &self.daemon else { return };
        daemon.core.check();
        let status = daemon.core.status(now, &|_| None);
        let mut differ = None;
        for (queue, expected) in self.ledger.counts.iter().enumerate() {
            let name = &*self.setup().queues[queue].config.name;
            let Some(row) = status.queues.iter().find(|row| row.name == name) else { continue };
            if row.counts != *expected && !self.ledger.is_uncertain[queue] {
                differ = Some(format!("{name}: the core counts {:?}, the ledger {expected:?}", row.counts));
            }
            let hands = self.ledger.hands.values();
            let of_queue = |hand: &&Hand| self.broker.messages[hand.message].queue == queue;
            let in_hand: Vec<_> = hands.filter(of_queue).map(|hand| (hand.message, hand.stage)).collect();
            let shown = [row.waiting, row.running, row.settling];
            if in_hand.len() < shown.iter().sum() {
                differ = Some(format!(
                    "{name}: {shown:?} wait, run and are being settled, by the ledger {in_hand:?}"
                ));
            }
        }
        for row in &status.handlers {
            if let Some(why) = self.handler_differs(&row.name, row.counts) {
                differ = Some(why);
            }
        }
        if let Some(seen) = differ {
            self.broken("counters only grow, and add up", seen);
        }
    }

    /// A handler never counts more than all queues together.
    fn handler_differs(&self, name: &str, counts: Counts) -> Option<String> {
        let sum = |of: &dyn Fn(&Counts) -> u64| self.ledger.counts.iter().map(of).sum::<u64>();
        let too_many = counts.done > sum(&|c| c.done)
            || counts.retried > sum(&|c| c.retried)
            || counts.dead > sum(&|c| c.dead)
            || counts.faults > sum(&|c| c.faults)
            || counts.parked > sum(&|c| c.parked);
        too_many.then(|| format!("{name} counts more than the queues: {counts:?}"))
    }

    /// The daemon says that its drain has ended.
    pub(super) fn on_drained(&mut self) {
        self.check_account();
        let Some(daemon) = &self.daemon else { return };
        let Some(drain) = daemon.drain else {
            return self.broken("a drain ends when one was asked for", "there was none");
        };
        let last = drain.deadline + daemon.loaded.longest_grace() + Duration::from_secs(5);
        // What was published too long ago is not waited for; nor is what has lost its tag.
        let is_open = |hand: &&Hand| match hand.stage {
            HandStage::Waiting | HandStage::Sent(..) => true,
            HandStage::Publishing(_) | HandStage::Ended => false,
        };
        let open = self.ledger.hands.values().find(is_open);
        if let Some(hand) = open.filter(|_| self.now < last) {
            let seen = format!("message {} is {:?}", hand.message, hand.stage);
            return self.broken("after a drain nothing is in hand", seen);
        }
        self.end_daemon(true);
    }

    /// A drain that is asked for ends.
    pub(super) fn check_drain(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let Some(drain) = daemon.drain else { return };
        let last = drain.deadline + daemon.loaded.longest_grace() + Duration::from_secs(7);
        if self.now > last {
            self.broken("a drain ends in its time", format!("it began at {:?}", drain.began));
        }
    }

    /// Every task came to an end, and to as many as it was published.
    pub(super) fn check_ends(&mut self) {
        let mut found = None;
        for (task, known) in &self.ledger.tasks {
            let ends = known.done + known.dead + known.dropped + known.taken_elsewhere;
            if ends < known.published {
                found = Some(format!(
                    "task {task} was published {} times and ended {ends}: {known:?}",
                    known.published
                ));
            }
        }
        if let Some(seen) = found {
            self.broken("nothing is lost", seen);
        }
    }
}
