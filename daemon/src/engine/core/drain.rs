//! The end: stop taking tasks, finish what runs, give back the rest.

use std::time::{Duration, Instant};

use crate::model::CancelCause;

use super::entry::{Entry, EntryStage};
use super::{Action, Core, Now, Turn};

/// After the drain's deadline and the handlers' grace, this long for copies and acks on their way. A broker that
/// is away then gets no longer wait: it redelivers.
const LAST_COPIES: Duration = Duration::from_secs(5);

/// How far the engine is in its life.
#[derive(Debug)]
pub(super) enum EnginePhase {
    /// Taking tasks.
    Running,
    /// Finishing.
    Draining(Drain),
}

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    /// Tasks that still run at this instant are asked to stop.
    deadline: Instant,
    /// From then on tasks that could not be settled for long are not waited for: the broker redelivers them.
    hopeless_from: Instant,
    /// They were asked.
    cancelled: bool,
    /// Every subscription has ended, nothing more arrives.
    consumers_stopped: bool,
    /// Hosts were told to quit; they are killed after this.
    hosts_until: Option<Instant>,
    /// The drain ends here whatever is left.
    give_up: Instant,
    /// It has ended.
    over: bool,
}

impl Core {
    /// Starts a drain: what runs is finished, the rest given back. A second call gives everything back now.
    pub(crate) fn drain(&mut self, now: Now, actions: &mut Vec<Action>) {
        let turn = &mut Turn { now, actions };
        let now = now.instant;
        let grace = self.longest_grace();
        if let EnginePhase::Draining(drain) = &mut self.phase {
            tracing::warn!("second request to stop: giving everything back now");
            drain.deadline = now;
            drain.give_up = now + grace + LAST_COPIES;
            return;
        }
        let (running, deadline) = (self.pools.running(), now + self.config.daemon.drain_timeout);
        tracing::info!(running, waiting = self.in_flight.len() - running, "draining");
        self.phase = EnginePhase::Draining(Drain {
            deadline,
            hopeless_from: now + LAST_COPIES,
            cancelled: false,
            consumers_stopped: false,
            hosts_until: None,
            give_up: deadline + grace + LAST_COPIES,
            over: false,
        });
        turn.act(Action::StopConsuming);
        for key in self.in_flight.keys_where(Entry::is_waiting) {
            self.give_back(key, turn);
        }
        for (host, worker, _) in self.pools.workers_mut() {
            for seq in worker.recall_queued() {
                turn.act(Action::RecallTask { host, seq });
            }
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, EnginePhase::Running)
    }

    pub(super) fn on_consumers_stopped(&mut self) {
        if let EnginePhase::Draining(drain) = &mut self.phase {
            drain.consumers_stopped = true;
        }
    }

    /// At the deadline, asks what still runs to stop.
    pub(super) fn expire_drain(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let EnginePhase::Draining(drain) = &mut self.phase else { return };
        if drain.cancelled || now < drain.deadline {
            return;
        }
        drain.cancelled = true;
        for (host, worker, _) in self.pools.workers_mut() {
            if let Some(head) = worker.head()
                && worker.cancelled_at.is_none()
            {
                worker.cancel_head(now);
                turn.act(Action::CancelTask { host, seq: head.seq });
                self.in_flight[head.entry].cancel(CancelCause::Drain);
            }
        }
    }

    /// Whether everything is settled and every host has ended, or there is no use in waiting longer. Says so once.
    pub(super) fn is_drained(&mut self, turn: &mut Turn<'_>) -> bool {
        let EnginePhase::Draining(drain) = &self.phase else { return false };
        let (grace, now) = (self.longest_grace(), turn.now.instant);
        if drain.over {
            return false;
        }
        let is_open = |entry: &Entry| match &entry.stage {
            EntryStage::Decided(_) | EntryStage::Confirmed => false,
            // One that is done would run again: its follow-ups are worth the wait.
            EntryStage::Publishing(publishing) => {
                publishing.is_of_done_task() || now < drain.hopeless_from || !entry.is_stuck(now)
            }
            _ => true,
        };
        let open = self.in_flight.iter().any(|(_, entry)| is_open(entry));
        let EnginePhase::Draining(drain) = &mut self.phase else { return false };
        if now >= drain.give_up {
            let left = self.in_flight.len();
            tracing::warn!(left, "the drain's time is up; the broker redelivers what is left");
            drain.over = true;
        } else if open || !drain.consumers_stopped {
            return false;
        } else if let Some(until) = drain.hosts_until {
            drain.over = self.pools.has_no_worker() || now >= until;
        } else {
            drain.hosts_until = Some(now + grace);
            drain.over = self.pools.has_no_worker();
            for host in self.pools.leave_all() {
                turn.act(Action::QuitHost(host));
            }
        }
        drain.over
    }

    fn longest_grace(&self) -> Duration {
        self.pools.iter().map(|(_, pool)| pool.generation.limits.grace).max().unwrap_or_default()
    }
}
