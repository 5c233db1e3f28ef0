//! The state machine's transitions, as tables.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn queue(name: &str, window: u16) -> Queue {
    Queue { workers: window, ..Queue::new(name) }
}

fn subscribe(name: &str, window: u16) -> SessionAction {
    SessionAction::Subscribe(queue(name, window))
}

fn consuming(name: &str, id: u32) -> SessionEvent {
    SessionEvent::Consuming(name.into(), ConsumerId(id))
}

fn ended(id: u32, end: End) -> SessionEvent {
    SessionEvent::Ended { id: ConsumerId(id), end, connected: true }
}

fn away(why: &str) -> SessionAction {
    SessionAction::Away(why.to_owned())
}

/// Gives the events in turn, all at one time, and compares what each asks for.
fn play(
    machine: &mut SessionMachine,
    now: Duration,
    table: impl IntoIterator<Item = (SessionEvent, Vec<SessionAction>)>,
) {
    for (event, expected) in table {
        let what = format!("{event:?}");
        assert_eq!(machine.on(event, now), expected, "{what} on {machine:#?}");
    }
}

/// A machine that consumes queues with these windows by the consumers 1, 2 and so on.
fn consumes(queues: &[(&str, u16)]) -> SessionMachine {
    let wanted: Vec<_> = queues.iter().map(|(name, window)| queue(name, *window)).collect();
    let mut machine = SessionMachine::new(1, &wanted);
    machine.on(SessionEvent::Time, Duration::ZERO);
    machine.on(SessionEvent::Dialled, Duration::ZERO);
    for (n, (name, _)) in (1..).zip(queues) {
        assert_eq!(machine.on(consuming(name, n), Duration::ZERO), []);
    }
    machine
}

#[test]
fn from_the_start_to_consuming_and_through_a_loss() {
    let mut machine = SessionMachine::new(1, &[queue("a", 1), queue("b", 4)]);
    let reset = || "reset".to_owned();
    play(
        &mut machine,
        Duration::ZERO,
        [
            (SessionEvent::Time, vec![SessionAction::Dial(0)]),
            (SessionEvent::Time, vec![]),
            (SessionEvent::Dialled, vec![subscribe("a", 1), subscribe("b", 4)]),
            (consuming("b", 1), vec![]),
            (consuming("a", 2), vec![]),
            (SessionEvent::Time, vec![]),
        ],
    );
    play(
        &mut machine,
        60 * SECOND,
        [
            (SessionEvent::Lost(Loss::plain(reset())), vec![SessionAction::HangUp(reset()), away("reset")]),
            (SessionEvent::Lost(Loss::plain(reset())), vec![]),
        ],
    );
    play(
        &mut machine,
        61 * SECOND,
        [
            (SessionEvent::Time, vec![SessionAction::Dial(0)]),
            (SessionEvent::Dialled, vec![subscribe("a", 1), subscribe("b", 4)]),
            (ended(1, End::Cancelled), vec![]), // of the old connection
        ],
    );
}

#[test]
fn addresses_are_tried_in_turn_and_waited_for_after_the_last_one() {
    let mut machine = SessionMachine::new(2, &[]);
    let failed = |why: &str| SessionEvent::DialFailed(why.to_owned());
    play(
        &mut machine,
        Duration::ZERO,
        [
            (SessionEvent::Time, vec![SessionAction::Dial(0)]),
            (failed("one"), vec![away("one"), SessionAction::Dial(1)]),
            (failed("two"), vec![away("two")]),
        ],
    );
    assert!(machine.wake(Duration::ZERO) <= SECOND, "the first wait is short");
    play(&mut machine, SECOND, [(SessionEvent::Time, vec![SessionAction::Dial(0)])]);
}

#[test]
fn an_address_that_answers_and_does_not_serve_is_not_the_next_one_again() {
    for (served, next) in [(false, 1), (true, 0)] {
        let mut machine = SessionMachine::new(2, &[queue("a", 1)]);
        machine.on(SessionEvent::Time, Duration::ZERO);
        machine.on(SessionEvent::Dialled, Duration::ZERO);
        if served {
            machine.on(consuming("a", 1), Duration::ZERO);
        }
        machine.on(SessionEvent::Lost(Loss::plain("closed at once")), Duration::ZERO);
        assert_eq!(machine.on(SessionEvent::Time, SECOND), [SessionAction::Dial(next)], "served: {served}");
    }
}

