//! Run times that are not as expected.

use super::*;

#[test]
fn an_expectation_that_was_too_long_holds_nobody_up() {
    for (others, workers) in [(1, 1), (1, 2), (2, 2), (2, 5)] {
        let mut bench = Bench::new(workers, &[1, 1, 1]);
        let others: Vec<_> = (0..others).collect();
        bench.typical = [Duration::from_secs(60); 3];
        bench.run(20 * workers, &[MS; 3], &others);
        bench.add(2, 100);
        let started = bench.run(30, &[MS; 3], &others);
        let first = started.iter().position(|handler| *handler == 2);
        assert!(first.is_some_and(|first| first < 2), "{others:?}, {workers} workers: {started:?}");
        let count = started.iter().filter(|handler| **handler == 2).count();
        let even = started.len() / (others.len() + 1);
        assert!(count.abs_diff(even) <= workers + 1, "{count} of {}: {started:?}", started.len());
    }
}

#[test]
fn a_handler_with_a_long_task_and_nothing_that_waits_saves_no_credit() {
    let mut scheduler = Scheduler::default();
    let (mut long, second) = (RunCharge::expected(MS), Duration::from_secs(1));
    scheduler.add(flow(0, 0), 1, task(0));
    scheduler.begin_round();
    let next = scheduler.next().expect("the long task");
    scheduler.start(next, long);
    let mut turn = |scheduler: &mut Scheduler, ran: u32| {
        scheduler.begin_round();
        let next = scheduler.next().expect("a task");
        scheduler.start(next, RunCharge::expected(second));
        // The long task runs beside them, for a tenth of their time.
        let is = long.running(second / 10 * ran);
        scheduler.correct(flow(0, 0), None, std::mem::replace(&mut long, is), is);
        scheduler.ended(next, task(0), RunCharge::expected(second), second);
        next.handler
    };
    (0..200).for_each(|entry| scheduler.add(flow(1, 0), 2, task(entry)));
    for n in 1..=100 {
        assert_eq!(turn(&mut scheduler, n), 1);
    }
    (0..100).for_each(|entry| scheduler.add(flow(0, 0), 1, task(entry)));
    let first = (101..=120).filter(|n| turn(&mut scheduler, *n) == 0).count();
    assert!((9..=11).contains(&first), "{first} of 20");
}

#[test]
fn a_weight_that_changes_while_tasks_run_leaves_nothing_outstanding() {
    let mut scheduler = Scheduler::default();
    (0..8).for_each(|entry| scheduler.add(flow(0, 0), 1, task(entry)));
    let charge = RunCharge::expected(MS * 500);
    for _ in 0..4 {
        scheduler.begin_round();
        let next = scheduler.next().expect("a task");
        scheduler.start(next, charge);
    }
    scheduler.set_weight(0, 7);
    let half = charge.running(MS * 200).running(MS * 250);
    scheduler.correct(flow(0, 0), None, charge, half);
    scheduler.ended(flow(0, 0), task(0), half, MS * 500);
    (0..2).for_each(|_| scheduler.ended(flow(0, 0), task(0), charge, MS));
    let start = scheduler.queues[0].shares.position_of(0).start;
    assert!((143_000_000..144_000_000).contains(&start), "502 ms and one task of 500: {start} ns");
    scheduler.ended(flow(0, 0), task(0), charge, MS);
    let start = scheduler.queues[0].shares.position_of(0).start;
    assert!((71_800_000..71_900_000).contains(&start), "503 ms at weight 7: {start} ns");
}

#[test]
fn an_expectation_that_was_too_long_saves_no_credit() {
    let mut scheduler = Scheduler::default();
    let (mut long, second) = (RunCharge::expected(MS * 600_000), Duration::from_secs(1));
    scheduler.add(flow(0, 0), 1, task(0));
    scheduler.begin_round();
    let next = scheduler.next().expect("a flow");
    scheduler.start(next, long);
    (0..400).for_each(|entry| scheduler.add(flow(1, 0), 2, task(entry)));
    let one = |scheduler: &mut Scheduler| run_next(scheduler, second).handler;
    (0..100).for_each(|_| assert_eq!(one(&mut scheduler), 1));
    (0..100).for_each(|entry| scheduler.add(flow(0, 0), 1, task(entry)));
    let is = long.running(second * 10);
    scheduler.correct(flow(0, 0), None, std::mem::replace(&mut long, is), is);
    scheduler.ended(flow(0, 0), task(0), long, second * 10);
    let first = (0..40).filter(|_| one(&mut scheduler) == 0).count();
    assert!((19..=21).contains(&first), "{first} of 40");
}

#[test]
fn what_was_had_while_nobody_waited_is_held_against_nobody() {
    let mut scheduler = Scheduler::default();
    let minute = Duration::from_secs(60);
    // Nobody waits: there are workers enough.
    let mut run = |handler, minutes| {
        scheduler.add(flow(handler, 0), 1, task(0));
        scheduler.begin_round();
        let next = scheduler.next().expect("a task");
        scheduler.start(next, RunCharge::expected(MS));
        move |scheduler: &mut Scheduler| {
            scheduler.ended(flow(handler, 0), task(0), RunCharge::expected(MS), minute * minutes);
        }
    };
    let ends = [run(0, 80), run(1, 20)];
    for end in ends {
        end(&mut scheduler);
    }
    (0..40).for_each(|entry| scheduler.add(flow(2, 0), 1, task(entry)));
    scheduler.add(flow(0, 0), 1, task(0));
    let mut started = Vec::new();
    for _ in 0..3 {
        started.push(run_next(&mut scheduler, minute).handler);
    }
    assert!(started[..2].contains(&0), "{started:?}");
}

#[test]
fn a_run_time_that_was_not_foreseen_is_paid_for() {
    let mut bench = Bench::new(1, &[1, 1]);
    bench.run(20, &[MS, MS], &[0, 1]);
    let long = bench.run(2, &[MS * 100, MS], &[0, 1]);
    assert!(long.contains(&0), "{long:?}");
    let started = bench.run(80, &[MS, MS], &[0, 1]);
    let others = started.iter().filter(|handler| **handler == 1).count();
    assert!(others >= 79, "{others} of 80 until the long task is made up for");
}
