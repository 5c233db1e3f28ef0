//! How the workers of a queue are shared: a second account of run time. Two handlers that both have tasks waiting in a queue,
//! and could both run them, get run time by their weights; so do two keys of a handler with `fair_by`. What one gets more
//! than the other is bounded by a few of their longest tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::broker::{HandKey, Uid};
use super::fault::Fault;
use super::hosts::HostModel;
use super::ledger::Hand;
use super::setup::HandlerSetup;
use super::world::World;

/// A start costs at least this much, as a worker is busy with a task for longer than the task runs.
const LEAST: Duration = Duration::from_micros(20);
/// How far a handler may get ahead by tasks that are queued in the hosts that it keeps busy.
const AHEAD: Duration = Duration::from_millis(2);
/// What tasks without a report may be taken to have run beyond that, where turns come late.
const LATE: Duration = Duration::from_millis(500);
/// Tasks that one may get ahead by, beside one for each worker.
const TASKS: u32 = 2;

/// A handler in a queue, or a key of it: who gets a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sharer {
    queue: usize,
    handler: usize,
    part: Part,
}

/// What of a handler's tasks shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    All,
    /// Those with this key, or without one.
    OfKey(Option<u8>),
}

/// What somebody has had.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    run: Duration,
    /// By one task.
    longest: Duration,
}

/// Two that both wait, and what they had had when that began.
#[derive(Debug, Clone, Copy)]
struct Since {
    waiting: Duration,
    other: Duration,
    /// Tasks of the other that hosts had already.
    given: u32,
    weights: (u16, u16),
}

/// What everybody has had, in the life of a daemon.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    used: BTreeMap<Sharer, Used>,
    rivals: BTreeMap<(Sharer, Sharer), Since>,
}

impl Sharer {
    /// Whether the two share something: a queue, or what their handler gets of it.
    fn shares_with(self, other: Self) -> bool {
        let shares = match (self.part, other.part) {
            (Part::All, Part::All) => true,
            (Part::OfKey(_), Part::OfKey(_)) => self.handler == other.handler,
            _ => false,
        };
        shares && self != other && self.queue == other.queue
    }
}

impl World {
    /// A task has left its host after it ran for so long.
    pub(super) fn note_run(&mut self, uid: Uid, ran: Duration) {
        let ran = ran.max(LEAST);
        for sharer in self.sharers_of(uid) {
            let Some(daemon) = &mut self.daemon else { return };
            let used = daemon.sharing.used.entry(sharer).or_default();
            used.run += ran;
            used.longest = used.longest.max(ran);
        }
    }

    /// The end of a turn: who waits, and could run.
    pub(super) fn watch_sharing(&mut self) {
        let waiting: BTreeSet<Sharer> = self
            .ledger
            .hands
            .values()
            .filter(|hand| self.could_run(hand))
            .flat_map(|hand| self.sharers_of(hand.message))
            .collect();
        let mut rivals = BTreeMap::new();
        for one in &waiting {
            for other in waiting.iter().filter(|other| one.shares_with(**other)) {
                let weights = (self.weight_of(*one), self.weight_of(*other));
                let known =
                    self.daemon.as_ref().and_then(|daemon| daemon.sharing.rivals.get(&(*one, *other)));
                let since =
                    known.filter(|since| since.weights == weights).copied().unwrap_or_else(|| Since {
                        given: self.given_to(*other),
                        waiting: self.ended(*one).run,
                        other: self.used(*other).run,
                        weights,
                    });
                rivals.insert((*one, *other), since);
            }
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.sharing.rivals = rivals;
        }
    }