#[test]
fn only_queues_that_changed_are_subscribed_again() {
    let mut machine = consumes(&[("same", 1), ("wider", 1), ("gone", 1)]);
    play(
        &mut machine,
        7 * SECOND,
        [
            (
                SessionEvent::Queues(vec![queue("new", 1), queue("same", 1), queue("wider", 4)]),
                vec![
                    SessionAction::Cancel(ConsumerId(2)),
                    SessionAction::Cancel(ConsumerId(3)),
                    subscribe("new", 1),
                ],
            ),
            (ended(2, End::Cancelled), vec![SessionAction::Stopped(ConsumerId(2)), subscribe("wider", 4)]),
            (ended(3, End::Cancelled), vec![SessionAction::Stopped(ConsumerId(3))]),
        ],
    );
}

#[test]
fn a_queue_that_is_paused_and_resumed_waits_for_the_end_of_its_first_consumer() {
    let mut machine = consumes(&[("a", 1)]);
    play(
        &mut machine,
        SECOND,
        [
            (SessionEvent::Queues(vec![]), vec![SessionAction::Cancel(ConsumerId(1))]),
            (SessionEvent::Queues(vec![queue("a", 1)]), vec![]),
            (ended(1, End::Cancelled), vec![SessionAction::Stopped(ConsumerId(1)), subscribe("a", 1)]),
        ],
    );
}

#[test]
fn a_queue_that_changes_while_the_broker_is_asked_is_cancelled_and_asked_for_again() {
    let mut machine = SessionMachine::new(1, &[queue("a", 1)]);
    play(
        &mut machine,
        Duration::ZERO,
        [
            (SessionEvent::Time, vec![SessionAction::Dial(0)]),
            (SessionEvent::Dialled, vec![subscribe("a", 1)]),
            (SessionEvent::Queues(vec![queue("a", 2)]), vec![]),
            (consuming("a", 1), vec![SessionAction::Cancel(ConsumerId(1))]),
            (ended(1, End::Cancelled), vec![SessionAction::Stopped(ConsumerId(1)), subscribe("a", 2)]),
        ],
    );
}

#[test]
fn an_unusable_queue_is_tried_again_later_or_at_once_when_its_configuration_changed() {
    let why = || "no permission".to_owned();
    let unusable = || SessionEvent::Unusable("a".into(), why());
    let told = || SessionAction::Unusable("a".into(), why());
    let mut machine = SessionMachine::new(1, &[queue("a", 1), queue("b", 1)]);
    machine.on(SessionEvent::Time, Duration::ZERO);
    machine.on(SessionEvent::Dialled, Duration::ZERO);
    play(
        &mut machine,
        Duration::ZERO,
        [
            (unusable(), vec![told()]),
            (consuming("b", 1), vec![]),
            (SessionEvent::Queues(vec![queue("a", 1), queue("b", 1)]), vec![]),
        ],
    );
    let wake = machine.wake(Duration::ZERO);
    assert!(wake <= SECOND);
    play(
        &mut machine,
        wake,
        [
            (SessionEvent::Time, vec![subscribe("a", 1)]),
            (unusable(), vec![told()]),
            (SessionEvent::Queues(vec![queue("a", 2), queue("b", 1)]), vec![subscribe("a", 2)]),
            // Not wanted any more: nobody is to hear of it.
            (SessionEvent::Queues(vec![queue("b", 1)]), vec![]),
            (unusable(), vec![]),
        ],
    );
}

#[test]
fn the_end_of_a_consumer_voids_it_alone_and_the_end_of_the_connection_all() {
    let why = || "404".to_owned();
    let mut machine = consumes(&[("a", 1), ("b", 1)]);
    play(
        &mut machine,
        20 * SECOND,
        [
            (ended(1, End::Channel(why())), vec![SessionAction::Void(ConsumerId(1), why())]),
            (ended(1, End::Cancelled), vec![]),
        ],
    );
    play(&mut machine, 21 * SECOND, [(SessionEvent::Time, vec![subscribe("a", 1)])]);
    play(
        &mut machine,
        22 * SECOND,
        [(ended(2, End::Connection(Loss::plain(why()))), vec![SessionAction::HangUp(why()), away("404")])],
    );
}

