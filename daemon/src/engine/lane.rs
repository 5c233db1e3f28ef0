//! A handler lane: the tasks of one generation that wait, the hosts that run them, and how many may run at once.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::host::{Host, HostId, QUEUE_LIMIT, Seq};
use crate::model::status::{Counts, Histogram};
use crate::registry::Generation;

use super::flight::FlightKey;
use super::queues::QueueKey;
use super::standing::Standing;

/// A lane is found by the number of its generation.
pub(super) type LaneKey = u64;

/// Hosts of one lane that start at the same time. Starting one costs a fork, an exec and the handler's `create`;
/// on a cold start a few warm hosts show soon enough whether more are needed.
const STARTING_LIMIT: usize = 4;

/// First and longest pause after a host failed to start, or ended before it had done anything. Doubled each time; a
/// host that starts ends the pause, and its first report makes the next one short again.
const START_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Below this, waking another process costs more than running the task: fill one host before using the next.
/// (A round trip that wakes a process on another core was measured at 33 to 43 µs.)
const WAKE_UP: Duration = Duration::from_micros(50);

/// Once the task in front has run this long, nothing is queued behind it, and what is queued is asked back, so that
/// another host can take it. Well above what tasks that are queued at all usually take.
pub(super) const LONG: Duration = Duration::from_millis(20);

/// How often a lane may park a window of tasks that crowd it.
const PARK_TURN: Duration = Duration::from_secs(1);

/// Work that may stand queued in front of a task inside a busy host.
const QUEUED_WORK: Duration = Duration::from_millis(1);

/// All lanes, those of replaced generations included until their last task is done.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    pub(super) all: BTreeMap<LaneKey, Lane>,
    pub(super) hosts: HashMap<HostId, HostSlot>,
    next_host: u64,
}

/// One generation at work.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) generation: Arc<Generation>,
    /// Tasks not given to a host, by queue.
    pub(super) waiting: Vec<VecDeque<FlightKey>>,
    /// Hosts that are ready and have nothing to do; the warmest last.
    pub(super) idle: Vec<HostId>,
    /// Hosts with tasks.
    pub(super) busy: Vec<HostId>,
    /// Hosts that are not ready yet.
    pub(super) starting: usize,
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
    /// Shared by all generations of the handler.
    pub(super) totals: Rc<RefCell<Totals>>,
}

/// What a handler has done since start, over all its generations.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) counts: Counts,
    pub(super) durations: Histogram,
    pub(super) last_error: Option<String>,
    pub(super) standing: Standing,
}

/// One plugin host and what it was given.
#[derive(Debug)]
pub(super) struct HostSlot {
    pub(super) host: Host,
    pub(super) lane: LaneKey,
    /// `Ready` was seen.
    pub(super) ready: bool,
    /// The queue whose tasks it runs; a host serves one queue at a time so that each queue's `workers` holds.
    pub(super) queue: Option<QueueKey>,
    /// What it was given and has not reported, in order.
    pub(super) sent: VecDeque<Sent>,
    next_seq: Seq,
    /// Since when the first of `sent` has been running.
    pub(super) head_since: Instant,
    /// When the running task was asked to stop; it is killed `grace` later.
    pub(super) cancelled_at: Option<Instant>,
    /// It takes no more tasks, and ends when those it has are done.
    pub(super) leaving: bool,
    /// SIGKILL was sent.
    pub(super) killed: bool,
    pub(super) idle_since: Instant,
    pub(super) tasks: u64,
}

/// One task given to a host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) seq: Seq,
    pub(super) flight: FlightKey,
    /// Asked back because the task in front of it runs long.
    pub(super) recalled: bool,
}

/// What a lane can offer a waiting task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// This host.
    Host(HostId),
    /// None yet: start one.
    Start,
    /// None: every worker is busy, or hosts are starting already.
    None,
}

impl Lane {
    pub(super) fn new(generation: Arc<Generation>, totals: Rc<RefCell<Totals>>, now: Instant) -> Self {
        Self {
            generation,
            waiting: Vec::new(),
            idle: Vec::new(),
            busy: Vec::new(),
            starting: 0,
            retired: false,
            failing: false,
            start_after: None,
            start_backoff: START_BACKOFF.0,
            parked: (now, 0),
            typical: None,
            totals,
        }
    }

