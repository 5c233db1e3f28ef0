//! Outcomes, lost links and copies that the broker rejects.

use std::time::Duration;

use crate::config::Queue;
use crate::engine::core::Event;
use crate::host::HostStage;
use crate::model::status::{Counts, QueueState};
use crate::model::{FaultCause, Outcome};

use super::bed::{Bed, QUEUE, Step, limits};
use super::{History, RUNNING, SECOND, counts, play};
use Outcome::{Done, Fault, Reject, Retry};
use Step::{
    After, Again, Confirmed, Consuming, Deliver, DeliverAsked, Dies, Ends, Fails, FollowUpFailed, Lost,
    Publishes, Ready, Refused, Remembered, Seen, Unacceptable,
};

#[test]
fn an_outcome_is_carried_out_and_the_original_acknowledged_only_when_the_broker_has_its_copy() {
    let one = Counts { delivered: 1, ..Counts::default() };
    let table: [(&str, Counts, &History); 7] = [
        ("done", Counts { done: 1, ..one }, &[(Ends(1, 1, Done), &["ack 1"])]),
        (
            "retry",
            Counts { retried: 1, ..one },
            &[
                (Fails(1, 1, Retry, "busy"), &["copy a in 4s as 2, cut short 0 for busy"]),
                (Confirmed("a"), &["ack 1"]),
            ],
        ),
        (
            "a copy that is refused is not acknowledged",
            Counts { retried: 1, ..one },
            &[
                (Fails(1, 1, Retry, "busy"), &["copy a in 4s as 2, cut short 0 for busy"]),
                (Refused("a"), &[]),
                (Refused("a"), &[]),
                (Confirmed("a"), &["ack 1"]),
            ],
        ),
        (
            "a copy that is never taken becomes a dead letter",
            Counts { dead: 1, ..one },
            &[
                (Fails(1, 1, Retry, "busy"), &["copy a in 4s as 2, cut short 0 for busy"]),
                (Unacceptable("a"), &["dead a refused for refused"]),
                (Confirmed("a"), &["ack 1"]),
            ],
        ),
        (
            "reject",
            Counts { dead: 1, ..one },
            &[(Fails(1, 1, Reject, "bad"), &["dead a rejected for bad"]), (Confirmed("a"), &["ack 1"])],
        ),
        (
            "a fault that the handler returned: its host is not used again",
            Counts { retried: 1, faults: 1, ..one },
            &[
                (
                    Fails(1, 1, Fault(FaultCause::Returned), "panic"),
                    &["quit 1", "copy a in 4s as 2, cut short 0 for panic"],
                ),
                (Confirmed("a"), &["ack 1"]),
                (Dies(1, HostStage::Quitting, 1), &[]),
            ],
        ),
        (
            "the host dies under it",
            Counts { retried: 1, faults: 1, ..one },
            &[
                (Dies(1, HostStage::Running, 1), &["copy a in 4s as 2, cut short 0 for crash"]),
                (Confirmed("a"), &["ack 1"]),
            ],
        ),
    ];
    for (what, expected, history) in table {
        let bed = play(what, history);
        assert_eq!(counts(&bed), expected, "{what}");
    }
}

#[test]
fn what_is_published_of_a_task_is_counted_when_it_is_confirmed() {
    let one = Counts { delivered: 1, ..Counts::default() };
    let table: [(&str, Counts, &History); 4] = [
        (
            "follow-ups",
            Counts { done: 1, ..one },
            &[(Publishes(1, 1), &["follow-ups a 1"]), (Confirmed("a"), &["ack 1"])],
        ),
        (
            "a follow-up that is refused fails the task",
            Counts { retried: 1, ..one },
            &[
                (Publishes(1, 1), &["follow-ups a 1"]),
                (FollowUpFailed("a"), &["copy a in 4s as 2, cut short 0 for publish-failed"]),
                (Confirmed("a"), &["ack 1"]),
            ],
        ),
        (
            "a second word of the same publication is ignored",
            Counts { retried: 1, ..one },
            &[
                (Fails(1, 1, Retry, "busy"), &["copy a in 4s as 2, cut short 0 for busy"]),
                (Lost, &[]),
                (Confirmed("a"), &[]),
                (Confirmed("a"), &[]),
            ],
        ),
        (
            "nothing is counted before it is so",
            one,
            &[(Publishes(1, 1), &["follow-ups a 1"]), (Refused("a"), &[]), (Seen, &[])],
        ),
    ];
    for (what, expected, history) in table {
        let bed = play(what, history);
        assert_eq!(counts(&bed), expected, "{what}");
    }
}

