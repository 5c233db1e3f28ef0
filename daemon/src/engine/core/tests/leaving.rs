//! What goes: hosts that are too large, pools that are replaced, subscriptions that end.

use crate::broker::{ConsumerId, LinkEvent};
use crate::config::Limits;
use crate::host::HostStage;
use crate::model::Outcome::Done;

use super::bed::{Bed, HANDLER, QUEUE, Step, limits};
use super::{RUNNING, SECOND};
use Step::{After, Consuming, Deliver, Dies, Ends, Ready, Replace};

fn queue() -> crate::config::Queue {
    crate::config::Queue { prefetch: 4, workers: 2, ..crate::config::Queue::new(QUEUE) }
}

#[test]
fn a_host_ends_when_it_has_more_memory_than_it_may_have() {
    let table = [
        (0, 1 << 40, &["ack 1"][..]),
        (100, 99, &["ack 1"]),
        (100, 100, &["ack 1"]),
        (100, 101, &["quit 1", "ack 1"]),
    ];
    for (max_rss, rss, expected) in table {
        let mut bed = Bed::with(Limits { max_rss, ..limits() }, queue());
        bed.expect("running", RUNNING);
        assert_eq!(bed.ends_with_rss(1, 1, rss), *expected, "{rss} of {max_rss}");
    }
}

#[test]
fn a_replaced_generation_is_forgotten_when_its_last_task_and_host_are_gone() {
    let mut bed = Bed::new();
    bed.expect("running", RUNNING);
    let has = |bed: &Bed, generation| bed.core.pools.get(generation).is_some();
    bed.expect("replaced", &[(Replace, &[])]);
    bed.expect("it runs on", &[(After(SECOND), &[])]);
    assert!(has(&bed, 1) && has(&bed, 2));
    bed.expect("it is done", &[(Ends(1, 1, Done), &["quit 1", "ack 1"])]);
    bed.expect("its host is gone", &[(Dies(1, HostStage::Quitting, 1), &[]), (After(SECOND), &[])]);
    assert!(!has(&bed, 1) && has(&bed, 2));
    // The handler is the same: what it has counted stands.
    let handler = bed.core.handlers.named(HANDLER).expect("the handler");
    assert_eq!(bed.core.handlers[handler].counts.done, 1);
    for n in 0..3 {
        bed.play(Replace);
        bed.play(After(SECOND));
        assert_eq!(bed.core.pools.iter().count(), 2, "two handlers, {n}");
    }
}

#[test]
fn the_end_of_an_earlier_subscription_is_not_the_end_of_the_present_one() {
    let mut bed = Bed::new();
    bed.expect("running", RUNNING);
    bed.expect("it subscribes anew", &[(Consuming(2), &[])]);
    let lost = |consumer| LinkEvent::Lost { consumer: ConsumerId(consumer), why: "reset".to_owned() };
    let shown = bed.shown_after(lost(1));
    assert!(shown.ready, "{shown:?}");
    let shown = bed.shown_after(lost(2));
    assert!(!shown.ready, "{shown:?}");
    assert_eq!(shown.unready, format!("queue `{QUEUE}` is not consumed"));
    bed.expect("and is there again", &[(Consuming(3), &[]), (Deliver(9, "z"), &["start 2 of 1"])]);
    bed.expect("its task runs", &[(Ready(2), &["send 2/1 z as 1"])]);
}
