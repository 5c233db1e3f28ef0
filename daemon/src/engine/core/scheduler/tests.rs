//! The scheduler alone, and with workers that are simulated.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

mod expectations;
mod keys;

const MS: Duration = Duration::from_millis(1);

fn flow(handler: HandlerKey, queue: QueueKey) -> FlowKey {
    FlowKey { handler, queue }
}

/// A task without keys; entries are numbered as they arrive.
fn task(entry: EntryKey) -> ScheduledTask {
    ScheduledTask { entry, order: entry as u64, keys: TaskKeys::default() }
}

/// The next task starts, and ends as expected; whose it is.
fn run_next(scheduler: &mut Scheduler, run_time: Duration) -> FlowKey {
    scheduler.begin_round();
    let next = scheduler.next().expect("a task");
    scheduler.start(next, RunCharge::expected(run_time));
    scheduler.ended(next, task(0), RunCharge::expected(run_time), run_time);
    next
}

/// One queue whose handlers have always tasks waiting, and a clock.
struct Bench {
    scheduler: Scheduler,
    workers: usize,
    now: Duration,
    /// When a task ends; its handler, what it was charged for, how long it runs.
    running: BinaryHeap<Reverse<(Duration, HandlerKey, Duration, Duration)>>,
    /// The last run time of each handler.
    typical: [Duration; 3],
    /// Run times started, by handler.
    had: [Duration; 3],
}

impl Bench {
    fn new(workers: usize, weights: &[u16]) -> Self {
        let mut scheduler = Scheduler::default();
        weights.iter().enumerate().for_each(|(handler, weight)| scheduler.set_weight(handler, *weight));
        let (typical, had) = ([Duration::ZERO; 3], [Duration::ZERO; 3]);
        Self { scheduler, workers, now: Duration::ZERO, running: BinaryHeap::new(), typical, had }
    }

    fn add(&mut self, handler: HandlerKey, tasks: usize) {
        (0..tasks).for_each(|entry| self.scheduler.add(flow(handler, 0), 1, task(entry)));
    }

    /// Fills the workers. Tasks of each handler run so long; whose tasks start, in order.
    fn fill(&mut self, run_times: &[Duration]) -> Vec<HandlerKey> {
        let mut started = Vec::new();
        self.scheduler.begin_round();
        while let Some(next) = self.scheduler.next() {
            if self.running.len() == self.workers {
                self.scheduler.pass_over(next, Blocked::NoWorker);
                continue;
            }
            let handler = next.handler;
            let (charged, real) = (self.typical[handler], run_times[handler]);
            self.scheduler.start(next, RunCharge::expected(charged)).expect("a task");
            self.running.push(Reverse((self.now + real, handler, charged, real)));
            self.had[handler] += real;
            started.push(handler);
        }
        started
    }

    /// The next task ends.
    fn end_one(&mut self) {
        let Some(Reverse((at, handler, charged, real))) = self.running.pop() else { return };
        self.now = at;
        self.typical[handler] = real;
        self.scheduler.ended(flow(handler, 0), task(0), RunCharge::expected(charged), real);
    }

    /// So many ends, the workers being filled after each, and tasks that wait of all these handlers.
    fn run(&mut self, ends: usize, run_times: &[Duration], handlers: &[HandlerKey]) -> Vec<HandlerKey> {
        let mut started = Vec::new();
        for _ in 0..ends {
            for handler in handlers {
                let few = self.scheduler.waiting(flow(*handler, 0)) < self.workers;
                self.add(*handler, if few { self.workers } else { 0 });
            }
            started.extend(self.fill(run_times));
            self.end_one();
        }
        started
    }
}

#[test]
fn a_handler_whose_task_comes_into_a_flood_is_served_next() {
    for workers in [1, 2, 4, 16] {
        let mut bench = Bench::new(workers, &[1, 1]);
        let times = [MS * 10, MS * 10];
        bench.run(50 * workers, &times, &[0]);
        bench.add(1, 1);
        let started = bench.run(2, &times, &[0]);
        assert!(started[..2].contains(&1), "{workers} workers: {started:?}");
    }
}

