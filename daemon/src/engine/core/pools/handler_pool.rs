//! One generation at work: which of its workers are idle, busy or starting, when another host may be started, how many
//! tasks are queued in one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::core::keys::HandlerKey;
use crate::host::{HostId, QUEUE_LIMIT};
use crate::registry::Generation;

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

/// One generation at work.
#[derive(Debug)]
pub(in crate::engine::core) struct HandlerPool {
    pub(in crate::engine::core) generation: Arc<Generation>,
    pub(in crate::engine::core) handler: HandlerKey,
    /// Workers that are ready and have nothing to do; the warmest last.
    pub(super) idle: Vec<HostId>,
    /// Workers with tasks.
    pub(super) busy: Vec<HostId>,
    /// Workers that are not ready yet.
    pub(super) starting: usize,
    /// Replaced or removed: takes no new tasks and goes away when the last one is done.
    pub(in crate::engine::core) retired: bool,
    /// The last host failed to start.
    pub(in crate::engine::core) failing: bool,
    /// No host is started before this: the last one failed to start, or ended with nothing to show for it.
    start_after: Option<Instant>,
    start_backoff: Duration,
    /// Since when tasks are parked that crowd the window, and how many were in that time.
    parked: (Instant, usize),
    /// Moving average of a task's duration; `None` before the first.
    pub(super) typical: Option<Duration>,
}

impl HandlerPool {
    pub(super) fn new(generation: Arc<Generation>, handler: HandlerKey, now: Instant) -> Self {
        Self {
            generation,
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
        }
    }

    /// A worker is not idle any more; how many were listed as that.
    pub(super) fn unlist_idle(&mut self, id: HostId) -> usize {
        let listed = self.idle.len();
        self.idle.retain(|idle| *idle != id);
        listed - self.idle.len()
    }

    /// A task took this long.
    pub(in crate::engine::core) fn observe(&mut self, duration: Duration) {
        self.typical = Some(self.typical.map_or(duration, |typical| (typical * 7 + duration) / 8));
    }

    /// How long the next task is expected to run.
    pub(in crate::engine::core) fn expected(&self) -> Duration {
        self.typical.unwrap_or_default()
    }

    /// A host failed to start: wait before the next.
    pub(in crate::engine::core) fn start_failed(&mut self, now: Instant) {
        self.failing = true;
        self.pause_starts(now);
    }

    /// A host ended with nothing to show for it: wait before the next, twice as long as the last time. Hosts that were
    /// started together count as one.
    pub(in crate::engine::core) fn pause_starts(&mut self, now: Instant) {
        if self.start_after.is_some_and(|at| now < at) {
            return;
        }
        self.start_after = Some(now + self.start_backoff);
        self.start_backoff = (self.start_backoff * 2).min(START_BACKOFF.1);
    }

    /// A host started. What it is good for only its first task shows.
    pub(in crate::engine::core) fn started(&mut self) {
        self.failing = false;
        self.start_after = None;
    }

    /// A host that was started reported its first task.
    pub(in crate::engine::core) fn proved(&mut self) {
        self.start_backoff = START_BACKOFF.0;
    }

    /// Most workers that may be busy. After a suspension one has to show first that it survives.
    pub(super) fn cap(&self, on_trial: bool) -> usize {
        let configured = self.generation.limits.workers.map_or(usize::MAX, usize::from);
        if on_trial { configured.min(1) } else { configured }
    }

    /// Whether every worker that it may have is busy, and its queue, with so many workers, could run tasks of others.
    pub(in crate::engine::core) fn is_at_own_limit(&self, of_queue: usize, on_trial: bool) -> bool {
        let cap = self.cap(on_trial);
        cap < of_queue && self.busy.len() + self.starting >= cap
    }

    /// Whether one more task may be parked because it crowds the window. At most a window of them in [`PARK_TURN`]: when
    /// a queue holds nothing but this handler's tasks, all of it would be copied to and fro.
    pub(in crate::engine::core) fn may_park(&mut self, window: usize, now: Instant) -> bool {
        if now >= self.parked.0 + PARK_TURN {
            self.parked = (now, 0);
        }
        let may = self.parked.1 < window;
        self.parked.1 += usize::from(may);
        may
    }

    pub(super) fn may_start(&self, waiting: usize, free: usize, now: Instant) -> bool {
        self.starting < STARTING_LIMIT.min(waiting).min(free) && self.start_after.is_none_or(|at| now >= at)
    }
}

/// Whether tasks are so short that one host is filled before another is woken.
pub(super) fn fills_first(typical: Option<Duration>) -> bool {
    typical.is_some_and(|typical| typical < WAKE_UP)
}

/// How many tasks a host may hold, the running one included.
pub(super) fn depth(typical: Option<Duration>) -> usize {
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