#[test]
fn a_sender_that_waits_gets_its_reply_before_the_acknowledgement() {
    let mut bed = Bed::new();
    bed.expect(
        "reply",
        &[
            (Consuming(1), &[]),
            (DeliverAsked(1, "a"), &["start 1 of 1"]),
            (Ready(1), &["send 1/1 a as 1"]),
            (Ends(1, 1, Done), &["follow-ups a 0"]),
            (Confirmed("a"), &["ack 1"]),
        ],
    );
}

#[test]
fn a_duplicate_does_not_wait_for_a_run_that_failed_and_has_no_tag() {
    let queue = Queue { prefetch: 2, deduplicate: SECOND * 60, ..Queue::new(QUEUE) };
    Bed::with(limits(), queue).expect(
        "its redelivery is behind a window of duplicates",
        &[
            (Remembered, &[]),
            (Consuming(1), &[]),
            (Deliver(1, "a"), &["start 1 of 1"]),
            (Ready(1), &["send 1/1 a as 1"]),
            (Lost, &[]),
            (Consuming(2), &[]),
            (Deliver(2, "a"), &[]),
            (Deliver(3, "a"), &[]),
            (Fails(1, 1, Retry, "busy"), &["send 1/2 a as 1"]),
            (Ends(1, 2, Done), &["remember", "forget", "ack 2", "ack 3"]),
            (Again(4, "a"), &["copy a in 4s as 2, cut short 0 for busy"]),
            (Confirmed("a"), &["ack 4"]),
        ],
    );
}

#[test]
fn what_runs_when_its_link_is_lost_is_reattached_and_what_waits_is_forgotten() {
    let table: [(&str, &History); 8] = [
        (
            "it runs on",
            &[(Lost, &[]), (Consuming(2), &[]), (Again(1, "a"), &[]), (Ends(1, 1, Done), &["ack 1"])],
        ),
        (
            "it ends in between",
            &[(Lost, &[]), (Ends(1, 1, Done), &[]), (Consuming(2), &[]), (Again(7, "a"), &["ack 7"])],
        ),
        (
            "it fails in between: the copy is published when there is a tag for it",
            &[
                (Lost, &[]),
                (Fails(1, 1, Retry, "busy"), &[]),
                (Consuming(2), &[]),
                (Again(7, "a"), &["copy a in 4s as 2, cut short 0 for busy"]),
                (Confirmed("a"), &["ack 7"]),
            ],
        ),
        (
            "its copy is confirmed in between: it only needs the acknowledgement",
            &[
                (Fails(1, 1, Retry, "busy"), &["copy a in 4s as 2, cut short 0 for busy"]),
                (Lost, &[]),
                (Confirmed("a"), &[]),
                (Consuming(2), &[]),
                (Again(7, "a"), &["ack 7"]),
            ],
        ),
        (
            "its copy is never taken, and the link is lost in between: the dead letter waits for a tag as well",
            &[
                (Fails(1, 1, Retry, "busy"), &["copy a in 4s as 2, cut short 0 for busy"]),
                (Lost, &[]),
                (Unacceptable("a"), &[]),
                (Consuming(2), &[]),
                (Again(7, "a"), &["dead a refused for refused"]),
                (Confirmed("a"), &["ack 7"]),
            ],
        ),
        (
            "its acknowledgement is lost with the link",
            &[(Ends(1, 1, Done), &["ack 1"]), (Lost, &[]), (Consuming(2), &[]), (Again(7, "a"), &["ack 7"])],
        ),
        (
            "another message is another task, whatever its tag",
            &[
                (Lost, &[]),
                (Consuming(2), &[]),
                (Again(1, "b"), &["start 2 of 1"]),
                (Ends(1, 1, Done), &["send 1/2 b as 1"]),
                (Again(2, "a"), &["ack 2"]),
            ],
        ),
        (
            "it was waiting: the redelivery runs, and is not counted as cut short",
            &[
                (Deliver(2, "b"), &["start 2 of 1"]),
                (Lost, &[]),
                (Consuming(2), &[]),
                (Again(1, "b"), &[]),
                (Ready(2), &["send 2/1 b as 1"]),
            ],
        ),
    ];
    for (what, history) in table {
        play(what, history);
    }
}

