//! Workers, time limits, and what operators ask for.

use std::time::Duration;

use crate::config::{Limits, Queue};
use crate::host::HostStage;
use crate::model::Outcome;
use crate::model::status::HandlerState;

use super::bed::{Bed, QUEUE, Step, limits};
use super::{RUNNING, SECOND, counts, play};
use Outcome::{Cancelled, Done, Retry};
use Step::{
    After, Cancel, Confirmed, ConsumersStopped, Consuming, Deliver, Dies, Drain, Ends, Fails, PauseHandler,
    PauseQueue, Publishes, Ready, Replace, Stopped, Withdrawn,
};

#[test]
fn a_tasks_time_limit_is_enforced_by_a_cancel_and_then_by_a_kill() {
    play(
        "it stops when asked",
        &[
            (After(9 * SECOND), &[]),
            (After(SECOND), &["cancel 1/1"]),
            (Fails(1, 1, Cancelled, "late"), &["copy a in 4s as 2, cut short 0 for timeout"]),
        ],
    );
    play(
        "it does not",
        &[
            (After(10 * SECOND), &["cancel 1/1"]),
            (After(SECOND), &["kill 1"]),
            (After(SECOND), &[]),
            (Dies(1, HostStage::Running, 1), &["copy a in 4s as 2, cut short 0 for timeout"]),
        ],
    );
}

#[test]
fn a_cancelled_task_is_a_dead_letter_whether_it_runs_or_waits() {
    play(
        "it runs",
        &[
            (Cancel("a"), &["cancel 1/1"]),
            (Ends(1, 1, Cancelled), &["dead a cancelled for no-error-given"]),
            (Confirmed("a"), &["ack 1"]),
        ],
    );
    play(
        "it waits",
        &[
            (Deliver(2, "b"), &["start 2 of 1"]),
            (Cancel("b"), &["dead b cancelled for cancelled"]),
            (Confirmed("b"), &["ack 2"]),
            (Ready(2), &[]),
        ],
    );
    play("it was done: that stands", &[(Cancel("a"), &["cancel 1/1"]), (Ends(1, 1, Done), &["ack 1"])]);
}

#[test]
fn a_drain_finishes_what_runs_and_gives_back_the_rest() {
    play(
        "in good order",
        &[
            (Deliver(2, "b"), &["start 2 of 1"]),
            (Drain, &["stop consuming", "requeue 2"]),
            (Deliver(3, "c"), &["requeue 3"]),
            (Ends(1, 1, Done), &["ack 1"]),
            (ConsumersStopped, &["quit 1", "quit 2"]),
            (Dies(1, HostStage::Quitting, 1), &[]),
            (Dies(2, HostStage::Quitting, 0), &["drained"]),
        ],
    );
    play(
        "a second signal stops what runs",
        &[
            (Drain, &["stop consuming"]),
            (ConsumersStopped, &[]),
            (Drain, &[]),
            (After(SECOND), &["cancel 1/1"]),
            (Ends(1, 1, Cancelled), &["requeue 1", "quit 1"]),
            (Dies(1, HostStage::Quitting, 1), &["drained"]),
        ],
    );
    play(
        "a copy on its way is waited for within a bound",
        &[
            (Fails(1, 1, Retry, "busy"), &["copy a in 4s as 2, cut short 0 for busy"]),
            (Drain, &["stop consuming"]),
            (ConsumersStopped, &[]),
            (After(9 * SECOND), &[]),
            (After(SECOND), &["quit 1"]),
            (Dies(1, HostStage::Quitting, 1), &["drained"]),
        ],
    );
    play(
        "what an operator changes meanwhile does not make it consume again",
        &[
            (PauseQueue(true), &["consume 0"]),
            (Drain, &["stop consuming"]),
            (PauseQueue(false), &[]),
            (ConsumersStopped, &[]),
            (Deliver(2, "b"), &["requeue 2"]),
        ],
    );
    play(
        "the drain's own time limit ends it whatever is left",
        &[
            (Publishes(1, 1), &["follow-ups a 1"]),
            (Drain, &["stop consuming"]),
            (ConsumersStopped, &[]),
            (After(35 * SECOND), &[]),
            (After(SECOND), &["drained"]),
        ],
    );
}

#[test]
fn hosts_that_end_with_a_task_in_front_are_charged_to_it_the_third_time() {
    play(
        "before it started",
        &[
            (Dies(1, HostStage::Reading, 0), &[]),
            (After(SECOND), &["start 2 of 1"]),
            (Ready(2), &["send 2/1 a as 1"]),
            (Dies(2, HostStage::Reading, 0), &[]),
            (After(SECOND), &["start 3 of 1"]),
            (Ready(3), &["send 3/1 a as 1"]),
            (Dies(3, HostStage::Reading, 0), &["copy a in 4s as 2, cut short 0 for crash"]),
        ],
    );
}