#[test]
fn run_time_is_shared_by_weight_whatever_tasks_take() {
    for workers in [1, 2, 4, 7] {
        for (weights, run_times) in [
            ([3, 1], [MS * 10, MS * 10]),
            ([3, 1], [MS * 10, MS]),
            ([3, 1], [MS, MS * 10]),
            ([1, 1], [MS * 2, MS * 50]),
            ([100, 1], [MS, MS]),
        ] {
            let mut bench = Bench::new(workers, &weights);
            bench.run(40_000, &run_times, &[0, 1]);
            let share = bench.had[0].as_secs_f64() / bench.had[1].as_secs_f64();
            let expected = f64::from(weights[0]) / f64::from(weights[1]);
            let error = (share / expected - 1.0).abs();
            assert!(error < 0.05, "{workers} workers, {weights:?}, {run_times:?}: {share:.2} : 1");
        }
    }
}

#[test]
fn a_handler_that_was_idle_saves_no_credit_and_pays_for_nothing_that_it_had_alone() {
    let times = [MS * 10, MS * 10];
    for (what, ends) in [("little", 3), ("much", 1000)] {
        let mut bench = Bench::new(2, &[1, 1]);
        bench.run(ends, &times, &[0]);
        let started = bench.run(40, &times, &[0, 1]);
        let others = started.iter().filter(|handler| **handler == 1).count();
        assert!((19..=22).contains(&others), "{what} alone: {others} of {}", started.len());
    }
}

#[test]
fn a_handler_that_was_limited_and_waits_for_a_worker_does_not_fall_behind() {
    let mut bench = Bench::new(1, &[1, 1]);
    bench.add(0, 10);
    bench.add(1, 10);
    bench.scheduler.begin_round();
    // Its host starts, and the other one's is there.
    let first = bench.scheduler.next().expect("a flow");
    bench.scheduler.pass_over(first, Blocked::Itself);
    let other = bench.scheduler.next().expect("the other");
    let charge = RunCharge::expected(MS * 500);
    bench.scheduler.start(other, charge);
    bench.scheduler.pass_over(other, Blocked::NoWorker);
    bench.scheduler.begin_round();
    while let Some(next) = bench.scheduler.next() {
        bench.scheduler.pass_over(next, Blocked::NoWorker);
    }
    bench.scheduler.ended(other, task(0), charge, MS * 500);
    let started = bench.run(20, &[MS * 10; 2], &[]);
    assert_eq!(started[..10], [first.handler; 10], "until it has had as much");
}

#[test]
fn a_handler_at_its_own_limit_does_not_fall_behind() {
    let mut bench = Bench::new(1, &[1, 1, 1]);
    let times = [MS; 3];
    bench.add(0, 10);
    for _ in 0..100 {
        bench.add(1, 1);
        bench.scheduler.begin_round();
        let limited = bench.scheduler.next().expect("a flow");
        if limited.handler == 0 {
            bench.scheduler.pass_over(limited, Blocked::Itself);
        }
        let served = bench.scheduler.next().expect("the other");
        assert_eq!(served.handler, 1);
        bench.scheduler.start(served, RunCharge::expected(MS));
        bench.scheduler.ended(served, task(0), RunCharge::expected(MS), MS);
    }
    // Neither it nor one that begins now is before the one that worked.
    bench.add(2, 10);
    let started = bench.run(12, &times, &[0, 1, 2]);
    for handler in 0..3 {
        let count = started[..9].iter().filter(|started| **started == handler).count();
        assert!((2..=4).contains(&count), "{handler}: {started:?}");
    }
}

#[test]
fn a_reload_changes_nobodys_turn() {
    let mut bench = Bench::new(2, &[1, 1]);
    let times = [MS * 5, MS * 3];
    bench.run(31, &times, &[0, 1]);
    let mut reloaded = bench.scheduler.clone();
    for handler in 0..2 {
        let entries = reloaded.remove_all_of(handler);
        reloaded.set_weight(handler, 1);
        for entry in entries {
            reloaded.add(flow(handler, 0), 2, task(entry));
        }
        assert_eq!(reloaded.pool(flow(handler, 0)), Some(2));
    }
    let order = |scheduler: &Scheduler| scheduler.flows_of(0).collect::<Vec<_>>();
    assert_eq!(order(&reloaded), order(&bench.scheduler));
}

