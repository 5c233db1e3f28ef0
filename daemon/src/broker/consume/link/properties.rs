//! The state machine against a broker and an operator that do anything at any time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::queue;
use super::*;

/// More than are asked for at once.
const QUEUES: usize = MAX_ASKED + 4;
const ADDRESSES: usize = 2;
/// The longest quarantine, and trials of all queues at their longest.
const RECOVERY: Duration = Duration::from_mins(30 + 10);

/// What the world does next. An index chooses among what there is.
#[derive(Debug, Clone)]
enum Step {
    Dialled(bool),
    Answered(prop::sample::Index, bool),
    /// Of a consumer that nobody cancelled, or whose cancel failed; how, and whether the connection still stands.
    Ended(prop::sample::Index, End, bool),
    /// Of any consumer, stopped ones included: the broker was asked for it.
    Forgotten(prop::sample::Index),
    /// Of a consumer that was cancelled.
    Cancelled(prop::sample::Index),
    /// Whether because of what came over it.
    Lost(bool),
    Settled(prop::sample::Index),
    /// Of a stopped consumer: the broker closed its channel.
    Closed(prop::sample::Index),
    Released(prop::sample::Index),
    /// Windows by queue; 0: not wanted.
    Queues(Vec<u16>),
    Stop,
    Retire,
    Close,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let end = prop_oneof![
        Just(End::Cancelled),
        Just(End::Channel("channel".to_owned())),
        Just(End::Connection(Loss::plain("connection"))),
    ];
    prop_oneof![
        60 => any::<bool>().prop_map(Step::Dialled),
        200 => (index(), prop::bool::weighted(0.8)).prop_map(|(at, ok)| Step::Answered(at, ok)),
        40 => (index(), end, any::<bool>()).prop_map(|(at, end, up)| Step::Ended(at, end, up)),
        20 => index().prop_map(Step::Forgotten),
        60 => index().prop_map(Step::Cancelled),
        10 => any::<bool>().prop_map(Step::Lost),
        40 => index().prop_map(Step::Settled),
        10 => index().prop_map(Step::Closed),
        40 => index().prop_map(Step::Released),
        20 => prop::collection::vec(0_u16..3, QUEUES).prop_map(Step::Queues),
        1 => Just(Step::Stop),
        1 => Just(Step::Retire),
        1 => Just(Step::Close),
        60 => (0_u64..5_000).prop_map(Step::Wait),
    ]
}

/// What the broker and the session have in hand.
struct Counterpart {
    machine: SessionMachine,
    now: Duration,
    wanted: BTreeMap<Arc<str>, u16>,
    dialling: bool,
    connected: bool,
    asked: BTreeMap<Arc<str>, u16>,
    /// At the broker, by id: the queue, the window, and whether we cancelled it.
    consumers: BTreeMap<ConsumerId, (Arc<str>, u16, bool)>,
    /// Stopped ones: whether their release was asked for.
    kept: BTreeMap<ConsumerId, bool>,
    leaving: bool,
    stopping: bool,
    closing: bool,
    ended: bool,
    next: u32,
}

impl Counterpart {
    fn new() -> Self {
        let mut world = Self {
            machine: SessionMachine::new(ADDRESSES, &[]),
            now: Duration::ZERO,
            wanted: BTreeMap::new(),
            dialling: false,
            connected: false,
            asked: BTreeMap::new(),
            consumers: BTreeMap::new(),
            kept: BTreeMap::new(),
            leaving: false,
            stopping: false,
            closing: false,
            ended: false,
            next: 1,
        };
        world.give(SessionEvent::Time);
        world
    }

    fn give(&mut self, event: SessionEvent) {
        for action in self.machine.on(event, self.now) {
            self.perform(action);
        }
        self.check();
    }

