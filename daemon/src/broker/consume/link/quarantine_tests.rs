//! The machine against a broker some of whose queues hold what ends the connection.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::tests::queue;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// What a queue does to the connection that consumes it, each time that it is subscribed to.
#[derive(Debug, Clone, Copy)]
enum Queued {
    /// Nothing.
    Good,
    /// Ends it.
    Bad,
    /// Ends it with this chance in a hundred, so long after.
    Flaky(u8, Duration),
}

/// A broker, and a machine that consumes its queues.
struct Play {
    machine: SessionMachine,
    queues: Vec<Queued>,
    now: Duration,
    /// Consumed, and when that ends the connection.
    live: Vec<(Arc<str>, Option<Duration>)>,
    next: u32,
    losses: usize,
    quarantined: Vec<(Arc<str>, Duration)>,
    random: fastrand::Rng,
    /// Cannot be consumed.
    unusable: Option<Arc<str>>,
}

impl Play {
    fn new(queues: &[Queued]) -> Self {
        let wanted: Vec<_> = (0..queues.len()).map(|n| queue(&n.to_string(), 4)).collect();
        Self {
            machine: SessionMachine::new(1, &wanted),
            queues: queues.to_vec(),
            now: Duration::ZERO,
            live: Vec::new(),
            next: 1,
            losses: 0,
            quarantined: Vec::new(),
            random: fastrand::Rng::with_seed(7),
            unusable: None,
        }
    }

    fn give(&mut self, event: SessionEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.machine.on(event, self.now) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: SessionAction) -> Option<SessionEvent> {
        match action {
            SessionAction::Dial(_) => Some(SessionEvent::Dialled),
            SessionAction::HangUp(_) => {
                self.live.clear();
                None
            }
            SessionAction::Subscribe(queue) if self.unusable.as_ref() == Some(&queue.name) => {
                Some(SessionEvent::Unusable(queue.name, "refused".to_owned()))
            }
            SessionAction::Subscribe(queue) => {
                let id = ConsumerId(self.next);
                self.next += 1;
                let kind = self.queues[queue.name.parse::<usize>().expect("a number")];
                let ends = match kind {
                    Queued::Good => None,
                    Queued::Bad => Some(self.now),
                    Queued::Flaky(chance, after) => {
                        (self.random.u8(0..100) < chance).then(|| self.now + after)
                    }
                };
                self.live.push((queue.name.clone(), ends));
                Some(SessionEvent::Consuming(queue.name, id))
            }
            SessionAction::Quarantine(name, _, wait) => {
                self.quarantined.push((name, wait));
                None
            }
            SessionAction::Away(_) | SessionAction::Unusable(..) => None,
            other => panic!("{other:?}"),
        }
    }

    /// Plays until then.
    fn until(&mut self, end: Duration) {
        self.give(SessionEvent::Time);
        loop {
            let lost = self.live.iter().filter_map(|(_, ends)| *ends).min();
            if lost.is_some_and(|at| at <= self.now) {
                self.losses += 1;
                self.give(SessionEvent::Lost(Loss { why: "no AMQP".to_owned(), by_content: true }));
                continue;
            }
            let next = self.machine.wake(self.now).min(lost.unwrap_or(Duration::MAX));
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            self.give(SessionEvent::Time);
        }
    }

    fn consumed(&self) -> BTreeSet<usize> {
        self.live.iter().map(|(name, _)| name.parse().expect("a number")).collect()
    }

    fn quarantined_queues(&self) -> BTreeSet<usize> {
        self.quarantined.iter().map(|(name, _)| name.parse().expect("a number")).collect()
    }

    fn which(&self, wanted: impl Fn(&Queued) -> bool) -> BTreeSet<usize> {
        (0..self.queues.len()).filter(|n| wanted(&self.queues[*n])).collect()
    }
}

#[test]
fn a_queue_that_ends_the_connection_is_found_within_seconds_and_the_others_go_on() {
    use Queued::{Bad, Good};
    let table: [&[Queued]; 6] = [
        &[Bad],
        &[Good, Bad],
        &[Bad, Good],
        &[Good, Bad, Good, Bad],
        &[Bad, Bad],
        &[Good, Good, Good, Good, Bad],
    ];
    for queues in table {
        let mut play = Play::new(queues);
        play.until(Duration::from_secs(20));
        assert_eq!(play.quarantined_queues(), play.which(|queue| matches!(queue, Bad)), "{queues:?}");
        assert_eq!(play.consumed(), play.which(|queue| matches!(queue, Good)), "{queues:?}");
        let found = play.losses;
        play.until(Duration::from_secs(55));
        assert_eq!(play.losses, found, "{queues:?}: nothing ends the connection any more");
    }
}

