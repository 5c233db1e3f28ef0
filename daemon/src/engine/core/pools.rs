//! The handler pools: for each generation its workers, which are plugin hosts, and how many of them may be busy.
//!
//! A worker is starting, idle, busy or leaving. Only the verbs of [`Pools`] move it from one to the other, so that the
//! lists, the counts by queue and the workers themselves agree.

mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::host::{HostId, QUEUE_LIMIT, Seq};
use crate::registry::Generation;

pub(super) use self::worker::{Given, LONG, Worker};
use super::handlers::HandlerKey;
use super::in_flight::EntryKey;
use super::queues::QueueKey;

/// A pool is found by the number of its generation.
pub(super) type PoolKey = u64;

/// Workers of one pool that start at the same time. Starting one costs a fork, an exec and the handler's `create`;
/// on a cold start a few warm workers show soon enough whether more are needed.
const STARTING_LIMIT: usize = 4;

/// First and longest pause after a host failed to start, or ended before it had done anything. Doubled each time; a
/// host that starts ends the pause, and its first report makes the next one short again.
const START_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Below this, waking another process costs more than running the task: fill one host before using the next.
/// (A round trip that wakes a process on another core was measured at 33 to 43 µs.)
const WAKE_UP: Duration = Duration::from_micros(50);

/// How often a pool may park a window of tasks that crowd it.
const PARK_TURN: Duration = Duration::from_secs(1);

/// Work that may stand queued in front of a task inside a busy host.
const QUEUED_WORK: Duration = Duration::from_millis(1);

/// All pools, those of replaced generations included until their last task is done.
#[derive(Debug, Default)]
pub(super) struct Pools {
    all: BTreeMap<PoolKey, HandlerPool>,
    workers: BTreeMap<HostId, Worker>,
    /// Busy workers by queue: at most the queue's `workers`. A worker serves one queue at a time.
    busy_with: Vec<usize>,
    /// Retired pools that are still there.
    retired: usize,
    next_host: u64,
}

/// One generation at work.
#[derive(Debug)]
pub(super) struct HandlerPool {
    pub(super) generation: Arc<Generation>,
    pub(super) handler: HandlerKey,
    /// Workers that are ready and have nothing to do; the warmest last.
    idle: Vec<HostId>,
    /// Workers with tasks.
    busy: Vec<HostId>,
    /// Workers that are not ready yet.
    starting: usize,
    /// Replaced or removed: takes no new tasks and goes away when the last one is done.
    pub(super) retired: bool,
    /// The last host failed to start.
    pub(super) failing: bool,
    /// No host is started before this: the last one failed to start, or ended with nothing to show for it.
    start_after: Option<Instant>,
    start_backoff: Duration,
    /// Since when tasks are parked that crowd the window, and how many were in that time.
    parked: (Instant, usize),
    /// Moving average of a task's duration; `None` before the first.
    typical: Option<Duration>,
}

/// What is asked of [`Pools::place`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) pool: PoolKey,
    pub(super) queue: QueueKey,
    /// Workers that the queue may have busy.
    pub(super) workers: usize,
    /// Tasks of the queue that wait for the pool.
    pub(super) waiting: usize,
    /// The handler has to show first that a host survives.
    pub(super) on_trial: bool,
}

/// What a pool can offer a waiting task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// This worker.
    Worker(HostId),
    /// None yet: start one.
    Start,
    /// None: every worker is busy, or hosts are starting already.
    None,
}

/// What a worker does after it has one task less.
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
        let pool = HandlerPool {
            handler,
            idle: Vec::new(),
            busy: Vec::new(),
            starting: 0,
            retired: false,
            failing: false,
            start_after: None,
            start_backoff: START_BACKOFF.0,
            parked: (now, 0),
            typical: None,
            generation,
        };
        self.all.insert(pool.generation.number, pool);
    }

    /// The pool takes no new tasks any more. Gives its idle workers, which are to end.
    pub(super) fn retire(&mut self, key: PoolKey) -> Vec<HostId> {
        let Some(pool) = self.all.get_mut(&key).filter(|pool| !pool.retired) else { return Vec::new() };
        pool.retired = true;
        self.retired += 1;
        let idle = std::mem::take(&mut pool.idle);
        for id in &idle {
            self.leave(*id);
        }
        idle
    }

    /// Removes the retired pools that nothing belongs to any more, and gives their handlers.
    pub(super) fn close_unused(&mut self, is_used: impl Fn(PoolKey) -> bool) -> Vec<(PoolKey, HandlerKey)> {
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
        over
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
    pub(super) fn place(&self, wanted: Wanted, now: Instant) -> Place {
        let Wanted { pool, queue, workers, waiting, on_trial } = wanted;
        let Some(pool) = self.all.get(&pool) else { return Place::None };
        let depth = depth(pool.typical);
        if fills_first(pool.typical)
            && let Some(host) = self.open_worker(pool, queue, depth, now)
        {
            return Place::Worker(host);
        }
        let free = workers.saturating_sub(self.busy_with(queue));
        let free = free.min(pool.cap(on_trial).saturating_sub(pool.busy.len()));
        if free > 0 {
            if let Some(host) = pool.idle.last() {
                return Place::Worker(*host);
            }
            if pool.may_start(waiting, free, now) {
                return Place::Start;
            }
        }
        self.open_worker(pool, queue, depth, now).map_or(Place::None, Place::Worker)
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

    /// A host takes tasks now. What it is good for only its first task shows. False: it is to end, its pool has retired.
    pub(super) fn ready(&mut self, id: HostId, now: Instant) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else { return true };
        let Some(pool) = self.all.get_mut(&worker.pool) else { return true };
        worker.ready(now);
        pool.starting -= 1;
        pool.started();
        pool.idle.push(id);
        true
    }

    /// Gives a task to a worker, on this queue's account; its number there.
    pub(super) fn give(&mut self, id: HostId, queue: QueueKey, entry: EntryKey, now: Instant) -> Option<Seq> {
        let worker = self.workers.get_mut(&id)?;
        let pool = self.all.get_mut(&worker.pool)?;
        if worker.tasks_in_hand() == 0 {
            pool.idle.retain(|idle| *idle != id);
            pool.busy.push(id);
            worker.queue = Some(queue);
            if self.busy_with.len() <= queue {
                self.busy_with.resize(queue + 1, 0);
            }
            self.busy_with[queue] += 1;
        }
        Some(worker.push(entry, now))
    }

    /// A worker has one task less: it may be idle now, or have to end.
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
        Freed::GoesOn
    }

    /// A worker takes no more tasks and ends when those it has are done.
    pub(super) fn leave(&mut self, id: HostId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.leaving = true;
        if let Some(pool) = self.all.get_mut(&worker.pool) {
            pool.idle.retain(|idle| *idle != id);
        }
    }

    /// A host is gone.
    pub(super) fn ended(&mut self, id: HostId) -> Option<Worker> {
        let worker = self.workers.remove(&id)?;
        if let Some(queue) = worker.queue {
            self.busy_with[queue] -= 1;
        }
        let pool = self.all.get_mut(&worker.pool)?;
        pool.idle.retain(|idle| *idle != id);
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

    /// Busy workers of a queue.
    pub(super) fn busy_with(&self, queue: QueueKey) -> usize {
        self.busy_with.get(queue).copied().unwrap_or(0)
    }
}

