//! Workers are shared between handlers.

use crate::config::Queue;
use crate::model::Outcome::Done;

use super::RUNNING;
use super::bed::{Bed, QUEUE, Step, limits};
use Step::{Deliver, DeliverOther, Ends, Ready, Replace};

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
            (Ends(2, 1, Done), &["ack 4", "send 1/2 b as 1"]),
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