    /// The tasks of one queue that wait here.
    pub(super) fn waiting_of(&mut self, queue: QueueKey) -> &mut VecDeque<FlightKey> {
        if self.waiting.len() <= queue {
            self.waiting.resize_with(queue + 1, VecDeque::new);
        }
        &mut self.waiting[queue]
    }

    /// How many tasks of one queue wait here.
    pub(super) fn waiting_for(&self, queue: QueueKey) -> usize {
        self.waiting.get(queue).map_or(0, VecDeque::len)
    }

    pub(super) fn waiting_total(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Nothing waits, runs or starts.
    pub(super) fn is_empty(&self) -> bool {
        self.busy.is_empty() && self.starting == 0 && self.waiting_total() == 0
    }

    /// A task took this long.
    pub(super) fn observe(&mut self, duration: Duration) {
        self.totals.borrow_mut().durations.observe(duration);
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

    /// Most hosts that may be busy. After a suspension one has to show first that it survives.
    fn cap(&self) -> usize {
        let configured = self.generation.limits.workers.map_or(usize::MAX, usize::from);
        if self.totals.borrow().standing.is_on_trial() { configured.min(1) } else { configured }
    }

    /// How many more hosts may be busy, given what the queue has left.
    fn free_workers(&self, of_queue: usize) -> usize {
        of_queue.min(self.cap().saturating_sub(self.busy.len()))
    }

    /// Whether every host that it may have is busy, and its queue, with so many workers, could run tasks of others.
    pub(super) fn is_at_own_limit(&self, of_queue: usize) -> bool {
        let cap = self.cap();
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

impl Lanes {
    /// Where the next waiting task of `queue` can go. `free`: workers of that queue that
    /// are not busy.
    pub(super) fn place(&self, key: LaneKey, queue: QueueKey, free: usize, now: Instant) -> Place {
        let lane = &self.all[&key];
        let depth = depth(lane.typical);
        if fills_first(lane.typical)
            && let Some(host) = self.open_host(lane, queue, depth, now)
        {
            return Place::Host(host);
        }
        let waiting = lane.waiting_for(queue);
        let free = lane.free_workers(free);
        if free > 0 {
            if let Some(host) = lane.idle.last() {
                return Place::Host(*host);
            }
            if lane.may_start(waiting, free, now) {
                return Place::Start;
            }
        }
        self.open_host(lane, queue, depth, now).map_or(Place::None, Place::Host)
    }

    /// A busy host of this queue with fewer than `depth` tasks, none of them long. The fullest one, so that the others
    /// go idle.
    fn open_host(&self, lane: &Lane, queue: QueueKey, depth: usize, now: Instant) -> Option<HostId> {
        if depth < 2 {
            return None;
        }
        let open = |id: &&HostId| {
            let slot = &self.hosts[*id];
            slot.queue == Some(queue)
                && slot.sent.len() < depth
                && now < slot.head_since + LONG
                && !slot.leaving
                && slot.cancelled_at.is_none()
        };
        lane.busy.iter().rev().find(open).copied()
    }

    pub(super) fn next_host_id(&mut self) -> HostId {
        self.next_host += 1;
        HostId(self.next_host)
    }

    /// Takes note of a started host.
    pub(super) fn add_host(&mut self, host: Host, id: HostId, lane: LaneKey, now: Instant) {
        self.all.get_mut(&lane).expect("a host is started for a lane that exists").starting += 1;
        let slot = HostSlot {
            host,
            lane,
            ready: false,
            queue: None,
            sent: VecDeque::with_capacity(QUEUE_LIMIT),
            next_seq: 0,
            head_since: now,
            cancelled_at: None,
            leaving: false,
            killed: false,
            idle_since: now,
            tasks: 0,
        };
        self.hosts.insert(id, slot);
    }
}

impl HostSlot {
    /// Numbers a task that is about to be sent.
    pub(super) fn push(&mut self, flight: FlightKey, now: Instant) -> Seq {
        self.next_seq += 1;
        if self.sent.is_empty() {
            self.head_since = now;
        }
        self.sent.push_back(Sent { seq: self.next_seq, flight, recalled: false });
        self.next_seq
    }

    /// Takes out the task that was reported.
    pub(super) fn take(&mut self, seq: Seq, now: Instant) -> Option<Sent> {
        let at = self.sent.iter().position(|sent| sent.seq == seq)?;
        if at == 0 {
            self.head_since = now;
            self.cancelled_at = None;
        }
        self.sent.remove(at)
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