impl HandlerPool {
    /// A task took this long.
    pub(super) fn observe(&mut self, duration: Duration) {
        self.typical = Some(self.typical.map_or(duration, |typical| (typical * 7 + duration) / 8));
    }

    /// A host failed to start: wait before the next.
    pub(super) fn start_failed(&mut self, now: Instant) {
        self.failing = true;
        self.pause_starts(now);
    }

    /// A host ended with nothing to show for it: wait before the next, twice as long as the last time. Hosts that were
    /// started together count as one.
    pub(super) fn pause_starts(&mut self, now: Instant) {
        if self.start_after.is_some_and(|at| now < at) {
            return;
        }
        self.start_after = Some(now + self.start_backoff);
        self.start_backoff = (self.start_backoff * 2).min(START_BACKOFF.1);
    }

    /// A host started. What it is good for only its first task shows.
    pub(super) fn started(&mut self) {
        self.failing = false;
        self.start_after = None;
    }

    /// A host that was started reported its first task.
    pub(super) fn proved(&mut self) {
        self.start_backoff = START_BACKOFF.0;
    }

    /// Most workers that may be busy. After a suspension one has to show first that it survives.
    fn cap(&self, on_trial: bool) -> usize {
        let configured = self.generation.limits.workers.map_or(usize::MAX, usize::from);
        if on_trial { configured.min(1) } else { configured }
    }

    /// Whether every worker that it may have is busy, and its queue, with so many workers, could run tasks of others.
    pub(super) fn is_at_own_limit(&self, of_queue: usize, on_trial: bool) -> bool {
        let cap = self.cap(on_trial);
        cap < of_queue && self.busy.len() + self.starting >= cap
    }

    /// Whether one more task may be parked because it crowds the window. At most a window of them in [`PARK_TURN`]: when
    /// a queue holds nothing but this handler's tasks, all of it would be copied to and fro.
    pub(super) fn may_park(&mut self, window: usize, now: Instant) -> bool {
        if now >= self.parked.0 + PARK_TURN {
            self.parked = (now, 0);
        }
        let may = self.parked.1 < window;
        self.parked.1 += usize::from(may);
        may
    }

    fn may_start(&self, waiting: usize, free: usize, now: Instant) -> bool {
        self.starting < STARTING_LIMIT.min(waiting).min(free) && self.start_after.is_none_or(|at| now >= at)
    }
}

/// Whether tasks are so short that one host is filled before another is woken.
fn fills_first(typical: Option<Duration>) -> bool {
    typical.is_some_and(|typical| typical < WAKE_UP)
}

/// How many tasks a host may hold, the running one included.
fn depth(typical: Option<Duration>) -> usize {
    match typical {
        None => 1,
        Some(typical) if typical < WAKE_UP => QUEUE_LIMIT,
        Some(typical) => {
            let fit = QUEUED_WORK.as_nanos() / typical.as_nanos().max(1);
            usize::try_from(fit).unwrap_or(QUEUE_LIMIT).clamp(1, QUEUE_LIMIT)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_tasks_are_queued_behind_each_other() {
        let micros = |n| Some(Duration::from_micros(n));
        for (typical, expected_depth, expected_fill) in [
            (None, 1, false),
            (micros(0), QUEUE_LIMIT, true),
            (micros(2), QUEUE_LIMIT, true),
            (micros(50), QUEUE_LIMIT, false),
            (micros(200), 5, false),
            (micros(1_000), 1, false),
            (micros(60_000_000), 1, false),
        ] {
            assert_eq!(depth(typical), expected_depth, "{typical:?}");
            assert_eq!(fills_first(typical), expected_fill, "{typical:?}");
        }
    }
}
