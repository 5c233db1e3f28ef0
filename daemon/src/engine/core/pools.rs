//! The handler pools: for each generation its workers, which are plugin hosts, and how many of them may be busy.
//!
//! A worker is starting, idle, busy or leaving. Only the verbs of [`Pools`] move it from one to the other, so that the
//! lists, the counts by queue and the workers themselves agree.

mod handler_pool;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::host::{HostId, Seq};
use crate::registry::Generation;

pub(super) use self::handler_pool::HandlerPool;
use self::handler_pool::{depth, fills_first};
pub(super) use self::worker::{Given, LONG, Worker};
use super::keys::{EntryKey, HandlerKey, PoolKey, QueueKey};
use super::scheduler::RunCharge;

/// All pools, those of replaced generations included until their last task is done.
#[derive(Debug, Default)]
pub(super) struct Pools {
    all: BTreeMap<PoolKey, HandlerPool>,
    workers: BTreeMap<HostId, Worker>,
    /// Busy workers by queue: at most the queue's `workers`. A worker serves one queue at a time.
    busy_with: Vec<usize>,
    /// Idle workers of all pools.
    idle: usize,
    /// Retired pools that are still there.
    retired: usize,
    next_host: u64,
}

/// What is asked of [`Pools::place`].
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkerRequest {
    pub(super) pool: PoolKey,
    pub(super) queue: QueueKey,
    /// Workers that the queue may have busy.
    pub(super) workers: usize,
    /// Tasks of the queue that wait for the pool.
    pub(super) waiting: usize,
    /// The handler has to show first that a host survives.
    pub(super) on_trial: bool,
    /// A task may be queued behind others in a busy worker.
    pub(super) may_queue: bool,
    /// Nobody else waits for a worker of the queue for longer.
    pub(super) is_first: bool,
}

/// What a pool can offer a waiting task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// This worker.
    Worker(HostId),
    /// None yet: start one.
    Start,
    /// None: every worker that the queue may have is busy.
    NoWorker,
    /// None: the handler is at its own limit, or its hosts are starting.
    None,
}

/// What a worker does after a task has left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freed {
    /// It goes on.
    GoesOn,
    /// It has nothing left and is to end.
    Quits,
}

impl Pools {
    /// Opens the pool of a generation.
    pub(super) fn open(&mut self, generation: Arc<Generation>, handler: HandlerKey, now: Instant) {
        let pool = HandlerPool::new(generation, handler, now);
        self.all.insert(pool.generation.number, pool);
    }

    /// The pool takes no new tasks any more. Gives its idle workers, which are to end.
    pub(super) fn retire(&mut self, key: PoolKey) -> Vec<HostId> {
        let Some(pool) = self.all.get_mut(&key).filter(|pool| !pool.retired) else { return Vec::new() };
        pool.retired = true;
        self.retired += 1;
        let idle = std::mem::take(&mut pool.idle);
        self.idle -= idle.len();
        for id in &idle {
            self.leave(*id);
        }
        idle
    }

    /// Removes the retired pools that nothing belongs to any more, and gives their handlers.
    pub(super) fn close_unused(&mut self, is_used: impl Fn(PoolKey) -> bool) -> Vec<HandlerKey> {
        if self.retired == 0 {
            return Vec::new();
        }
        let is_over = |(key, pool): &(&PoolKey, &HandlerPool)| {
            let workers = pool.busy.len() + pool.idle.len() + pool.starting;
            pool.retired && workers == 0 && !is_used(**key)
        };
        let over: Vec<_> = self.all.iter().filter(is_over).map(|(key, pool)| (*key, pool.handler)).collect();
        for (key, _) in &over {
            self.all.remove(key);
        }
        self.retired -= over.len();
        over.into_iter().map(|(_, handler)| handler).collect()
    }