/// Whether a handler was suspended at any time while three tasks one after another came to this end on it.
fn is_suspended_by(end: impl Fn(u64, u64) -> Step) -> bool {
    let mut bed = Bed::new();
    bed.play(Consuming(1));
    let mut suspended = false;
    for (tag, id) in (1..).zip(["v", "w", "x"]) {
        let mut wanted = bed.play(Deliver(tag, id));
        while let Some(action) = wanted.pop() {
            let numbers: Vec<u64> = action.split([' ', '/']).filter_map(|word| word.parse().ok()).collect();
            match (action.split(' ').next(), numbers.as_slice()) {
                (Some("start"), [host, _]) => wanted.extend(bed.play(Ready(*host))),
                (Some("send"), [host, seq, _]) => wanted.extend(bed.play(end(*host, *seq))),
                _ => {}
            }
        }
        let state = bed.core.status(bed.now().instant, &|_| None).handlers[0].state;
        suspended |= state == HandlerState::Suspended;
    }
    assert_eq!(counts(&bed).delivered, 3);
    suspended
}

#[test]
fn hosts_that_die_of_three_tasks_in_a_row_suspend_the_handler_and_its_error_codes_never_do() {
    assert!(is_suspended_by(|host, seq| Dies(host, HostStage::Running, seq)));
    for code in ["crash", "timeout", "cpu_time"] {
        assert!(
            !is_suspended_by(|host, seq| Fails(host, seq, Retry, code)),
            "a healthy handler that says {code}"
        );
    }
}

#[test]
fn a_paused_handlers_tasks_are_parked_and_a_paused_queues_given_back() {
    play(
        "handler",
        &[
            (Deliver(2, "b"), &["start 2 of 1"]),
            (PauseHandler(true), &["copy b in 30s as 1, cut short 0"]),
            (Deliver(3, "c"), &["copy c in 30s as 1, cut short 0"]),
            (Confirmed("b"), &["ack 2"]),
            (Confirmed("c"), &["ack 3"]),
            (Ends(1, 1, Done), &["ack 1"]),
            (PauseHandler(false), &[]),
            (Deliver(4, "d"), &["send 1/2 d as 1"]),
        ],
    );
    play(
        "queue",
        &[
            (Deliver(2, "b"), &["start 2 of 1"]),
            (PauseQueue(true), &["consume 0"]),
            (Ready(2), &[]),
            (Stopped, &["requeue 2"]),
            (Ends(1, 1, Done), &["ack 1"]),
            (PauseQueue(false), &["consume 1"]),
        ],
    );
}

#[test]
fn a_task_ends_on_the_generation_it_started_on_and_what_waits_moves_to_the_new_one() {
    play(
        "replaced",
        &[
            (Deliver(2, "b"), &["start 2 of 1"]),
            (Replace, &["start 3 of 2"]),
            (Ready(3), &["send 3/1 b as 1"]),
            (Ends(1, 1, Done), &["quit 1", "ack 1"]),
            (Ends(3, 1, Done), &["ack 2"]),
        ],
    );
}

#[test]
fn what_waits_behind_a_long_task_is_asked_back_and_runs_elsewhere() {
    let mut bed = Bed::with(limits(), Queue { prefetch: 8, workers: 1, ..Queue::new(QUEUE) });
    bed.expect("running", RUNNING);
    bed.expect(
        "short tasks are queued behind each other",
        &[
            (Ends(1, 1, Done), &["ack 1"]),
            (Deliver(2, "b"), &["send 1/2 b as 1"]),
            (Deliver(3, "c"), &["send 1/3 c as 1"]),
            (After(Duration::from_millis(20)), &["recall 1/3"]),
            (Withdrawn(1, 3), &[]),
            (Ends(1, 2, Done), &["ack 2", "send 1/4 c as 1"]),
        ],
    );
}

#[test]
fn a_task_that_was_cancelled_behind_another_is_not_run_when_their_host_dies() {
    let mut bed = Bed::with(limits(), Queue { prefetch: 8, workers: 1, ..Queue::new(QUEUE) });
    bed.expect("running", RUNNING);
    bed.expect(
        "cancelled in the queue of its host",
        &[
            (Ends(1, 1, Done), &["ack 1"]),
            (Deliver(2, "b"), &["send 1/2 b as 1"]),
            (Deliver(3, "c"), &["send 1/3 c as 1"]),
            (Cancel("c"), &["cancel 1/3"]),
            (
                Dies(1, HostStage::Running, 2),
                &["dead c cancelled for no-error-given", "copy b in 4s as 2, cut short 0 for crash"],
            ),
        ],
    );
}

#[test]
fn never_more_workers_are_busy_than_queue_and_handler_allow() {
    for (of_handler, expected) in [(None, 2), (Some(1), 1)] {
        let limits = Limits { workers: of_handler, ..limits() };
        let mut bed = Bed::with(limits, Queue { prefetch: 4, workers: 2, ..Queue::new(QUEUE) });
        bed.play(Consuming(1));
        let mut sent = 0;
        for tag in 1..=6 {
            let id = ["a", "b", "c", "d", "e", "f"][tag as usize - 1];
            let started = bed.play(Deliver(tag, id));
            for action in started.iter().filter_map(|action| action.strip_prefix("start ")) {
                let host = action.split(' ').next().and_then(|host| host.parse().ok()).expect("a number");
                sent += bed.play(Ready(host)).len();
            }
        }
        assert_eq!(sent, expected, "{of_handler:?}");
    }
}

#[test]
fn an_idle_host_ends_after_its_time() {
    play("idle", &[(Ends(1, 1, Done), &["ack 1"]), (After(59 * SECOND), &[]), (After(SECOND), &["quit 1"])]);
}
