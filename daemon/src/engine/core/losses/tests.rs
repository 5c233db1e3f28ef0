//! What redeliveries are, as tables.

use lapin::BasicProperties;

use super::*;
use crate::model::UnixMs;
use Redelivery::{Ended, Explained, Unexplained};

const ONE: ConsumerId = ConsumerId(1);

fn delivery(id: &str) -> Delivery {
    let mut properties = BasicProperties::default();
    if !id.is_empty() {
        properties = properties.with_message_id(id.into());
    }
    Delivery {
        consumer: ONE,
        tag: 1,
        redelivered: false,
        received: UnixMs(0),
        note: None,
        properties,
        body: b"Backup database".to_vec(),
    }
}

/// What happens to the one queue of a daemon.
#[derive(Debug)]
enum Step {
    /// A subscription begins, with this window.
    Consuming(u16),
    /// Ended, and acknowledged.
    Done(&'static str),
    /// Went back for want of room.
    Withheld,
    /// Waited as the link was lost, or was given back.
    Waited(&'static str),
    /// The broker has seen all acknowledgements so far.
    Seen,
    /// The subscription is lost with so many deliveries in hand.
    Lost(usize),
    /// Its queue was consumed so long since.
    Consumed(Duration),
    /// A redelivery, and what it is.
    Again(&'static str, Redelivery),
}

use Step::{Again, Consumed, Consuming, Done, Lost, Seen, Waited, Withheld};

/// What is lived through, by what it shows.
const HISTORIES: [(&str, &[Step]); 13] = [
    ("a fresh process", &[Consuming(4), Again("a", Unexplained)]),
    ("it ended", &[Consuming(4), Done("a"), Lost(0), Consuming(4), Again("a", Ended)]),
    (
        "it ended, and comes once more",
        &[Consuming(1), Done("a"), Lost(1), Again("a", Ended), Again("a", Unexplained)],
    ),
    (
        "its acknowledgement was seen, so that it is another one",
        &[Consuming(1), Done("a"), Seen, Lost(1), Again("a", Unexplained)],
    ),
    (
        "more ended than can be in doubt",
        &[
            Consuming(2),
            Done("a"),
            Done("b"),
            Done("c"),
            Lost(2),
            Again("a", Unexplained),
            Again("c", Ended),
            Again("b", Ended),
        ],
    ),
    ("it waited", &[Consuming(1), Waited("a"), Lost(1), Again("a", Explained), Again("a", Unexplained)]),
    (
        "it was given back twice",
        &[Waited("a"), Again("a", Explained), Waited("a"), Again("a", Explained), Again("a", Unexplained)],
    ),
    (
        "three that are equal were given back",
        &[
            Waited(""),
            Waited(""),
            Waited(""),
            Again("", Explained),
            Again("", Explained),
            Again("", Explained),
            Again("", Unexplained),
        ],
    ),
    (
        "of two that are equal one ended and one waited: one run is owed",
        &[
            Consuming(2),
            Done("a"),
            Waited("a"),
            Lost(2),
            Again("a", Explained),
            Again("a", Ended),
            Again("a", Unexplained),
        ],
    ),
    (
        "without an id it is not remembered, but excused",
        &[Consuming(1), Done(""), Lost(0), Again("", Explained), Again("", Unexplained)],
    ),
    (
        "there was no room for its body",
        &[Consuming(2), Withheld, Again("a", Explained), Again("a", Unexplained)],
    ),
    (
        "on its way as the link was lost: a window's worth, less what was in hand",
        &[Consuming(4), Lost(2), Again("a", Explained), Again("b", Explained), Again("c", Unexplained)],
    ),
    (
        "it did not come for long, so that another consumer took it",
        &[Consuming(1), Done("a"), Lost(1), Consumed(REDELIVERED_WITHIN), Again("a", Unexplained)],
    ),
];

#[test]
fn a_redelivery_counts_only_if_nothing_that_the_daemon_lived_through_explains_it() {
    for (what, steps) in HISTORIES {
        play(what, steps);
    }
}

fn play(what: &str, steps: &[Step]) {
    let (mut losses, mut now, mut consumed) = (Losses::default(), Instant::now(), Duration::ZERO);
    for (n, step) in steps.iter().enumerate() {
        now += Duration::from_millis(1);
        match step {
            Step::Consuming(window) => losses.consuming(ONE, 0, *window),
            Step::Done(id) => losses.ended(ONE, &delivery(id), now),
            Step::Waited(id) => losses.unstarted(0, &delivery(id)),
            Step::Withheld => losses.withheld(ONE),
            Step::Seen => losses.seen(ONE, now),
            Step::Lost(in_hand) => losses.lost(ONE, *in_hand, |_| consumed),
            Step::Consumed(time) => {
                consumed += *time;
                losses.expire(|_| consumed);
            }
            Step::Again(id, expected) => {
                assert_eq!(losses.explain(0, &delivery(id)), *expected, "{what}, step {n}: {step:?}");
            }
        }
    }
}

#[test]
fn the_same_message_in_another_queue_is_another_one() {
    let mut losses = Losses::default();
    losses.consuming(ONE, 0, 1);
    losses.ended(ONE, &delivery("a"), Instant::now());
    losses.unstarted(0, &delivery("b"));
    losses.lost(ONE, 1, |_| Duration::ZERO);
    assert_eq!(losses.explain(1, &delivery("a")), Unexplained);
    assert_eq!(losses.explain(1, &delivery("b")), Unexplained);
    assert_eq!(losses.explain(0, &delivery("a")), Ended);
    assert_eq!(losses.explain(0, &delivery("b")), Explained);
}

#[test]
fn nothing_grows_without_a_bound_and_the_oldest_is_forgotten_first() {
    let mut losses = Losses::default();
    for n in 0..=BOUND {
        losses.unstarted(0, &delivery(&n.to_string()));
    }
    assert_eq!(losses.explain(0, &delivery("0")), Unexplained);
    assert_eq!(losses.explain(0, &delivery("1")), Explained);
    let unstarted = &losses.queues[&0].unstarted;
    assert!(unstarted.order.len() == BOUND && unstarted.counts.len() == BOUND);
    for _ in 0..2 * BOUND {
        losses.unstarted(0, &delivery("twice"));
        assert_eq!(losses.explain(0, &delivery("twice")), Explained);
    }
    let unstarted = &losses.queues[&0].unstarted;
    assert!(unstarted.order.len() == BOUND && unstarted.counts.len() == 1, "{:?}", unstarted.counts);
}