    /// A task is about to start: nobody who waits as well is too far behind.
    pub(super) fn check_share(&mut self, starts: HandKey) {
        let Some(daemon) = &self.daemon else { return };
        let uid = self.ledger.hands[&starts].message;
        let is_late = self.setup().faults.contains(&Fault::LateTurn);
        let ahead = if is_late { AHEAD + LATE } else { AHEAD };
        let mut found = None;
        for starting in self.sharers_of(uid) {
            let (of_other, ended) = (self.used(starting), self.ended(starting));
            let tasks = u32::from(daemon.loaded.queues[starting.queue].workers) + TASKS;
            let all = daemon.sharing.rivals.iter();
            for ((waiting, _), since) in all.filter(|((_, other), _)| *other == starting) {
                let of_waiting = self.used(*waiting);
                // What was given to hosts and has not run is charged already.
                let given = of_waiting.longest * self.given_to(*waiting);
                let had = (of_waiting.run + given).saturating_sub(since.waiting) / u32::from(since.weights.0);
                let before = since.other + of_other.longest * since.given;
                let has = ended.run.saturating_sub(before) / u32::from(since.weights.1);
                let longest = of_waiting.longest / u32::from(since.weights.0)
                    + of_other.longest / u32::from(since.weights.1);
                if has > had + longest * tasks + ahead {
                    found = Some(format!(
                        "{starting:?} starts message {uid} and has had {has:?}, {waiting:?} waits and has had {had:?}, the longest tasks take {longest:?}"
                    ));
                }
            }
        }
        if let Some(seen) = found {
            self.broken("run time is shared by weight", seen);
        }
    }

    /// Whether a task waits for nothing but its turn.
    fn could_run(&self, hand: &Hand) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        let Some((handler, generation)) = self.awaits(hand).filter(|_| !hand.is_called_off) else {
            return false;
        };
        if daemon.has_failed[handler] || !self.window_of(hand.message).is_zero() {
            return false;
        }
        let limits = &daemon.loaded.generations[&generation].1.limits;
        let is_free = limits.workers.is_none()
            && limits.rate.is_none()
            && limits.breaker.is_none()
            && limits.exclusive_by.is_none();
        let takes_tasks = |host: &HostModel| host.is_ready && !host.is_leaving && !host.told_fault;
        is_free && daemon.hosts.values().filter(|host| host.generation == generation).all(takes_tasks)
    }

    /// Who gets the share that a message's task takes.
    fn sharers_of(&self, uid: Uid) -> impl Iterator<Item = Sharer> + use<> {
        let queue = self.broker.messages[uid].queue;
        let handler = self.handler_of(uid);
        let is_keyed = self.setup_of(uid).is_some_and(|setup| setup.limits.fair_by.is_some());
        let whole = handler.map(|handler| Sharer { queue, handler, part: Part::All });
        let of_key =
            whole.filter(|_| is_keyed).map(|whole| Sharer { part: Part::OfKey(self.key_of(uid)), ..whole });
        whole.into_iter().chain(of_key)
    }

    fn weight_of(&self, sharer: Sharer) -> u16 {
        let weight = |setup: &HandlerSetup| setup.limits.weight;
        let loaded = self.daemon.as_ref().map(|daemon| &daemon.loaded);
        let setup = loaded.and_then(|loaded| Some(&loaded.generations[&loaded.active[sharer.handler]?].1));
        setup.filter(|_| sharer.part == Part::All).map_or(1, weight)
    }

    /// What somebody has had by tasks that have ended.
    fn ended(&self, sharer: Sharer) -> Used {
        let daemon = self.daemon.as_ref();
        daemon.and_then(|daemon| daemon.sharing.used.get(&sharer)).copied().unwrap_or_default()
    }

    /// The same, with what runs now: as long as the daemon knows it to run, which is more than it ran.
    fn used(&self, sharer: Sharer) -> Used {
        let Some(daemon) = &self.daemon else { return Used::default() };
        let mut used = self.ended(sharer);
        for host in daemon.hosts.values() {
            if let Some((_, key)) = host.given.first()
                && self.is_of(*key, sharer)
            {
                let ran = self.now.saturating_sub(host.head_since).max(LEAST);
                used.run += ran;
                used.longest = used.longest.max(ran);
            }
        }
        used
    }

    /// How many tasks of somebody hosts have.
    fn given_to(&self, sharer: Sharer) -> u32 {
        let hosts = self.daemon.iter().flat_map(|daemon| daemon.hosts.values());
        hosts.flat_map(|host| &host.given).filter(|(_, key)| self.is_of(*key, sharer)).count() as u32
    }

    fn is_of(&self, key: HandKey, sharer: Sharer) -> bool {
        let hand = self.ledger.hands.get(&key);
        hand.is_some_and(|hand| self.sharers_of(hand.message).any(|other| other == sharer))
    }
}
