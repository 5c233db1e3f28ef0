//! The daemon starts hosts and gives them tasks: held against what it may.

use std::time::Duration;

use super::agenda::HostStep;
use super::broker::{HandKey, Uid};
use super::hosts::HostModel;
use super::ledger::{HandStage, Owed};
use super::world::{START, World};
use crate::engine::core::EntryKey;
use crate::host::{HostId, QUEUE_LIMIT, Seq};
use crate::model::CancelCause;

impl World {
    pub(super) fn on_start_host(&mut self, id: HostId, generation: u64, limit: Duration) {
        let Some(daemon) = &self.daemon else { return };
        if !daemon.loaded.is_active(generation) {
            return self
                .broken("no host is started of a generation that was replaced", format!("{generation}"));
        }
        if daemon.drain.is_some() {
            return self.broken("a drain starts nothing", format!("host {} of {generation}", id.0));
        }
        let handler = daemon.loaded.generations[&generation].0;
        self.start_host(id, generation, handler, limit);
    }

    pub(super) fn on_send(&mut self, id: HostId, seq: Seq, entry: EntryKey) {
        let Some(daemon) = &self.daemon else { return };
        let Some(key) = daemon.core.original_of(entry) else {
            return self.broken("only what is in hand is run", format!("entry {entry}"));
        };
        let sent = daemon.core.with_task(entry, seq, |task| (task.attempt, task.body.to_vec()));
        let Some(hand) = self.ledger.hands.get(&key) else {
            return self.broken("only what is in hand is run", format!("{key:?}"));
        };
        let uid = hand.message;
        let message = &self.broker.messages[uid];
        if sent != (message.attempt, message.body.clone()) {
            let seen = format!("message {uid} is attempt {}, and is sent as {}", message.attempt, sent.0);
            return self.broken("a task is sent as it is", seen);
        }
        if let Err((invariant, why)) = self.may_send(id, key) {
            return self.broken(invariant, format!("message {uid} to host {}: {why}", id.0));
        }
        self.check_order(key);
        self.check_share(key);
        self.check_rate(id);
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return };
        let Some(host) = daemon.hosts.get_mut(&id) else { return };
        if host.given.is_empty() {
            host.head_since = now;
            host.asked_at = None;
        }
        host.given.push((seq, key));
        let attempts = daemon.loaded.generations[&host.generation].1.limits.retry.attempts;
        if let Some(hand) = self.ledger.hands.get_mut(&key) {
            hand.stage = HandStage::Sent(id, seq);
            hand.owed = Owed::Run;
            hand.attempts = attempts;
            hand.cancelled = None;
            hand.is_recalled = false;
        }
        self.give_to_host(id, seq, uid);
    }

    /// Whether a task may be given to a host; if not, why.
    fn may_send(&self, id: HostId, key: HandKey) -> Result<(), (&'static str, String)> {
        const STATE: &str = "only what waits is run, and only by a host that takes tasks";
        let hand = &self.ledger.hands[&key];
        let message = &self.broker.messages[hand.message];
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let Some(host) = daemon.hosts.get(&id) else { return Err((STATE, "it is gone".to_owned())) };
        let refuse = |invariant, why: String| Err((invariant, why));
        if hand.stage != HandStage::Waiting || !matches!(hand.owed, Owed::Run) || !hand.is_held {
            return refuse(STATE, format!("it is {hand:?}"));
        }
        if !host.is_ready || host.is_leaving || host.is_killed || host.told_fault || host.asked_at.is_some() {
            return refuse(STATE, format!("ready {}, leaving {}", host.is_ready, host.is_leaving));
        }
        if daemon.drain.is_some() {
            return refuse("a drain starts nothing", String::new());
        }
        if !daemon.loaded.is_active(host.generation) {
            return refuse("a replaced generation takes no tasks", format!("generation {}", host.generation));
        }
        if self.handler_of(hand.message) != Some(host.handler) {
            return refuse("a task is run by its handler", format!("handler {}", host.handler));
        }
        if daemon.paused_handlers[host.handler] || daemon.paused_queues[message.queue] {
            return refuse("what is paused starts nothing", format!("queue {}", message.queue));
        }
        if hand.explained == Some(false) {
            let why = format!("{} deliveries, cut short {}", message.deliveries, message.redeliveries);
            return refuse("a redelivery that nothing explains is counted before it starts", why);
        }
        let delivered = START.plus(hand.arrived);
        if message.deadline.is_some_and(|deadline| deadline <= delivered) {
            return refuse("what has expired is not started", format!("{:?}", message.deadline));
        }
        if message.due.is_some_and(|due| due > delivered.plus(Duration::from_secs(1))) {
            return refuse("nothing starts before it is due", format!("{:?}", message.due));
        }
        self.may_send_more(id, hand.message)
    }

    /// The limits of workers, and what may be in one host.
    fn may_send_more(&self, id: HostId, uid: Uid) -> Result<(), (&'static str, String)> {
        const LIMIT: &str = "never more workers are busy than queue and handler allow";
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let (host, queue) = (&daemon.hosts[&id], self.broker.messages[uid].queue);
        if self.queue_of_host(host).is_some_and(|other| other != queue) {
            return Err(("a host runs tasks of one queue at a time", String::new()));
        }
        let setup = &daemon.loaded.generations[&host.generation].1;
        if host.given.len() >= QUEUE_LIMIT {
            return Err(("never more tasks are in a host than it may hold", host.given.len().to_string()));
        }
        if setup.limits.max_tasks > 0 && host.tasks >= setup.limits.max_tasks {
            return Err(("a host ends after max_tasks", host.tasks.to_string()));
        }
        if host.given.is_empty() {
            let (of_queue, of_handler) = self.busy(queue, host.generation);
            let workers = usize::from(daemon.loaded.queues[queue].workers);
            if of_queue >= workers {
                return Err((LIMIT, format!("{of_queue} of queue {queue}, of {workers}")));
            }
            if setup.limits.workers.is_some_and(|workers| of_handler >= usize::from(workers)) {
                return Err((LIMIT, format!("{of_handler} of generation {}", host.generation)));
            }
        }
        self.may_run_beside(id, uid)?;
        self.may_run_twice(uid)
    }

    /// The queue whose tasks a host has.
    fn queue_of_host(&self, host: &HostModel) -> Option<usize> {
        let hand = host.given.iter().find_map(|(_, key)| self.ledger.hands.get(key))?;
        Some(self.broker.messages[hand.message].queue)
    }

    /// How many hosts have tasks of a queue, and how many of a generation have any.
    pub(super) fn busy(&self, queue: usize, generation: u64) -> (usize, usize) {
        let Some(daemon) = &self.daemon else { return (0, 0) };
        let busy = |of: &dyn Fn(&HostModel) -> bool| {
            daemon.hosts.values().filter(|host| !host.given.is_empty() && of(host)).count()
        };
        let of_queue = busy(&|host| self.queue_of_host(host) == Some(queue));
        (of_queue, busy(&|host| host.generation == generation))
    }

    /// On a queue that drops duplicates no two of a task run at once, and none after one is done.
    fn may_run_twice(&self, uid: Uid) -> Result<(), (&'static str, String)> {
        const ONCE: &str = "of a task whose duplicates are dropped one runs";
        let window = self.window_of(uid);
        if window.is_zero() {
            return Ok(());
        }
        let message = &self.broker.messages[uid];
        let running = self.ledger.hands.values().find(|hand| {
            let other = &self.broker.messages[hand.message];
            matches!(hand.stage, HandStage::Sent(..))
                && (other.task, other.queue) == (message.task, message.queue)
        });
        if let Some(running) = running {
            return Err((ONCE, format!("message {} of the same task runs", running.message)));
        }
        match self.recorded_of(uid).filter(|at| self.now < *at + window) {
            Some(at) => Err((ONCE, format!("it was done at {at:?}"))),
            None => Ok(()),
        }
    }

    /// A host starts a task.
    pub(super) fn count_start(&mut self, id: HostId, uid: Uid) {
        self.note(|| format!("    host {} starts message {uid}", id.0));
        let single = self.is_single(uid);
        let message = &mut self.broker.messages[uid];
        message.starts += 1;
        if message.starts > message.allowed && single {
            let seen =
                format!("message {uid} of task {} is started the {}th time", message.task, message.starts);
            self.broken("a message is started once, unless a fault explains more", seen);
        }
    }

    pub(super) fn on_cancel(&mut self, id: HostId, seq: Seq) {
        let (now, is_operator) = (self.now, self.is_operator_cancelling);
        let Some(daemon) = &mut self.daemon else { return };
        let cause = match &daemon.drain {
            _ if is_operator => CancelCause::Operator,
            Some(drain) if now >= drain.deadline && !drain.has_cancelled => CancelCause::Drain,
            _ => CancelCause::Timeout,
        };
        let Some(host) = daemon.hosts.get_mut(&id) else { return };
        let Some(at) = host.given.iter().position(|(given, _)| *given == seq) else {
            return self.broken("only what a host has is cancelled", format!("host {}, {seq}", id.0));
        };
        if at == 0 {
            host.asked_at.get_or_insert(now);
        }
        let timeout = daemon.loaded.generations[&host.generation].1.timeout;
        let (key, ran) = (host.given[at].1, now.saturating_sub(host.head_since));
        if cause == CancelCause::Timeout && (at > 0 || ran < timeout) {
            return self.broken(
                "a task has its whole time",
                format!("host {}, {seq}: {ran:?} of {timeout:?}", id.0),
            );
        }
        if let Some(hand) = self.ledger.hands.get_mut(&key) {
            hand.cancelled.get_or_insert(cause);
        }
        self.step_of_host(id, HostStep::Cancel(seq));
    }

    pub(super) fn on_recall(&mut self, id: HostId, seq: Seq) {
        let Some(host) = self.daemon.as_ref().and_then(|daemon| daemon.hosts.get(&id)) else { return };
        match host.given.iter().position(|(given, _)| *given == seq) {
            Some(at) if at > 0 => {
                let key = host.given[at].1;
                if let Some(hand) = self.ledger.hands.get_mut(&key) {
                    hand.is_recalled = true;
                }
                self.step_of_host(id, HostStep::Recall(seq));
            }
            at => self
                .broken("only what waits in a host is asked back", format!("host {}, {seq}: {at:?}", id.0)),
        }
    }

    pub(super) fn on_quit(&mut self, id: HostId) {
        let Some(host) = self.daemon.as_mut().and_then(|daemon| daemon.hosts.get_mut(&id)) else { return };
        host.is_leaving = true;
        if !host.given.is_empty() {
            return self.broken("a host is not ended while it has a task", format!("host {}", id.0));
        }
        self.step_of_host(id, HostStep::Quit);
    }

    pub(super) fn on_kill(&mut self, id: HostId) {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return };
        let Some(host) = daemon.hosts.get_mut(&id) else { return };
        host.is_killed = true;
        let grace = daemon.loaded.generations[&host.generation].1.limits.grace;
        let asked = host.asked_at;
        if asked.is_none_or(|asked| now < asked + grace) {
            let seen = format!("host {} was asked at {asked:?}, its grace is {grace:?}", id.0);
            return self.broken("a host is killed only after its grace", seen);
        }
        self.step_of_host(id, HostStep::Kill);
    }

    pub(super) fn timeout_of(&self, generation: u64) -> Duration {
        let daemon = self.daemon.as_ref();
        daemon.map_or(Duration::ZERO, |daemon| daemon.loaded.generations[&generation].1.timeout)
    }
}
