//! A core with one queue and two handlers, driven step by step. Time stands still unless a step lets it pass, and what the
//! core wants done is told in short words.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lapin::BasicProperties;

use crate::broker::{ConsumerId, Delivery, LinkEvent};
use crate::config::{Breaker, Broker, Config, Daemon, Environment, Limits, Log, Plugins, Queue, Retry};
use crate::dedup::StoreOrder;
use crate::engine::Health;
use crate::engine::core::keys::EntryKey;
use crate::engine::core::{Action, Copy, CopyKind, CopyResult, Core, Event, Now};
use crate::host::{Exit, HostEvent, HostId, HostStage, Report, Seq};
use crate::model::{FollowUp, Outcome, TaskError, UnixMs};
use crate::plugin::Snapshot;
use crate::registry::{Generation, Registry, Slot};
use crate::router::{RouteEntry, Router};
use crate::telemetry::TaskLog;

/// The one queue.
pub(super) const QUEUE: &str = "q";
/// The handler that most histories are about.
pub(super) const HANDLER: &str = "h";
/// The generation of the other one, `g`.
const OTHER: u64 = 100;

/// What happens. Deliveries are named by their id, copies by that of their original.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The broker confirms the consumer of this number.
    Consuming(u32),
    /// A delivery with this tag.
    Deliver(u64, &'static str),
    /// The same, and its sender waits for a reply.
    DeliverAsked(u64, &'static str),
    /// A delivery for the other handler.
    DeliverOther(u64, &'static str),
    /// A redelivery with this tag.
    Again(u64, &'static str),
    /// A host takes tasks.
    Ready(u64),
    /// A host reports a task.
    Ends(u64, Seq, Outcome),
    /// A host reports that a task is done, with one follow-up.
    Publishes(u64, Seq),
    /// A host reports an outcome with an error of this code.
    Fails(u64, Seq, Outcome, &'static str),
    /// A host gives a recalled task back.
    Withdrawn(u64, Seq),
    /// A host ends in this stage, having started so many tasks.
    Dies(u64, HostStage, Seq),
    /// The broker confirmed what is published for a task.
    Confirmed(&'static str),
    /// It does not take it for now.
    Refused(&'static str),
    /// It never takes it.
    Unacceptable(&'static str),
    /// It does not take a follow-up.
    FollowUpFailed(&'static str),
    /// The subscription is lost.
    Lost,
    /// No delivery follows on the subscription.
    Stopped,
    /// The broker has seen every acknowledgement.
    Seen,
    /// Time passes.
    After(Duration),
    /// An operator cancels a task.
    Cancel(&'static str),
    /// An operator pauses the handler, or lets it go on.
    PauseHandler(bool),
    /// An operator pauses the queue, or lets it go on.
    PauseQueue(bool),
    /// The handler is replaced by its next generation.
    Replace,
    /// SIGTERM.
    Drain,
    /// Every consumer has ended.
    ConsumersStopped,
    /// What an earlier daemon remembered of the queue is read: nothing.
    Remembered,
}

/// The core and what it was told.
pub(super) struct Bed {
    pub(super) core: Core,
    now: Now,
    consumer: ConsumerId,
    config: Arc<Config>,
    limits: Limits,
    generation: u64,
    /// What is being published, by the id of the original.
    copies: HashMap<String, EntryKey>,
}

/// The policies that tests count on: three attempts, four seconds apart and no jitter; a second of time, a second of grace.
pub(super) fn limits() -> Limits {
    Limits {
        retry: Retry {
            attempts: 3,
            delay: Duration::from_secs(4),
            factor: 1.0,
            jitter: 0.0,
            ..Retry::default()
        },
        grace: Duration::from_secs(1),
        breaker: None::<Breaker>,
        ..Limits::default()
    }
}

fn queue() -> Queue {
    Queue { prefetch: 4, workers: 2, ..Queue::new(QUEUE) }
}

fn snapshot() -> Arc<Snapshot> {
    static SNAPSHOT: OnceLock<Arc<Snapshot>> = OnceLock::new();
    SNAPSHOT.get_or_init(|| Arc::new(Snapshot::stub(HANDLER))).clone()
}

fn registry(number: u64, limits: &Limits) -> Registry {
    let generation = |number, handler: &str, prefix: &str| Generation {
        number,
        handler: handler.into(),
        prefixes: vec![prefix.into()],
        queues: None,
        plugin: snapshot(),
        settings_json: "{}".into(),
        limits: limits.clone(),
        timeout: Duration::from_secs(10),
    };
    let entry =
        |handler, prefix: &str| RouteEntry { prefix: prefix.into(), handler, queues: None, incumbent: false };
    let (router, _) = Router::build([entry(0, "Run"), entry(1, "Go")]);
    let slots = [generation(number, HANDLER, "Run"), generation(OTHER, "g", "Go")];
    let slots = slots.map(|generation| Slot::Active(Arc::new(generation))).into();
    Registry { slots, router, claims: Router::default() }
}

impl Bed {
    pub(super) fn new() -> Self {
        Self::with(limits(), queue())
    }

    pub(super) fn with(limits: Limits, queue: Queue) -> Self {
        Self::configured(limits, queue, Plugins::default())
    }

    pub(super) fn configured(limits: Limits, queue: Queue, plugins: Plugins) -> Self {
        let config = Arc::new(Config {
            files: Vec::new(),
            broker: Broker { consumer_timeout: Duration::ZERO, ..Broker::default() },
            queues: vec![queue],
            plugins,
            handlers: Vec::new(),
            daemon: Daemon::new(&Environment::default()),
            log: Log::default(),
        });
        let now = Now { instant: Instant::now(), unix: UnixMs(1_800_000_000_000) };
        let mut actions = Vec::new();
        let core = Core::new(config.clone(), registry(1, &limits), TaskLog::off(), 7, now, &mut actions);
        let mut bed = Self {
            core,
            now,
            consumer: ConsumerId(0),
            config,
            limits,
            generation: 1,
            copies: HashMap::new(),
        };
        let connected = LinkEvent::Connected { address: "b".to_owned(), server: "RabbitMQ".to_owned() };
        bed.core.on(Event::Link(connected), now, &mut actions);
        bed
    }

    pub(super) fn now(&self) -> Now {
        self.now
    }

    /// Plays a step and the end of its turn; what the core wants done, the status aside.
    pub(super) fn play(&mut self, step: Step) -> Vec<String> {
        let mut actions = Vec::new();
        self.apply(step, &mut actions);
        self.core.turn_end(self.now, &mut actions);
        self.core.check();
        assert!(
            !self.core.has_lost_wakeup(self.now),
            "a task waits although a worker is free, after {step:?}"
        );
        actions.into_iter().filter_map(|action| self.describe(action)).collect()
    }

    /// A reload with another configuration: what the core wants done.
    pub(super) fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut actions = Vec::new();
        change(Arc::make_mut(&mut self.config));
        let registry = registry(self.generation, &self.limits);
        self.core.swap(self.config.clone(), registry, self.now, &mut actions);
        actions.into_iter().filter_map(|action| self.describe(action)).collect()
    }

    /// A host with so much memory reports that a task is done: what the core wants done.
    pub(super) fn ends_with_rss(&mut self, host: u64, seq: Seq, rss: u64) -> Vec<String> {
        let report = Box::new(Report::without_result(seq, Outcome::Done, None));
        let event = Event::Host { host: HostId(host), event: HostEvent::Report(report), rss: Some(rss) };
        self.turn(event).into_iter().filter_map(|action| self.describe(action)).collect()
    }

    /// The link says something: what is shown a second later.
    pub(super) fn shown_after(&mut self, event: LinkEvent) -> Health {
        self.now.instant += Duration::from_secs(1);
        let shown = self.turn(Event::Link(event)).into_iter().rev().find_map(|action| match action {
            Action::Show(health) => Some(health),
            _ => None,
        });
        shown.expect("it is shown")
    }

    /// A turn of one event.
    fn turn(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.core.on(event, self.now, &mut actions);
        self.core.turn_end(self.now, &mut actions);
        actions
    }

    /// Plays every step, and holds what the core wants done against what is expected.
    pub(super) fn expect(&mut self, what: &str, history: &[(Step, &[&str])]) {
        for (n, (step, expected)) in history.iter().enumerate() {
            assert_eq!(self.play(*step), *expected, "{what}, step {n}: {step:?}");
        }
    }

    fn apply(&mut self, step: Step, actions: &mut Vec<Action>) {
        let now = self.now;
        let (core, consumer) = (&mut self.core, self.consumer);
        let event = match step {
            Step::Consuming(id) => {
                self.consumer = ConsumerId(id);
                let window = self.config.queues[0].window();
                Event::Link(LinkEvent::Consuming { consumer: self.consumer, queue: QUEUE.into(), window })
            }
            Step::Deliver(tag, id) => delivery(consumer, tag, id, false, false),
            Step::DeliverOther(tag, id) => for_other(delivery(consumer, tag, id, false, false)),
            Step::DeliverAsked(tag, id) => delivery(consumer, tag, id, false, true),
            Step::Again(tag, id) => delivery(consumer, tag, id, true, false),
            Step::Ready(host) => of_host(host, HostEvent::Ready),
            Step::Ends(host, seq, outcome) => reports(host, Report::without_result(seq, outcome, None)),
            Step::Publishes(host, seq) => {
                let follow_ups = vec![FollowUp::default()];
                reports(host, Report { follow_ups, ..Report::without_result(seq, Outcome::Done, None) })
            }
            Step::Fails(host, seq, outcome, code) => {
                let error = Some(TaskError::new(code, "it says why"));
                reports(host, Report::without_result(seq, outcome, error))
            }
            Step::Withdrawn(host, seq) => of_host(host, HostEvent::Withdrawn { seq }),
            Step::Dies(host, stage, started) => of_host(host, HostEvent::Exited(exit(stage, started))),
            Step::Confirmed(id) => self.copy(id, CopyResult::Confirmed),
            Step::Refused(id) => self.copy(id, CopyResult::Refused("full".to_owned())),
            Step::Unacceptable(id) => self.copy(id, CopyResult::Unacceptable("too large".to_owned())),
            Step::FollowUpFailed(id) => self.copy(id, CopyResult::FollowUpFailed("no such queue".to_owned())),
            Step::Lost => Event::Link(LinkEvent::Lost { consumer, why: "reset".to_owned() }),
            Step::Stopped => Event::Link(LinkEvent::Stopped { consumer }),
            Step::Seen => Event::Link(LinkEvent::Seen { consumer, before: now.instant }),
            Step::ConsumersStopped => Event::ConsumersStopped,
            Step::Remembered => Event::DedupLoaded { queue: QUEUE.into(), found: Vec::new() },
            Step::After(time) => {
                self.now.instant += time;
                self.now.unix = self.now.unix.plus(time);
                return;
            }
            Step::Cancel(id) => return drop(core.cancel(id, now, actions)),
            Step::Drain => return core.drain(now, actions),
            Step::PauseHandler(paused) => {
                let what = crate::engine::PauseTarget::Handler(HANDLER.to_owned());
                return drop(core.set_paused(&what, paused, now, actions).expect("there is such a handler"));
            }
            Step::PauseQueue(paused) => {
                let what = crate::engine::PauseTarget::Queue(QUEUE.to_owned());
                return drop(core.set_paused(&what, paused, now, actions).expect("there is such a queue"));
            }
            Step::Replace => {
                self.generation += 1;
                let registry = registry(self.generation, &self.limits);
                return core.swap(self.config.clone(), registry, now, actions);
            }
        };
        self.core.on(event, now, actions);
    }

    fn copy(&self, id: &str, result: CopyResult) -> Event {
        Event::Copy { entry: self.copies[id], result }
    }

    fn describe(&mut self, action: Action) -> Option<String> {
        Some(match action {
            Action::Ack { tag, .. } => format!("ack {tag}"),
            Action::Requeue { tag, .. } => format!("requeue {tag}"),
            Action::Consume { queues, .. } => format!("consume {}", queues.len()),
            Action::StopConsuming => "stop consuming".to_owned(),
            Action::StartHost { host, generation, .. } => {
                format!("start {} of {}", host.0, generation.number)
            }
            Action::SendTask { host, seq, entry } => {
                let task = |task: &crate::host::HostTask<'_>| format!("{} as {}", task.id, task.attempt);
                format!("send {}/{seq} {}", host.0, self.core.with_task(entry, seq, task))
            }
            Action::CancelTask { host, seq } => format!("cancel {}/{seq}", host.0),
            Action::RecallTask { host, seq } => format!("recall {}/{seq}", host.0),
            Action::QuitHost(host) => format!("quit {}", host.0),
            Action::KillHost(host) => format!("kill {}", host.0),
            Action::Publish(copy) => self.describe_copy(*copy),
            Action::Dedup(StoreOrder::Record { .. }) => "remember".to_owned(),
            Action::Dedup(StoreOrder::Forget { .. }) => "forget".to_owned(),
            Action::Dedup(order) => format!("{order:?}"),
            Action::Drained => "drained".to_owned(),
            Action::Show(_) | Action::SetMaxTaskBytes(_) | Action::RetryQuarantined => return None,
        })
    }

    fn describe_copy(&mut self, copy: Copy) -> String {
        let id = copy.id.text.to_string();
        let text = match copy.kind {
            CopyKind::Again(again) => {
                let code = again.failure.map_or_else(String::new, |error| format!(" for {}", error.code));
                let (delay, attempt, redeliveries) = (again.delay, again.attempt, again.redeliveries);
                format!("copy {id} in {delay:?} as {attempt}, cut short {redeliveries}{code}")
            }
            CopyKind::Onward(_) => format!("onward {id}"),
            CopyKind::Dead { reason, error } => format!("dead {id} {reason} for {}", error.code),
            CopyKind::FollowUps { follow_ups, .. } => format!("follow-ups {id} {}", follow_ups.len()),
        };
        self.copies.insert(id, copy.entry);
        text
    }
}

fn for_other(delivered: Event) -> Event {
    match delivered {
        Event::Link(LinkEvent::Delivery(delivery)) => {
            Event::Link(LinkEvent::Delivery(Delivery { body: b"Go on".to_vec(), ..delivery }))
        }
        other => other,
    }
}

fn of_host(host: u64, event: HostEvent) -> Event {
    Event::Host { host: HostId(host), event, rss: None }
}

fn reports(host: u64, report: Report) -> Event {
    of_host(host, HostEvent::Report(Box::new(report)))
}

fn exit(stage: HostStage, started: Seq) -> Exit {
    Exit {
        stage,
        orderly: stage == HostStage::Quitting,
        why: "signal 11 (SIGSEGV)".to_owned(),
        create_error: None,
        started,
        done_unreported: Vec::new(),
        ended: if stage == HostStage::Running { started.saturating_sub(1) } else { started },
        over: None,
    }
}

fn delivery(consumer: ConsumerId, tag: u64, id: &str, redelivered: bool, asked: bool) -> Event {
    let mut properties = BasicProperties::default().with_message_id(id.into());
    if asked {
        properties = properties.with_reply_to("answers".into());
    }
    Event::Link(LinkEvent::Delivery(Delivery {
        consumer,
        tag,
        redelivered,
        received: UnixMs(0),
        note: None,
        properties,
        body: b"Run it".to_vec(),
    }))
}