    fn perform(&mut self, action: SessionAction) {
        assert!(!self.ended, "{action:?} after the end");
        match action {
            SessionAction::Dial(address) => {
                assert!(address < ADDRESSES);
                assert!(!self.connected && !self.dialling && !self.leaving, "dials out of turn");
                self.dialling = true;
            }
            SessionAction::Subscribe(queue) => {
                assert!(self.connected && !self.leaving);
                assert_eq!(
                    self.wanted.get(&queue.name),
                    Some(&queue.window()),
                    "{} is not wanted",
                    queue.name
                );
                assert!(self.consumers.values().all(|(name, ..)| *name != queue.name), "a second consumer");
                assert_eq!(self.asked.insert(queue.name.clone(), queue.window()), None, "asked twice");
                assert!(self.asked.len() <= MAX_ASKED);
            }
            SessionAction::Cancel(id) => {
                let consumer = self.consumers.get_mut(&id).expect("a consumer");
                assert!(!std::mem::replace(&mut consumer.2, true), "cancelled twice");
            }
            SessionAction::Stopped(id) => assert_eq!(self.kept.insert(id, false), None),
            SessionAction::Void(id, _) => {
                assert!(!self.consumers.contains_key(&id), "void and alive");
                self.kept.remove(&id);
            }
            SessionAction::Release(id) => {
                assert_eq!(self.kept.insert(id, true), Some(false), "released out of turn");
            }
            SessionAction::HangUp(_) => {
                assert!(std::mem::replace(&mut self.connected, false));
                self.asked.clear();
                self.consumers.clear();
                self.kept.clear();
            }
            SessionAction::Away(_) => assert!(!self.connected),
            SessionAction::Unusable(name, _) => assert!(self.wanted.contains_key(&name)),
            SessionAction::Quarantine(name, ..) => {
                assert!(!self.connected && self.wanted.contains_key(&name));
            }
            SessionAction::NoneLeft => {
                assert!(std::mem::replace(&mut self.stopping, false), "nobody asked");
                assert!(self.asked.is_empty() && self.consumers.is_empty());
            }
            SessionAction::End => {
                assert!(self.closing || self.leaving, "ends by itself");
                assert!(self.closing || !self.stopping, "whoever asked to stop is left waiting");
                self.ended = true;
                self.asked.clear();
                self.consumers.clear();
                self.kept.clear();
            }
        }
    }

    /// What holds at every instant.
    fn check(&self) {
        if self.ended {
            return;
        }
        let wake = self.machine.wake(self.now);
        assert!(wake > self.now && wake <= self.now + CAP, "a wait without a bound, or none: {wake:?}");
        assert_eq!(self.machine.phase == Phase::Dialling, self.dialling);
        assert_eq!(matches!(self.machine.phase, Phase::Up { .. }), self.connected);
        assert!(!self.leaving || self.connected, "leaves without an end");
        self.check_trust();
        for (name, window) in &self.wanted {
            let entry = self.machine.queues.iter().find(|entry| entry.name == *name).expect("an entry");
            let at_broker = self.consumers.iter().find(|(_, (queue, ..))| queue == name);
            match entry.stage {
                QueueStage::Live(id, _) => {
                    assert_eq!(at_broker, Some((&id, &(name.clone(), *window, false))));
                }
                QueueStage::Leaving(id) => assert!(at_broker.is_some_and(|(at, one)| *at == id && one.2)),
                QueueStage::Asked(_) => assert!(self.asked.contains_key(name)),
                QueueStage::Idle(due) => {
                    assert!(at_broker.is_none());
                    assert!(due <= self.now + CAP, "{name} is due at {due:?}, now is {:?}", self.now);
                    let full = self.asked.len() == MAX_ASKED || !self.machine.admits(entry);
                    assert!(due > self.now || !self.connected || full, "{name} is due and not asked for");
                }
            }
        }
    }

