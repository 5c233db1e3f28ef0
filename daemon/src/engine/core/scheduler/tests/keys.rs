//! `fair_by` and `exclusive_by`.

use super::*;

/// The `order`th task, of this tenant.
fn of_tenant(order: usize, tenant: u64) -> ScheduledTask {
    ScheduledTask { keys: TaskKeys { fair: Some(tenant), exclusive: None }, ..task(order) }
}

fn of_account(order: usize, account: u64) -> ScheduledTask {
    ScheduledTask { keys: TaskKeys { fair: None, exclusive: Some(account) }, ..task(order) }
}

/// Starts the next task, if there is one.
fn start(scheduler: &mut Scheduler, expected: Duration) -> Option<EntryKey> {
    scheduler.begin_round();
    let next = scheduler.next()?;
    scheduler.start(next, RunCharge::expected(expected))
}

#[test]
fn a_tenant_behind_thousands_of_another_has_every_second_start() {
    let mut scheduler = Scheduler::default();
    (0..10_000).for_each(|n| scheduler.add(flow(0, 0), 1, of_tenant(n, 1)));
    (10_000..10_010).for_each(|n| scheduler.add(flow(0, 0), 1, of_tenant(n, 2)));
    let mut started = Vec::new();
    for _ in 0..22 {
        let entry = start(&mut scheduler, MS).expect("a task");
        let tenant = if entry < 10_000 { 1 } else { 2 };
        scheduler.ended(flow(0, 0), of_tenant(entry, tenant), RunCharge::expected(MS), MS);
        started.push(entry);
    }
    let other: Vec<_> = started.iter().filter(|entry| **entry >= 10_000).copied().collect();
    assert_eq!(other, (10_000..10_010).collect::<Vec<_>>(), "{started:?}");
    let own: Vec<_> = started.iter().filter(|entry| **entry < 10_000).copied().collect();
    assert_eq!(own, (0..12).collect::<Vec<_>>(), "in the order of arrival within a key");
}

#[test]
fn keys_share_run_time_and_not_starts() {
    let mut scheduler = Scheduler::default();
    let (mut had, mut expected) = ([Duration::ZERO; 2], [MS; 2]);
    let real = [MS * 9, MS * 3];
    for n in 0..400 {
        scheduler.add(flow(0, 0), 1, of_tenant(n, n as u64 % 2));
    }
    for _ in 0..100 {
        let entry = start(&mut scheduler, expected[0]).expect("a task");
        let tenant = entry % 2;
        scheduler.ended(
            flow(0, 0),
            of_tenant(entry, tenant as u64),
            RunCharge::expected(expected[0]),
            real[tenant],
        );
        expected[0] = real[tenant];
        had[tenant] += real[tenant];
    }
    let share = had[0].as_secs_f64() / had[1].as_secs_f64();
    assert!((0.9..1.1).contains(&share), "{had:?}");
}

#[test]
fn tasks_without_the_header_are_a_key_of_their_own() {
    let mut scheduler = Scheduler::default();
    (0..10).for_each(|n| scheduler.add(flow(0, 0), 1, task(n)));
    (10..20).for_each(|n| scheduler.add(flow(0, 0), 1, of_tenant(n, 7)));
    let started: Vec<_> = (0..6).map(|_| start(&mut scheduler, MS).expect("a task")).collect();
    assert_eq!(started.iter().filter(|entry| **entry < 10).count(), 3, "{started:?}");
    let rest = scheduler.remove_all_of(0);
    assert_eq!(rest.len(), 14);
    assert!(rest.is_sorted());
}

#[test]
fn many_keys_take_no_memory() {
    let mut scheduler = Scheduler::default();
    let remembered = |scheduler: &Scheduler| scheduler.queues[0].lists[0].remembered();
    // One after the other, and nobody else is there.
    for n in 0..10 {
        scheduler.add(flow(0, 0), 1, of_tenant(n, n as u64));
        start(&mut scheduler, MS).expect("a task");
        scheduler.ended(flow(0, 0), of_tenant(n, n as u64), RunCharge::expected(MS), MS);
        assert_eq!(remembered(&scheduler), 0, "it owes nothing");
    }
    // Somebody always waits who had nothing: what the others had counts.
    scheduler.add(flow(0, 0), 1, of_tenant(0, 0));
    let mut most = 0;
    for n in 1..20_000 {
        let entry = start(&mut scheduler, MS).expect("a task");
        scheduler.add(flow(0, 0), 1, of_tenant(n, n as u64));
        scheduler.ended(flow(0, 0), of_tenant(entry, entry as u64), RunCharge::expected(MS), MS);
        most = most.max(remembered(&scheduler));
    }
    assert!((4000..=4096).contains(&most), "{most} keys");
}

