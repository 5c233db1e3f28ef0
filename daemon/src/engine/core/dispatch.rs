//! Waiting tasks go to workers, as far as those reach.

use std::time::{Duration, Instant};

use crate::host::{HostId, HostTask, Seq};
use crate::model::DeadReason;
use crate::settlement::{MAX_REDELIVERIES, Settlement};
use crate::task::Headers;

use super::entry::{Decision, Entry, EntryStage, Sent};
use super::keys::{EntryKey, PoolKey};
use super::pools::{Given, HandlerPool, Placement, WorkerRequest};
use super::scheduler::{Blocked, FlowKey, RunCharge, Scheduler};
use super::{Action, Core, Turn};

impl Core {
    /// Gives every waiting task that can run to a worker.
    pub(super) fn dispatch(&mut self, turn: &mut Turn<'_>) {
        if !self.is_running() {
            return;
        }
        self.release_held_back(turn);
        while self.dispatch_round(turn) {}
    }

    /// Asks every flow with waiting tasks in turn. True: a task has started after a flow was passed over, which may have a
    /// place now, behind that task in its worker for instance; or what waits has changed.
    fn dispatch_round(&mut self, turn: &mut Turn<'_>) -> bool {
        let (mut has_passed, mut once_more) = (false, false);
        self.scheduler.begin_round();
        while let Some(flow) = self.scheduler.next() {
            let why = match self.place(flow, &self.scheduler, turn) {
                Placement::Worker(host) => {
                    self.start_first(flow, host, turn);
                    once_more |= has_passed;
                    continue;
                }
                Placement::Start => {
                    self.start_host(flow, turn);
                    continue;
                }
                Placement::NoWorker => Blocked::NoWorker,
                Placement::None => Blocked::Itself,
            };
            self.scheduler.pass_over(flow, why);
            has_passed = true;
        }
        once_more || self.scheduler.wants_another_round()
    }

    /// Ends the hosts that have been idle for longest, where there are too many; not those that tasks wait for.
    pub(super) fn end_excess_hosts(&mut self, turn: &mut Turn<'_>) {
        let allowed = usize::from(self.config.plugins.max_idle_hosts);
        let scheduler = &self.scheduler;
        for host in self.pools.leave_excess(allowed, |handler| scheduler.is_waiting(handler)) {
            turn.act(Action::QuitHost(host));
        }
    }

    /// Gives the first task of a flow to a worker.
    fn start_first(&mut self, flow: FlowKey, host: HostId, turn: &mut Turn<'_>) {
        let Some(first) = self.scheduler.first(flow) else { return };
        if self.in_flight[first].suspect {
            self.scheduler.remove_first(flow);
            self.in_flight[first].stage = EntryStage::Arrived;
            return self.recount(first, turn);
        }
        let pool = self.scheduler.pool(flow).and_then(|pool| self.pools.get(pool));
        let expected = pool.map(HandlerPool::expected).unwrap_or_default();
        if let Some(rate) = pool.and_then(|pool| pool.generation.limits.rate) {
            self.handlers[flow.handler].bucket.spend(&rate, turn.now.instant);
        }
        let charge = RunCharge::expected(expected);
        self.scheduler.start(flow, charge);
        self.send(host, flow, first, charge, turn);
    }

    /// Where the first task of the flow that the scheduler named can go. What waits in a paused queue goes back as soon as
    /// its consumer has ended.
    pub(super) fn place(&self, flow: FlowKey, scheduler: &Scheduler, turn: &Turn<'_>) -> Placement {
        let queue = flow.queue;
        let Some(pool) = scheduler.pool(flow).filter(|_| !self.queues[queue].paused) else {
            return Placement::None;
        };
        if self.is_over_rate(flow, pool, turn.now.instant) {
            return Placement::None;
        }
        let wanted = WorkerRequest {
            pool,
            queue,
            workers: usize::from(self.queues[queue].config.workers),
            waiting: scheduler.waiting(flow),
            on_trial: self.handlers[flow.handler].health.is_on_trial(),
            may_queue: scheduler.may_queue(flow),
            is_first: !scheduler.has_contender(),
        };
        self.pools.place(wanted, turn.now.instant)
    }

    /// Whether the handler has started as many tasks as its rate allows by now.
    pub(super) fn is_over_rate(&self, flow: FlowKey, pool: PoolKey, now: Instant) -> bool {
        let rate = self.pools.get(pool).and_then(|pool| pool.generation.limits.rate);
        rate.is_some_and(|rate| !self.handlers[flow.handler].bucket.allows(&rate, now))
    }

    /// A redelivery that nothing explains may have ended the daemon that had it. Some queues count no deliveries, so that
    /// `redelivered` is the only sign. Immediately before the task starts, a copy counts the redelivery; tasks that only
    /// waited beside it are not counted. The task does not start in this turn.
    fn recount(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        let entry = &self.in_flight[key];
        let starts = entry.redeliveries.saturating_add(1);
        if starts > MAX_REDELIVERIES {
            let message = format!(
                "{starts} of its starts were cut short by the end of the daemon that had it: most likely it is the \
                 cause; see the system's log for what ended warrend"
            );
            return self.dead_letter_unstarted(key, DeadReason::Poison, message, turn);
        }
        self.log.recounted(self.task_ref(key), starts);
        self.carry_out(key, Decision::of(Settlement::Recount), turn);
    }

    /// Gives a task to a worker.
    fn send(&mut self, host: HostId, flow: FlowKey, key: EntryKey, charge: RunCharge, turn: &mut Turn<'_>) {
        let (now, queue) = (turn.now.instant, flow.queue);
        let Some(seq) = self.pools.give(host, queue, key, charge, now) else {
            unreachable!("place() names workers that exist");
        };
        let entry = &mut self.in_flight[key];
        self.queues[queue].waits.observe(now.saturating_duration_since(entry.arrived));
        entry.stage = EntryStage::Sent(Sent { host, seq, cancelled: None, progress: None });
        turn.act(Action::SendTask { host, seq, entry: key });
        self.log.started(self.task_ref(key));
    }

    /// A task that a worker had has left it, after it ran for so long.
    pub(super) fn run_ended(&mut self, given: Given, ran: Duration) {
        if let Some(flow) = self.flow_of(given.entry) {
            let task = self.in_flight[given.entry].task(given.entry);
            self.scheduler.ended(flow, task, given.charge, ran);
        }
    }

    /// The pool that an entry is routed to.
    pub(super) fn pool_of(&self, entry: &Entry) -> Option<&HandlerPool> {
        self.pools.get(entry.pool()?)
    }

    /// The flow that an entry belongs to.
    pub(super) fn flow_of(&self, key: EntryKey) -> Option<FlowKey> {
        let entry = &self.in_flight[key];
        Some(FlowKey { handler: self.pool_of(entry)?.handler, queue: entry.queue })
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
        let pool = self.pool_of(entry);
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

    fn start_host(&mut self, flow: FlowKey, turn: &mut Turn<'_>) {
        let Some(pool) = self.scheduler.pool(flow) else { return };
        let Some(generation) = self.pools.get(pool).map(|pool| pool.generation.clone()) else { return };
        let host = self.pools.start(pool, turn.now.instant);
        let create_timeout = self.config.plugins.probe_timeout;
        turn.act(Action::StartHost { host, generation, create_timeout });
    }
}