    /// Nobody is a suspect while nothing is tried, and what is not trusted is not consumed.
    fn check_trust(&self) {
        let is = |trust: Trust| self.machine.queues.iter().any(|entry| entry.trust == trust);
        assert!(!is(Trust::Suspect) || is(Trust::Tried), "a suspect is left waiting");
        for entry in &self.machine.queues {
            let kept_back = matches!(entry.trust, Trust::Suspect | Trust::Quarantined(_));
            assert!(!kept_back || matches!(entry.stage, QueueStage::Idle(_)), "{entry:?} is consumed");
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Dialled(ok) if self.dialling => self.dialled(ok),
            Step::Answered(at, ok) if !self.asked.is_empty() => {
                let name = at.get(&self.asked.keys().cloned().collect::<Vec<_>>()).clone();
                self.answered(&name, ok);
            }
            Step::Ended(at, end, up) if !self.consumers.is_empty() => {
                let id = *at.get(&self.consumers.keys().copied().collect::<Vec<_>>());
                let connected = up && !matches!(end, End::Connection(_));
                self.consumers.remove(&id);
                self.give(SessionEvent::Ended { id, end, connected });
            }
            Step::Forgotten(at) if !(self.consumers.is_empty() && self.kept.is_empty()) => {
                let ids: Vec<_> = self.consumers.keys().chain(self.kept.keys()).copied().collect();
                let id = *at.get(&ids);
                // Not of one that leaves: its channel is still wanted.
                if self.consumers.get(&id).is_some_and(|one| !one.2) {
                    self.consumers.remove(&id);
                }
                let kept = self.kept.len();
                self.give(SessionEvent::Forgotten(id, "no such queue".to_owned()));
                assert_eq!(self.kept.len(), kept, "{id:?} is settled to its end");
            }
            Step::Cancelled(at) => {
                let cancelled: Vec<_> =
                    self.consumers.iter().filter(|(_, one)| one.2).map(|(id, _)| *id).collect();
                if !cancelled.is_empty() {
                    self.cancelled(*at.get(&cancelled));
                }
            }
            Step::Lost(by_content) => {
                self.give(SessionEvent::Lost(Loss { why: "lost".to_owned(), by_content }));
            }
            Step::Settled(at) if !self.kept.is_empty() => {
                let id = *at.get(&self.kept.keys().copied().collect::<Vec<_>>());
                self.give(SessionEvent::Settled(id));
            }
            Step::Closed(at) if !self.kept.is_empty() => {
                let id = *at.get(&self.kept.keys().copied().collect::<Vec<_>>());
                let end = End::Channel("closed".to_owned());
                self.give(SessionEvent::Ended { id, end, connected: true });
                assert!(!self.kept.contains_key(&id), "{id:?} is void");
            }
            Step::Released(at) => self.released(at),
            Step::Queues(windows) => self.queues(&windows),
            Step::Stop => {
                (self.stopping, self.leaving) = (!self.ended, true);
                self.wanted.clear();
                self.give(SessionEvent::Stop);
            }
            Step::Retire => {
                self.leaving = true;
                self.wanted.clear();
                self.give(SessionEvent::Retire);
            }
            Step::Close => {
                self.closing = true;
                self.give(SessionEvent::Close);
            }
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.give(SessionEvent::Time);
            }
            _ => {}
        }
    }

    fn released(&mut self, at: prop::sample::Index) {
        let releasing: Vec<_> = self.kept.iter().filter(|(_, it)| **it).map(|(id, _)| *id).collect();
        if !releasing.is_empty() {
            let id = *at.get(&releasing);
            self.kept.remove(&id);
            self.give(SessionEvent::Released(id));
        }
    }

    fn dialled(&mut self, ok: bool) {
        self.dialling = false;
        self.connected = ok;
        self.give(if ok { SessionEvent::Dialled } else { SessionEvent::DialFailed("refused".to_owned()) });
    }

    fn answered(&mut self, name: &Arc<str>, ok: bool) {
        let window = self.asked.remove(name).expect("asked");
        if !ok {
            self.give(SessionEvent::Unusable(name.clone(), "no".to_owned()));
            return;
        }
        let id = ConsumerId(self.next);
        self.next += 1;
        self.consumers.insert(id, (name.clone(), window, false));
        self.give(SessionEvent::Consuming(name.clone(), id));
    }

    fn cancelled(&mut self, id: ConsumerId) {
        self.consumers.remove(&id);
        self.give(SessionEvent::Ended { id, end: End::Cancelled, connected: true });
    }

    fn queues(&mut self, windows: &[u16]) {
        let queues: Vec<_> = (0..)
            .zip(windows)
            .filter(|(_, window)| **window > 0)
            .map(|(n, window)| queue(&format!("q{n}"), *window))
            .collect();
        if !self.leaving {
            self.wanted = queues.iter().map(|queue| (queue.name.clone(), queue.window())).collect();
        }
        self.give(SessionEvent::Queues(queues));
    }

    fn is_cancelling(&self) -> bool {
        self.consumers.values().any(|one| one.2)
    }

    /// From now on everything goes well: what is under way ends as it should, and time passes.
    fn recover(&mut self) {
        let end = self.now + 4 * CAP + RECOVERY;
        while !self.ended && self.now < end {
            let at_rest = self.connected && self.asked.is_empty() && self.kept.is_empty();
            if at_rest && !self.leaving && self.consumers.len() == self.wanted.len() && !self.is_cancelling()
            {
                return;
            }
            if self.dialling {
                self.dialled(true);
            } else if let Some(name) = self.asked.keys().next().cloned() {
                self.answered(&name, true);
            } else if let Some((&id, _)) = self.consumers.iter().find(|(_, one)| one.2) {
                self.cancelled(id);
            } else if let Some((&id, _)) = self.kept.iter().next() {
                self.give(SessionEvent::Settled(id));
                self.kept.remove(&id);
                self.give(SessionEvent::Released(id));
            } else {
                self.now = self.machine.wake(self.now);
                self.give(SessionEvent::Time);
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_every_wanted_queue_ends_up_with_exactly_one_consumer(
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut world = Counterpart::new();
        world.queues(&[1; QUEUES]);
        for step in steps {
            world.take(step);
        }
        world.recover();
        prop_assert_eq!(world.ended, world.leaving || world.closing);
        if !world.ended {
            let consumed: Vec<_> = world.consumers.values().cloned().collect();
            let mut wanted: Vec<_> = world.wanted.into_iter().map(|(name, window)| (name, window, false)).collect();
            wanted.sort();
            let mut sorted = consumed;
            sorted.sort();
            prop_assert_eq!(sorted, wanted);
        }
    }
}
