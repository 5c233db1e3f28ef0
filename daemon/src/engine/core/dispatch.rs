//! Waiting tasks go to workers, as far as those reach.

use crate::host::{HostId, HostTask, Seq};
use crate::model::DeadReason;
use crate::settlement::{MAX_REDELIVERIES, Settlement};
use crate::task::Headers;

use super::drain::Phase;
use super::in_flight::{Decision, Sent, Stage};
use super::keys::{EntryKey, PoolKey, QueueKey};
use super::pools::{Place, Wanted};
use super::scheduler::ListKey;
use super::{Action, Core, Turn};

impl Core {
    /// Gives every waiting task that can run to a worker.
    pub(super) fn dispatch(&mut self, turn: &mut Turn<'_>) {
        self.release_held_back(turn);
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        self.scheduler.begin_round();
        while let Some(list) = self.scheduler.next() {
            match self.place(list, turn) {
                Place::Worker(host) => {
                    let Some(key) = self.scheduler.take(list) else { return };
                    self.in_flight[key].stage = Stage::Arrived;
                    if !self.recount(key, turn) {
                        self.send(host, list.1, key, turn);
                    }
                }
                Place::Start => self.start_host(list.0, turn),
                Place::None => self.scheduler.pass_over(list),
            }
        }
    }

    /// Where the first task of a list can go. What waits in a paused queue goes back as soon as its consumer has ended.
    pub(super) fn place(&self, (pool, queue): ListKey, turn: &Turn<'_>) -> Place {
        if self.queues[queue].paused {
            return Place::None;
        }
        let wanted = Wanted {
            pool,
            queue,
            workers: usize::from(self.queues[queue].config.workers),
            waiting: self.scheduler.waiting(pool, queue),
            on_trial: self.is_on_trial(pool),
        };
        self.pools.place(wanted, turn.now.instant)
    }

    /// The pool's handler has to show first that a host survives.
    pub(super) fn is_on_trial(&self, pool: PoolKey) -> bool {
        self.pools.get(pool).is_some_and(|pool| self.handlers[pool.handler].health.is_on_trial())
    }

    /// A task that was delivered before, which nothing explains that this daemon lived through, may be what ended the
    /// daemon that had it; only `redelivered` tells on a queue that does not count. Immediately before it starts, it is
    /// copied with its own count, so that tasks that merely waited beside it never pay. True: it does not start now.
    fn recount(&mut self, key: EntryKey, turn: &mut Turn<'_>) -> bool {
        let entry = &self.in_flight[key];
        if !entry.suspect {
            return false;
        }
        let starts = entry.redeliveries.saturating_add(1);
        if starts > MAX_REDELIVERIES {
            let message = format!(
                "{starts} of its starts were cut short by the end of the daemon that had it: most likely it is the \
                 cause; see the system's log for what ended warrend"
            );
            self.dead_letter_unstarted(key, DeadReason::Poison, message, turn);
            return true;
        }
        self.log.recounted(self.task_ref(key), starts);
        self.carry_out(key, Decision::of(Settlement::Recount), turn);
        true
    }

    /// Gives a task to a worker.
    fn send(&mut self, host: HostId, queue: QueueKey, key: EntryKey, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let Some(seq) = self.pools.give(host, queue, key, now) else {
            unreachable!("place() names workers that exist");
        };
        let entry = &mut self.in_flight[key];
        self.queues[queue].waits.observe(now.saturating_duration_since(entry.arrived));
        entry.stage = Stage::Sent(Sent { host, seq, cancelled: None, progress: None });
        turn.act(Action::SendTask { host, seq, entry: key });
        self.log.started(self.task_ref(key));
    }

    /// The task of an [`Action::SendTask`], as it is written to its host.
    pub(crate) fn with_task<T>(
        &self,
        entry: EntryKey,
        seq: Seq,
        write: impl FnOnce(&HostTask<'_>) -> T,
    ) -> T {
        let entry = &self.in_flight[entry];
        let properties = &entry.delivery.properties;
        let pool = entry.pool().and_then(|pool| self.pools.get(pool));
        write(&HostTask {
            seq,
            attempt: entry.attempt,
            redelivered: entry.delivery.redelivered || entry.redeliveries > 0,
            id_generated: entry.id.generated,
            id: &entry.id.text,
            queue: &self.queues[entry.queue].config.name,
            prefix: entry.route.as_ref().map_or("", |route| &route.prefix),
            argument: entry.argument(),
            content_type: properties.content_type().as_ref().map_or("", |text| text.as_str()),
            headers: &Headers::of(properties.headers().as_ref()).fields,
            body: &entry.delivery.body,
            timeout: pool.map_or_else(Default::default, |pool| pool.generation.timeout),
            wants_result: entry.wants_reply(),
        })
    }

    fn start_host(&mut self, pool: PoolKey, turn: &mut Turn<'_>) {
        let Some(generation) = self.pools.get(pool).map(|pool| pool.generation.clone()) else { return };
        let host = self.pools.start(pool, turn.now.instant);
        let create_timeout = self.config.plugins.probe_timeout;
        turn.act(Action::StartHost { host, generation, create_timeout });
    }
}