#[test]
fn a_redelivery_that_nothing_explains_is_counted_before_it_starts() {
    let mut bed = Bed::new();
    bed.expect(
        "recount",
        &[
            (Consuming(1), &[]),
            (Again(1, "a"), &["start 1 of 1"]),
            (Ready(1), &["copy a in 0ns as 1, cut short 1"]),
            (Confirmed("a"), &["ack 1"]),
        ],
    );
    assert_eq!(counts(&bed), Counts { delivered: 1, ..Counts::default() });
}

#[test]
fn what_waited_when_its_link_was_lost_is_not_counted_as_cut_short_although_nothing_else_excuses_it() {
    let mut bed = Bed::with(limits(), Queue { prefetch: 1, workers: 2, ..Queue::new(QUEUE) });
    bed.expect("running", RUNNING);
    bed.expect(
        "the window was full, so that nothing was on its way",
        &[
            (Deliver(2, "b"), &["start 2 of 1"]),
            (Lost, &[]),
            (Consuming(2), &[]),
            (Again(1, "b"), &[]),
            (Ready(2), &["send 2/1 b as 1"]),
        ],
    );
}

#[test]
fn a_queue_is_stuck_when_all_that_it_may_hold_cannot_be_settled() {
    let mut bed = Bed::with(limits(), Queue { prefetch: 1, workers: 1, ..Queue::new(QUEUE) });
    bed.expect("running", RUNNING);
    bed.expect(
        "stuck",
        &[
            (Fails(1, 1, Retry, "busy"), &["copy a in 4s as 2, cut short 0 for busy"]),
            (Refused("a"), &[]),
            (After(10 * SECOND), &[]),
        ],
    );
    let state = |bed: &Bed| bed.core.status(bed.now().instant, &|_| None).queues.remove(0);
    let stuck = state(&bed);
    assert_eq!(stuck.state, QueueState::Stuck);
    assert_eq!(stuck.unsettled.map(|stuck| (stuck.tasks, stuck.why)), Some((1, "full".to_owned())));
    bed.expect("settled", &[(Confirmed("a"), &["ack 1"]), (After(SECOND), &[])]);
    assert_eq!(state(&bed).state, QueueState::Consuming);
}

#[test]
fn a_duplicate_does_not_wait_for_the_redelivery_of_a_task_that_has_ended() {
    let deduplicating = || {
        let queue = Queue { deduplicate: Duration::from_secs(3600), ..Queue::new(QUEUE) };
        let mut bed = Bed::with(limits(), queue);
        let loaded = Event::DedupLoaded { queue: QUEUE.into(), found: Vec::new() };
        let now = bed.now();
        bed.core.on(loaded, now, &mut Vec::new());
        bed.expect("running", RUNNING);
        bed
    };
    let mut bed = deduplicating();
    bed.expect(
        "its copy comes before its redelivery",
        &[
            (Fails(1, 1, Retry, "busy"), &["copy a in 4s as 2, cut short 0 for busy"]),
            (Lost, &[]),
            (Confirmed("a"), &[]),
            (Consuming(2), &[]),
            (Deliver(1, "a"), &["send 1/2 a as 1"]),
        ],
    );
    let mut bed = deduplicating();
    bed.expect("a duplicate comes before it", &[(Lost, &[]), (Consuming(2), &[]), (Deliver(1, "a"), &[])]);
    let told = bed.play(Ends(1, 1, Done));
    assert_eq!(told.last().map(String::as_str), Some("ack 1"), "{told:?}");
}
