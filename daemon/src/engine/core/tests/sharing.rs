//! Workers are shared between handlers.

use std::time::Duration;

use crate::config::{Limits, Plugins, Queue, Rate, TaskKey};
use crate::host::HostStage;
use crate::model::Outcome::Done;

use super::bed::{Bed, QUEUE, Step, limits};
use super::{RUNNING, SECOND};
use Step::{After, Deliver, DeliverOther, Dies, Ends, Ready, Replace};

fn one_worker() -> Bed {
    let mut bed = Bed::with(limits(), Queue { prefetch: 8, workers: 1, ..Queue::new(QUEUE) });
    bed.expect("running", RUNNING);
    bed
}

#[test]
fn a_task_of_another_handler_is_next_and_its_host_is_started_while_the_worker_is_busy() {
    one_worker().expect(
        "one worker",
        &[
            (Deliver(2, "b"), &[]),
            (Deliver(3, "c"), &[]),
            (DeliverOther(4, "x"), &["start 2 of 100"]),
            (DeliverOther(5, "y"), &[]),
            (Ready(2), &[]),
            (Ends(1, 1, Done), &["ack 1", "send 2/1 x as 1"]),
            (Deliver(6, "d"), &[]),
            (Ends(2, 1, Done), &["ack 4", "send 1/2 b as 1", "send 1/3 c as 1", "send 1/4 d as 1"]),
            (Ends(1, 2, Done), &["ack 2"]),
            (Ends(1, 3, Done), &["ack 3"]),
            (Ends(1, 4, Done), &["ack 6", "send 2/2 y as 1"]),
        ],
    );
}

#[test]
fn a_worker_that_is_free_is_not_kept_for_a_handler_whose_host_is_starting() {
    one_worker().expect(
        "not ready",
        &[
            (DeliverOther(2, "x"), &["start 2 of 100"]),
            (Deliver(3, "b"), &[]),
            (Ends(1, 1, Done), &["ack 1", "send 1/2 b as 1"]),
            (Ready(2), &[]),
            (Ends(1, 2, Done), &["ack 3", "send 2/1 x as 1"]),
        ],
    );
}

#[test]
fn a_replaced_generation_leaves_its_handlers_turn() {
    one_worker().expect(
        "replaced",
        &[
            (Deliver(2, "b"), &[]),
            (DeliverOther(3, "x"), &["start 2 of 100"]),
            (Ready(2), &[]),
            (Replace, &[]),
            (Ends(1, 1, Done), &["quit 1", "ack 1", "send 2/1 x as 1", "start 3 of 2"]),
        ],
    );
}

#[test]
fn of_too_many_idle_hosts_the_one_that_was_used_least_recently_ends() {
    let plugins = Plugins { max_idle_hosts: 1, ..Plugins::default() };
    let queue = Queue { prefetch: 8, workers: 3, ..Queue::new(QUEUE) };
    let mut bed = Bed::configured(limits(), queue, plugins);
    bed.expect("running", RUNNING);
    bed.expect(
        "one is kept",
        &[
            (DeliverOther(2, "x"), &["start 2 of 100"]),
            (Ready(2), &["send 2/1 x as 1"]),
            (Ends(1, 1, Done), &["ack 1"]),
            (After(SECOND), &[]),
            (Ends(2, 1, Done), &["ack 2", "quit 1"]),
            (Dies(1, HostStage::Quitting, 1), &[]),
            (DeliverOther(3, "y"), &["send 2/2 y as 1"]),
            (Deliver(4, "b"), &["start 3 of 1"]),
            (Ready(3), &["send 3/1 b as 1"]),
        ],
    );
}

#[test]
fn a_rate_lets_a_task_start_when_it_is_due_and_others_go_on() {
    let rate = Rate { tasks: 5, unit: SECOND, burst: 1 };
    let queue = Queue { prefetch: 8, workers: 1, ..Queue::new(QUEUE) };
    let mut bed = Bed::with(Limits { rate: Some(rate), ..limits() }, queue);
    let wait = Duration::from_millis(100);
    bed.expect("running", RUNNING);
    bed.expect(
        "five a second",
        &[
            (Ends(1, 1, Done), &["ack 1"]),
            (Deliver(2, "b"), &[]),
            (Deliver(3, "c"), &[]),
            (After(wait), &[]),
            (Replace, &["quit 1"]),
            (Dies(1, HostStage::Quitting, 1), &[]),
            (After(wait), &["start 2 of 2"]),
            (Ready(2), &["send 2/1 b as 1"]),
            (Ends(2, 1, Done), &["ack 2"]),
            (After(wait), &[]),
            (After(wait), &["send 2/2 c as 1"]),
        ],
    );
}

/// Seven deliveries beside the one that runs, in a window of eight; the second tick later.
const CROWDED: &super::History = &[
    (Deliver(2, "b"), &[]),
    (Deliver(3, "c"), &[]),
    (Deliver(4, "d"), &[]),
    (Deliver(5, "e"), &[]),
    (Deliver(6, "f"), &[]),
    (Deliver(7, "g"), &[]),
    (Deliver(8, "h"), &[]),
    (
        After(SECOND),
        &[
            "copy h in 5s as 1, cut short 0",
            "copy g in 5s as 1, cut short 0",
            "copy f in 5s as 1, cut short 0",
        ],
    ),
    (After(SECOND), &[]),
];

#[test]
fn what_cannot_run_for_its_handlers_limit_leaves_half_of_the_window_to_others() {
    let rate = Rate { tasks: 1, unit: SECOND * 3600, burst: 1 };
    let table = [
        ("workers", Limits { workers: Some(1), ..limits() }),
        ("rate", Limits { rate: Some(rate), ..limits() }),
        ("a key", Limits { exclusive_by: Some(TaskKey::Argument), ..limits() }),
    ];
    for (what, limits) in table {
        let queue = || Queue { prefetch: 4, workers: 2, ..Queue::new(QUEUE) };
        let mut bed = Bed::with(limits.clone(), queue());
        bed.expect(what, RUNNING);
        bed.expect(what, CROWDED);
    }
    // Nobody else could use the window.
    let queue = Queue { prefetch: 8, workers: 1, ..Queue::new(QUEUE) };
    let mut bed = Bed::with(Limits { workers: Some(1), ..limits() }, queue);
    bed.expect("running", RUNNING);
    bed.expect("all of its workers are the queue's", &CROWDED[..7]);
    bed.expect("all of its workers are the queue's", &[(After(SECOND), &[])]);
}