#[test]
fn tasks_are_queued_in_a_busy_worker_only_while_nobody_waits_much_longer() {
    let mut scheduler = Scheduler::default();
    (0..1000).for_each(|entry| scheduler.add(flow(0, 0), 1, task(entry)));
    let mut queued = |others: usize| {
        (0..others).for_each(|entry| scheduler.add(flow(1, 0), 2, task(entry)));
        let mut queued = 0;
        scheduler.begin_round();
        while let Some(next) = scheduler.next() {
            if next.handler == 0 && queued < 200 && scheduler.may_queue(next) {
                scheduler.start(next, RunCharge::expected(MS / 20));
                queued += 1;
            } else {
                scheduler.pass_over(next, Blocked::NoWorker);
            }
        }
        let (charge, ran) = (RunCharge::expected(MS / 20), MS / 20);
        (0..queued).for_each(|_| scheduler.ended(flow(0, 0), task(0), charge, ran));
        queued
    };
    assert_eq!(queued(0), 200, "alone");
    let beside = queued(1);
    assert!((1..=22).contains(&beside), "a millisecond of them: {beside}");
    assert!(queued(1) <= 1, "and no more of them later");
}

#[test]
fn a_handler_at_its_limit_serves_its_queues_in_turn() {
    let mut scheduler = Scheduler::default();
    for queue in 0..3 {
        (0..3).for_each(|entry| scheduler.add(flow(0, queue), 1, task(entry)));
    }
    let mut served = Vec::new();
    for _ in 0..9 {
        served.push(run_next(&mut scheduler, MS).queue);
    }
    assert_eq!(served, [1, 2, 0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn a_handler_at_its_limit_serves_its_queues_in_turn_beside_another_handler() {
    let mut scheduler = Scheduler::default();
    for queue in 0..2 {
        (0..20).for_each(|entry| scheduler.add(flow(0, queue), 1, task(entry)));
    }
    (0..40).for_each(|entry| scheduler.add(flow(1, 1), 2, task(entry)));
    let mut served = Vec::new();
    for _ in 0..10 {
        // One task of the first handler at a time, and one of the other one after it.
        let (mut runs, mut has_other) = (None, false);
        scheduler.begin_round();
        while let Some(next) = scheduler.next() {
            match next.handler {
                0 if runs.is_none() => runs = Some(next),
                1 if runs.is_some() && !has_other => has_other = true,
                _ => {
                    scheduler.pass_over(next, Blocked::Itself);
                    continue;
                }
            }
            scheduler.start(next, RunCharge::expected(MS));
        }
        if has_other {
            scheduler.ended(flow(1, 1), task(0), RunCharge::expected(MS), MS);
        }
        let first = runs.expect("a task of the first handler");
        scheduler.ended(first, task(0), RunCharge::expected(MS), MS);
        served.push(first.queue);
    }
    let of_first = served.iter().filter(|queue| **queue == 0).count();
    assert!((4..=6).contains(&of_first), "{served:?}");
}

#[test]
fn what_is_taken_out_in_any_way_waits_no_more() {
    let mut scheduler = Scheduler::default();
    for entry in 1..7 {
        scheduler.add(flow(1, (entry + 1) % 2), 1, task(entry));
    }
    scheduler.add(flow(1, 0), 1, ScheduledTask { order: 0, ..task(9) });
    assert_eq!((scheduler.first(flow(1, 0)), scheduler.waiting_for(1)), (Some(9), 7));
    scheduler.remove(flow(1, 0), task(3));
    assert_eq!(scheduler.remove_newest(flow(1, 1)), Some(6));
    assert_eq!(scheduler.remove_first(flow(1, 0)), Some(9));
    assert_eq!(scheduler.remove_all_of(1), [1, 2, 4, 5]);
    let is_empty = |scheduler: &mut Scheduler| {
        scheduler.begin_round();
        (scheduler.next(), scheduler.waiting_for(1)) == (None, 0)
    };
    assert!(is_empty(&mut scheduler));
    scheduler.add(flow(1, 0), 1, task(9));
    scheduler.remove(flow(1, 0), task(9));
    assert!(is_empty(&mut scheduler));
    scheduler.add(flow(1, 0), 1, task(9));
    scheduler.forget(1);
    assert!(is_empty(&mut scheduler));
}