    pub(super) fn get(&self, key: PoolKey) -> Option<&HandlerPool> {
        self.all.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: PoolKey) -> Option<&mut HandlerPool> {
        self.all.get_mut(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PoolKey, &HandlerPool)> {
        self.all.iter().map(|(key, pool)| (*key, pool))
    }

    /// The pools of one handler.
    pub(super) fn of_handler(&self, handler: HandlerKey) -> impl Iterator<Item = (PoolKey, &HandlerPool)> {
        self.iter().filter(move |(_, pool)| pool.handler == handler)
    }

    pub(super) fn worker(&self, id: HostId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = (HostId, &Worker)> {
        self.workers.iter().map(|(id, worker)| (*id, worker))
    }

    /// For the limits of running tasks. The lists are not to be touched.
    pub(super) fn workers_mut(&mut self) -> impl Iterator<Item = (HostId, &mut Worker, &HandlerPool)> {
        let all = &self.all;
        self.workers.iter_mut().filter_map(|(id, worker)| {
            let pool = all.get(&worker.pool)?;
            Some((*id, worker, pool))
        })
    }

    pub(super) fn worker_mut(&mut self, id: HostId) -> Option<&mut Worker> {
        self.workers.get_mut(&id)
    }

    /// Tasks that workers have.
    pub(super) fn running(&self) -> usize {
        self.workers.values().map(Worker::tasks_in_hand).sum()
    }

    /// Whether every host has ended.
    pub(super) fn has_no_worker(&self) -> bool {
        self.workers.is_empty()
    }

    /// Where the next waiting task can go.
    pub(super) fn place(&self, wanted: WorkerRequest, now: Instant) -> Placement {
        let WorkerRequest { pool, queue, workers, waiting, on_trial, may_queue, is_first } = wanted;
        let Some(pool) = self.all.get(&pool) else { return Placement::None };
        let depth = if may_queue { depth(pool.typical) } else { 1 };
        let fills_first = fills_first(pool.typical);
        if fills_first && let Some(host) = self.open_worker(pool, queue, depth, now) {
            return Placement::Worker(host);
        }
        let of_queue = workers.saturating_sub(self.busy_with(queue));
        let of_pool = pool.cap(on_trial).saturating_sub(pool.busy.len());
        let free = of_queue.min(of_pool);
        if free > 0 {
            if let Some(host) = pool.idle.last() {
                return Placement::Worker(*host);
            }
            if pool.may_start(waiting, free, now) {
                return Placement::Start;
            }
        }
        if !fills_first && let Some(host) = self.open_worker(pool, queue, depth, now) {
            return Placement::Worker(host);
        }
        if of_queue > 0 || of_pool == 0 {
            return Placement::None;
        }
        // A host that starts only when a worker is free would lose that one to others, and its turn with it.
        match pool.busy.len() + pool.idle.len() + pool.starting {
            0 if is_first && pool.may_start(waiting, 1, now) => Placement::Start,
            0 => Placement::None,
            _ => Placement::NoWorker,
        }
    }

    /// A busy worker of this queue with fewer than `depth` tasks, none of them long. The fullest one, so that the others
    /// go idle.
    fn open_worker(&self, pool: &HandlerPool, queue: QueueKey, depth: usize, now: Instant) -> Option<HostId> {
        if depth < 2 {
            return None;
        }
        let is_open = |id: &&HostId| self.workers[*id].takes_more(queue, depth, now);
        pool.busy.iter().rev().find(is_open).copied()
    }

    /// Takes note of a host that is being started; its id.
    pub(super) fn start(&mut self, key: PoolKey, now: Instant) -> HostId {
        self.next_host += 1;
        let id = HostId(self.next_host);
        if let Some(pool) = self.all.get_mut(&key) {
            pool.starting += 1;
        }
        self.workers.insert(id, Worker::new(key, now));
        id
    }

    /// A host takes tasks now. What it is good for only its first task shows.
    pub(super) fn ready(&mut self, id: HostId, now: Instant) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.is_ready()) else { return };
        let Some(pool) = self.all.get_mut(&worker.pool) else { return };
        worker.ready(now);
        pool.starting -= 1;
        pool.started();
        if !worker.leaving {
            pool.idle.push(id);
            self.idle += 1;
        }
    }

    /// Gives a task to a worker, on this queue's account; its number there.
    pub(super) fn give(
        &mut self,
        id: HostId,
        queue: QueueKey,
        entry: EntryKey,
        charge: RunCharge,
        now: Instant,
    ) -> Option<Seq> {
        let worker = self.workers.get_mut(&id)?;
        let pool = self.all.get_mut(&worker.pool)?;
        if worker.tasks_in_hand() == 0 {
            self.idle -= pool.unlist_idle(id);
            pool.busy.push(id);
            worker.queue = Some(queue);
            if self.busy_with.len() <= queue {
                self.busy_with.resize(queue + 1, 0);
            }
            self.busy_with[queue] += 1;
        }
        Some(worker.push(entry, charge, now))
    }

    /// A task has left a worker, which may be idle now, or have to end.
    pub(super) fn freed(&mut self, id: HostId, rss: Option<u64>, now: Instant) -> Freed {
        let Some(worker) = self.workers.get_mut(&id) else { return Freed::GoesOn };
        let Some(pool) = self.all.get_mut(&worker.pool) else { return Freed::GoesOn };
        let limits = &pool.generation.limits;
        let over_max_tasks = limits.max_tasks > 0 && worker.tasks >= limits.max_tasks;
        let over_max_rss = limits.max_rss > 0 && rss.is_some_and(|rss| rss > limits.max_rss);
        worker.leaving |= over_max_tasks || over_max_rss;
        if worker.tasks_in_hand() > 0 {
            return Freed::GoesOn;
        }
        pool.busy.retain(|busy| *busy != id);
        if let Some(queue) = worker.queue.take() {
            self.busy_with[queue] -= 1;
        }
        worker.idle_since = now;
        if worker.leaving || pool.retired {
            worker.leaving = true;
            return Freed::Quits;
        }
        pool.idle.push(id);
        self.idle += 1;
        Freed::GoesOn
    }

