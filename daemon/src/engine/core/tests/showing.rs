//! What is shown: readiness, the line for the service manager, the last errors.

use std::time::Duration;

use super::bed::{Bed, QUEUE, Step};
use super::{RUNNING, SECOND};
use crate::broker::{ConsumerId, LinkEvent};
use crate::model::status::{BrokerState, QueueState};

fn consuming(consumer: u32) -> LinkEvent {
    LinkEvent::Consuming { consumer: ConsumerId(consumer), queue: QUEUE.into(), window: 4 }
}

fn lost(consumer: u32) -> LinkEvent {
    LinkEvent::Lost { consumer: ConsumerId(consumer), why: "reset".to_owned() }
}

fn connected() -> LinkEvent {
    LinkEvent::Connected { address: "b".to_owned(), server: "RabbitMQ".to_owned() }
}

#[test]
fn the_engine_is_ready_while_every_queue_is_consumed_and_something_can_be_published() {
    let why = |text: &str| text.to_owned();
    let table: [(&str, LinkEvent, bool, &str); 11] = [
        ("it begins", connected(), false, "not consuming (connecting)"),
        ("it consumes", consuming(1), true, "consuming: 0 running, 0 waiting"),
        (
            "the publishing connection is lost",
            LinkEvent::NotPublishing { why: why("refused") },
            false,
            "consuming, but nothing can be published (refused)",
        ),
        ("it is there again", connected(), true, "consuming: 0"),
        ("an alarm", LinkEvent::Blocked(true), true, "retries and dead letters wait (the broker blocks"),
        ("its end", LinkEvent::Blocked(false), true, "consuming: 0"),
        ("the consumer is lost", lost(1), false, "not consuming (reset)"),
        (
            "its messages end the connection",
            LinkEvent::Quarantined { queue: QUEUE.into(), why: why("a bad header"), wait: SECOND * 60 },
            false,
            "what it delivers ends the connection (a bad header)",
        ),
        ("it is consumed again", consuming(2), true, "consuming: 0"),
        ("it is lost again", lost(2), false, "not consuming"),
        ("the broker is away", LinkEvent::Away { why: why("no route") }, false, "not consuming (no route)"),
    ];
    let mut bed = Bed::new();
    for (what, event, ready, line) in table {
        let shown = bed.shown_after(event);
        assert_eq!(shown.ready, ready, "{what}: {shown:?}");
        assert!(shown.line.contains(line), "{what}: {shown:?}");
        assert_eq!(shown.unready.is_empty(), ready, "{what}: {shown:?}");
    }
}

#[test]
fn what_the_link_complains_of_is_among_the_last_errors() {
    let why = || "it says why".to_owned();
    let queue = || QUEUE.into();
    let complaints = [
        LinkEvent::Unusable { queue: queue(), why: why() },
        LinkEvent::Quarantined { queue: queue(), why: why(), wait: Duration::from_secs(60) },
        LinkEvent::NotPublishing { why: why() },
        LinkEvent::NotTaken { queue: QUEUE.to_owned(), why: why() },
        LinkEvent::Away { why: why() },
        LinkEvent::Vanished { queue: QUEUE.to_owned() },
    ];
    for complaint in complaints {
        let mut bed = Bed::new();
        let text =
            if matches!(complaint, LinkEvent::Vanished { .. }) { "was deleted" } else { "it says why" };
        let name = format!("{complaint:?}");
        bed.shown_after(complaint);
        let status = bed.core.status(bed.now().instant, &|_| None);
        let [error] = &status.last_errors[..] else { panic!("{name}: {:?}", status.last_errors) };
        assert!(error.message.contains(text), "{name}: {}", error.message);
    }
}

#[test]
fn a_quarantined_queue_is_shown_as_that() {
    let mut bed = Bed::new();
    bed.expect("running", RUNNING);
    bed.shown_after(lost(1));
    bed.shown_after(LinkEvent::Quarantined { queue: QUEUE.into(), why: "bad".to_owned(), wait: SECOND });
    let status = bed.core.status(bed.now().instant, &|_| None);
    assert_eq!(status.queues[0].state, QueueState::Quarantined);
    assert_eq!(status.broker.state, BrokerState::Connected);
}

#[test]
fn a_reload_subscribes_anew_where_broker_or_queues_have_changed_and_not_otherwise() {
    let mut bed = Bed::new();
    bed.expect("running", RUNNING);
    assert_eq!(bed.reconfigure(|_| ()), Vec::<String>::new());
    assert_eq!(bed.reconfigure(|config| config.queues[0].prefetch = 7), ["consume 1"]);
    assert_eq!(bed.reconfigure(|config| config.broker.heartbeat += SECOND), ["consume 1"]);
    assert_eq!(bed.reconfigure(|config| config.daemon.max_task_bytes += 1), Vec::<String>::new());
}

#[test]
fn a_paused_queue_is_shown_as_that() {
    let mut bed = Bed::new();
    bed.expect("running", RUNNING);
    let state = |bed: &Bed| bed.core.status(bed.now().instant, &|_| None).queues[0].state;
    assert_eq!(state(&bed), QueueState::Consuming);
    bed.play(Step::PauseQueue(true));
    assert_eq!(state(&bed), QueueState::Paused);
    bed.play(Step::PauseQueue(false));
    assert_ne!(state(&bed), QueueState::Paused);
}