#[test]
fn a_quarantine_is_tried_again_for_longer_and_longer_until_the_queue_is_clean() {
    let mut play = Play::new(&[Queued::Good, Queued::Bad]);
    play.until(10 * MINUTE);
    let waits: Vec<u64> = play.quarantined.iter().map(|(_, wait)| wait.as_secs() / 60).collect();
    assert_eq!(waits, [1, 2, 4, 8], "each new trial costs one connection and no new search");
    let losses = play.losses;
    play.queues[1] = Queued::Good;
    play.until(20 * MINUTE);
    assert_eq!((play.consumed().len(), play.losses), (2, losses));
    play.queues[1] = Queued::Bad;
    play.give(SessionEvent::Lost(Loss::plain("reset")));
    play.until(21 * MINUTE);
    assert_eq!(play.quarantined.last().map(|(_, wait)| *wait), Some(MINUTE), "it had been trusted again");
}

#[test]
fn a_quarantine_ends_when_an_operator_asks_and_when_the_queue_s_configuration_changes() {
    let changed = vec![queue("0", 4), queue("1", 5)];
    for event in [SessionEvent::Retry, SessionEvent::Queues(changed)] {
        let mut play = Play::new(&[Queued::Good, Queued::Bad]);
        play.until(Duration::from_secs(20));
        assert_eq!(play.consumed().len(), 1);
        play.queues[1] = Queued::Good;
        play.give(event);
        assert_eq!(play.consumed().len(), 2, "at once");
    }
}

/// While it alone is consumed, to prove what it does, it is paused, or turns out to be unusable.
#[test]
fn a_trial_ends_with_its_queue_and_the_others_are_consumed_again() {
    let alone = || {
        let mut play = Play::new(&[Queued::Good, Queued::Bad]);
        while !play.machine.probation.alone {
            play.until(play.now + Duration::from_millis(1));
        }
        play
    };
    let mut paused = alone();
    paused.give(SessionEvent::Queues(vec![queue("0", 4)]));
    paused.until(paused.now + Duration::from_secs(5));
    assert_eq!(paused.consumed(), BTreeSet::from([0]));
    let mut unusable = alone();
    unusable.unusable = Some("1".into());
    unusable.until(unusable.now + Duration::from_secs(5));
    assert_eq!(unusable.consumed(), BTreeSet::from([0]));
    assert_eq!((paused.quarantined.len(), unusable.quarantined.len()), (0, 0));
}

#[test]
fn a_lost_network_and_a_broker_that_restarts_are_no_reason_to_suspect_anybody() {
    let mut play = Play::new(&[Queued::Good; 3]);
    play.until(Duration::from_secs(1));
    for second in 2..100 {
        play.give(SessionEvent::Lost(Loss::plain("reset")));
        play.until(Duration::from_secs(second));
        assert_eq!(play.consumed().len(), 3, "all at once again");
    }
    assert_eq!(play.quarantined, []);
}

#[test]
fn two_losses_may_be_chance() {
    let mut play = Play::new(&[Queued::Good; 3]);
    for round in 1..10 {
        for _ in 0..2 {
            play.give(SessionEvent::Lost(Loss { why: "no AMQP".to_owned(), by_content: true }));
            play.until(play.now + Duration::from_secs(1));
        }
        assert_eq!(play.consumed().len(), 3, "round {round}");
        play.until(play.now + 5 * MINUTE);
    }
}

fn queued() -> impl Strategy<Value = Queued> {
    prop_oneof![
        6 => Just(Queued::Good),
        1 => Just(Queued::Bad),
        1 => (10_u8..100, 0_u64..4_000)
            .prop_map(|(chance, after)| Queued::Flaky(chance, Duration::from_millis(after))),
    ]
}

proptest! {
    #[test]
    fn no_innocent_queue_is_ever_quarantined_and_every_culprit_is_found(
        queues in prop::collection::vec(queued(), 1..40),
    ) {
        let mut play = Play::new(&queues);
        play.until(10 * MINUTE);
        let good = play.which(|queue| matches!(queue, Queued::Good));
        prop_assert!(play.quarantined_queues().is_disjoint(&good), "{:?}", play.quarantined);
        prop_assert!(play.quarantined_queues().is_superset(&play.which(|queue| matches!(queue, Queued::Bad))));
    }

    #[test]
    fn the_search_costs_few_connections(bad in prop::collection::vec(prop::bool::weighted(0.1), 1..40)) {
        let queues: Vec<_> = bad.iter().map(|bad| if *bad { Queued::Bad } else { Queued::Good }).collect();
        let mut play = Play::new(&queues);
        play.until(10 * MINUTE);
        let culprits = bad.iter().filter(|bad| **bad).count();
        // Halving 40 takes six losses, a proof one, and ten minutes of quarantine four.
        let allowed = if culprits == 0 { 0 } else { 3 + culprits * (6 + 1 + 4) };
        prop_assert!(play.losses <= allowed, "{} losses for {culprits} culprits", play.losses);
        prop_assert_eq!(play.consumed().len(), queues.len() - culprits);
    }
}