#[test]
fn a_stop_ends_when_the_last_consumer_has_and_the_session_when_all_is_settled() {
    let mut machine = consumes(&[("a", 1)]);
    play(
        &mut machine,
        SECOND,
        [
            (SessionEvent::Stop, vec![SessionAction::Cancel(ConsumerId(1))]),
            (SessionEvent::Queues(vec![queue("late", 1)]), vec![]),
            (ended(1, End::Cancelled), vec![SessionAction::Stopped(ConsumerId(1)), SessionAction::NoneLeft]),
            (SessionEvent::Settled(ConsumerId(1)), vec![SessionAction::Release(ConsumerId(1))]),
            (SessionEvent::Settled(ConsumerId(1)), vec![]),
            (SessionEvent::Released(ConsumerId(1)), vec![SessionAction::End]),
            (SessionEvent::Time, vec![]),
        ],
    );
}

#[test]
fn a_stop_while_the_broker_is_asked_waits_for_the_answer() {
    let mut machine = SessionMachine::new(1, &[queue("a", 1), queue("b", 1)]);
    play(
        &mut machine,
        Duration::ZERO,
        [
            (SessionEvent::Time, vec![SessionAction::Dial(0)]),
            (SessionEvent::Dialled, vec![subscribe("a", 1), subscribe("b", 1)]),
            (SessionEvent::Stop, vec![]),
            (SessionEvent::Unusable("a".into(), "refused".to_owned()), vec![]),
            (consuming("b", 1), vec![SessionAction::Cancel(ConsumerId(1))]),
            // Its channel broke instead.
            (
                ended(1, End::Channel("406".to_owned())),
                vec![
                    SessionAction::Void(ConsumerId(1), "406".to_owned()),
                    SessionAction::NoneLeft,
                    SessionAction::End,
                ],
            ),
        ],
    );
}

#[test]
fn without_a_connection_every_request_to_end_is_answered_at_once() {
    for event in [SessionEvent::Stop, SessionEvent::Retire, SessionEvent::Close] {
        let expected = if event == SessionEvent::Stop {
            vec![SessionAction::NoneLeft, SessionAction::End]
        } else {
            vec![SessionAction::End]
        };
        let fresh = || SessionMachine::new(1, &[queue("a", 1)]);
        let mut dialling = fresh();
        dialling.on(SessionEvent::Time, Duration::ZERO);
        let mut waiting = consumes(&[("a", 1)]);
        waiting.on(SessionEvent::Lost(Loss::plain("reset")), Duration::ZERO);
        for mut machine in [fresh(), dialling, waiting] {
            play(
                &mut machine,
                Duration::ZERO,
                [(event.clone(), expected.clone()), (SessionEvent::Dialled, vec![])],
            );
        }
    }
}

#[test]
fn a_loss_while_it_leaves_is_the_end() {
    let mut machine = consumes(&[("a", 1), ("b", 1)]);
    machine.on(SessionEvent::Stop, SECOND);
    machine.on(ended(1, End::Cancelled), SECOND);
    play(
        &mut machine,
        SECOND,
        [(
            SessionEvent::Lost(Loss::plain("reset")),
            vec![SessionAction::HangUp("reset".to_owned()), SessionAction::NoneLeft, SessionAction::End],
        )],
    );
}

#[test]
fn the_channel_of_a_stopped_consumer_may_break_before_it_is_settled() {
    let mut machine = consumes(&[("a", 1)]);
    let timeout = || "delivery acknowledgement timed out".to_owned();
    play(
        &mut machine,
        SECOND,
        [
            (SessionEvent::Queues(vec![]), vec![SessionAction::Cancel(ConsumerId(1))]),
            (ended(1, End::Cancelled), vec![SessionAction::Stopped(ConsumerId(1))]),
            (ended(1, End::Channel(timeout())), vec![SessionAction::Void(ConsumerId(1), timeout())]),
            (SessionEvent::Settled(ConsumerId(1)), vec![]),
        ],
    );
    assert_eq!(machine.kept().count(), 0);
}

#[test]
fn many_queues_are_asked_for_a_few_at_a_time_without_spinning() {
    let queues: Vec<_> = (0..100).map(|n| queue(&format!("q{n}"), 1)).collect();
    let mut machine = SessionMachine::new(1, &queues);
    machine.on(SessionEvent::Time, Duration::ZERO);
    let mut asked = machine.on(SessionEvent::Dialled, Duration::ZERO);
    assert_eq!(asked.len(), MAX_ASKED);
    assert_eq!(machine.wake(Duration::ZERO), CAP, "an answer comes first");
    let mut live = 0;
    while let Some(SessionAction::Subscribe(queue)) = asked.pop() {
        live += 1;
        asked.extend(machine.on(consuming(&queue.name, live), Duration::ZERO));
        assert!(asked.len() <= MAX_ASKED);
    }
    assert_eq!(live, 100);
}