#[test]
fn a_key_that_was_idle_saves_nothing() {
    let mut scheduler = Scheduler::default();
    for n in 0..100 {
        scheduler.add(flow(0, 0), 1, of_tenant(n, 1));
        start(&mut scheduler, MS).expect("a task");
        scheduler.ended(flow(0, 0), of_tenant(n, 1), RunCharge::expected(MS), MS);
    }
    (0..10).for_each(|n| scheduler.add(flow(0, 0), 1, of_tenant(n, 1)));
    (10..20).for_each(|n| scheduler.add(flow(0, 0), 1, of_tenant(n, 99_999)));
    let started: Vec<_> = (0..10).map(|_| start(&mut scheduler, MS).expect("a task")).collect();
    let first = started.iter().filter(|entry| **entry < 10).count();
    assert!((4..=6).contains(&first), "{started:?}");
}

#[test]
fn of_keys_that_all_are_new_the_first_comes_first() {
    let mut scheduler = Scheduler::default();
    (0..5).for_each(|n| scheduler.add(flow(0, 0), 1, of_tenant(n, n as u64)));
    for n in 5..200 {
        let entry = start(&mut scheduler, MS).expect("a task");
        assert_eq!(entry, n - 5);
        scheduler.ended(flow(0, 0), of_tenant(entry, entry as u64), RunCharge::expected(MS), MS);
        scheduler.add(flow(0, 0), 1, of_tenant(n, n as u64));
    }
}

#[test]
fn two_tasks_of_one_key_never_run_at_once() {
    let mut scheduler = Scheduler::default();
    for (n, account) in [(0, 5), (1, 5), (2, 6), (3, 5), (4, 6)] {
        scheduler.add(flow(0, n % 2), 1, of_account(n, account));
    }
    assert_eq!(scheduler.waiting_for(0), 5);
    let mut first: Vec<_> = std::iter::from_fn(|| start(&mut scheduler, MS)).collect();
    first.sort_unstable();
    assert_eq!(first, [0, 2], "over both queues");
    assert_eq!((scheduler.waiting_for(0), scheduler.held_in(1)), (3, 2));
    scheduler.ended(flow(0, 0), of_account(0, 5), RunCharge::expected(MS), MS);
    assert_eq!(start(&mut scheduler, MS), Some(1), "in the order of arrival");
    assert_eq!(start(&mut scheduler, MS), None);
    // One that is taken out does not keep the key, and one that is put back waits for it again.
    scheduler.ended(flow(0, 1), of_account(1, 5), RunCharge::expected(MS), MS);
    scheduler.add(flow(0, 1), 1, of_account(1, 5));
    assert_eq!(scheduler.first(flow(0, 1)), Some(3));
    scheduler.remove(flow(0, 1), of_account(3, 5));
    assert_eq!(start(&mut scheduler, MS), Some(1));
    scheduler.ended(flow(0, 1), of_account(1, 5), RunCharge::expected(MS), MS);
    scheduler.ended(flow(0, 0), of_account(2, 6), RunCharge::expected(MS), MS);
    assert_eq!(start(&mut scheduler, MS), Some(4));
    scheduler.ended(flow(0, 0), of_account(4, 6), RunCharge::expected(MS), MS);
    assert!(scheduler.exclusions.is_empty(), "nobody holds a key");
}

#[test]
fn all_that_waits_for_a_handler_is_taken_out_with_what_is_held() {
    let mut scheduler = Scheduler::default();
    (0..4).for_each(|n| scheduler.add(flow(0, 0), 1, of_account(n, 5)));
    assert_eq!(start(&mut scheduler, MS), Some(0));
    assert_eq!(scheduler.newest_held(0).map(|held| held.task.entry), Some(3));
    assert_eq!(scheduler.remove_all_of(0), [1, 2, 3]);
    scheduler.add(flow(0, 0), 2, of_account(4, 5));
    assert_eq!(start(&mut scheduler, MS), None, "the running one keeps its key over a reload");
    scheduler.ended(flow(0, 0), of_account(0, 5), RunCharge::expected(MS), MS);
    assert_eq!(start(&mut scheduler, MS), Some(4));
    scheduler.forget(0);
    assert!(scheduler.exclusions.is_empty());
}