    /// A worker takes no more tasks and ends when those it has are done.
    pub(super) fn leave(&mut self, id: HostId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.leaving = true;
        if let Some(pool) = self.all.get_mut(&worker.pool) {
            self.idle -= pool.unlist_idle(id);
        }
    }

    /// Every worker takes no more tasks.
    pub(super) fn leave_all(&mut self) -> Vec<HostId> {
        let all: Vec<HostId> = self.workers.keys().copied().collect();
        for id in &all {
            self.leave(*id);
        }
        all
    }

    /// A host is gone.
    pub(super) fn ended(&mut self, id: HostId) -> Option<Worker> {
        let worker = self.workers.remove(&id)?;
        if let Some(queue) = worker.queue {
            self.busy_with[queue] -= 1;
        }
        let pool = self.all.get_mut(&worker.pool)?;
        self.idle -= pool.unlist_idle(id);
        pool.busy.retain(|busy| *busy != id);
        if !worker.is_ready() {
            pool.starting -= 1;
        }
        Some(worker)
    }

    /// The workers that have been idle for their `idle_timeout`, or whose pool has retired. They are leaving from now on.
    pub(super) fn leave_idle(&mut self, now: Instant) -> Vec<HostId> {
        let is_over = |worker: &Worker| {
            let Some(pool) = self.all.get(&worker.pool) else { return false };
            worker.is_idle()
                && !worker.leaving
                && (pool.retired || now >= worker.idle_since + pool.generation.limits.idle_timeout)
        };
        let over: Vec<HostId> =
            self.workers.iter().filter(|(_, worker)| is_over(worker)).map(|(id, _)| *id).collect();
        for id in &over {
            self.leave(*id);
        }
        over
    }

    /// The workers that have been idle for longest, as many as there are too many of. They are leaving from now on.
    pub(super) fn leave_excess(
        &mut self,
        allowed: usize,
        is_wanted: impl Fn(HandlerKey) -> bool,
    ) -> Vec<HostId> {
        let excess = self.idle.saturating_sub(allowed);
        if excess == 0 {
            return Vec::new();
        }
        let is_of_use = |pool| self.all.get(pool).is_some_and(|pool| is_wanted(pool.handler));
        let idle = self.workers.iter().filter(|(_, worker)| worker.is_idle() && !worker.leaving);
        let idle = idle.filter(|(_, worker)| !is_of_use(&worker.pool));
        let mut idle: Vec<(Instant, HostId)> = idle.map(|(id, worker)| (worker.idle_since, *id)).collect();
        idle.sort_unstable();
        idle.truncate(excess);
        for (_, id) in &idle {
            self.leave(*id);
        }
        idle.into_iter().map(|(_, id)| id).collect()
    }

    /// Holds the lists and the counts against the workers.
    #[cfg(any(test, feature = "simulate"))]
    pub(super) fn check(&self) {
        let mut busy_with = vec![0; self.busy_with.len()];
        for (id, worker) in &self.workers {
            let Some(pool) = self.all.get(&worker.pool) else {
                assert!(
                    worker.leaving && worker.is_idle(),
                    "{id:?} works for a pool that is gone: {worker:?}"
                );
                continue;
            };
            let (idle, busy) = (pool.idle.contains(id), pool.busy.contains(id));
            let works = worker.tasks_in_hand() > 0;
            assert_eq!((busy, works), (works, worker.queue.is_some()), "{id:?}: {worker:?}");
            assert!(idle <= (worker.is_idle() && !worker.leaving), "{id:?} is idle: {worker:?}");
            assert!(idle || worker.leaving || !worker.is_idle(), "{id:?} is not listed as idle: {worker:?}");
            if let Some(queue) = worker.queue {
                busy_with[queue] += 1;
            }
        }
        assert_eq!(busy_with, self.busy_with, "busy workers by queue");
        for (key, pool) in &self.all {
            let of_pool = || self.workers.values().filter(|worker| worker.pool == *key);
            let starting = of_pool().filter(|worker| !worker.is_ready()).count();
            let listed = pool.idle.len() + pool.busy.len();
            let leaving = of_pool().filter(|worker| worker.is_idle() && worker.leaving).count();
            assert_eq!(pool.starting, starting, "starting workers of {key}");
            assert_eq!(listed + leaving + starting, of_pool().count(), "workers of {key}: {pool:?}");
        }
        assert_eq!(self.idle, self.all.values().map(|pool| pool.idle.len()).sum::<usize>(), "idle workers");
        assert_eq!(self.retired, self.all.values().filter(|pool| pool.retired).count());
    }

    /// Busy workers of a queue.
    fn busy_with(&self, queue: QueueKey) -> usize {
        self.busy_with.get(queue).copied().unwrap_or(0)
    }
}
