//! The daemon of the simulator: the real core, and in place of the driver the models that perform its actions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::agenda::{AgendaItem, HostStep};
use super::choice::For;
use super::fault::Fault;
use super::hosts::HostModel;
use super::publishing::PublicationModel;
use super::setup::{HandlerSetup, Setup};
use super::sharing::Sharing;
use super::world::World;
use crate::broker::{ConsumerId, LinkEvent};
use crate::config::{Broker, Config, Daemon as DaemonConfig, Environment, Log, Plugins};
use crate::dedup::StoreOrder;
use crate::engine::core::{Action, Core, Event};
use crate::host::HostId;
use crate::plugin::Snapshot;
use crate::registry::{Generation, Registry, Slot};
use crate::router::{RouteEntry, Router};
use crate::telemetry::TaskLog;

/// One daemon, from its start to its end.
#[derive(Debug)]
pub(super) struct DaemonModel {
    pub(super) core: Core,
    pub(super) actions: Vec<Action>,
    pub(super) hosts: BTreeMap<HostId, HostModel>,
    pub(super) publications: BTreeMap<u64, PublicationModel>,
    pub(super) next_publication: u64,
    /// Counts up with each consuming connection.
    pub(super) link: u64,
    pub(super) is_connected: bool,
    /// The queues to consume, with their windows.
    pub(super) wanted: Vec<(usize, u16)>,
    pub(super) subscribing: Vec<usize>,
    pub(super) drain: Option<DrainModel>,
    pub(super) loaded: LoadedHandlers,
    /// Queues of which was read what earlier daemons recorded.
    pub(super) has_read: Vec<bool>,
    pub(super) paused_queues: Vec<bool>,
    pub(super) paused_handlers: Vec<bool>,
    /// When the tasks of a handler with a rate started, under that rate.
    pub(super) starts: Vec<VecDeque<Duration>>,
    /// Hosts of a handler that died, so that it may be suspended or on trial.
    pub(super) has_died: Vec<bool>,
    /// A host of a handler ended by itself, or could not be started, so that the next one may have to wait.
    pub(super) has_failed: Vec<bool>,
    /// When a host of each handler was started last.
    pub(super) last_start: Vec<Duration>,
    /// Who had how much run time.
    pub(super) sharing: Sharing,
}

/// What is in force.
#[derive(Debug)]
pub(super) struct LoadedHandlers {
    /// Every generation there was: which handler, and how it was set up.
    pub(super) generations: BTreeMap<u64, (usize, HandlerSetup)>,
    /// The generation of each handler that takes new tasks.
    pub(super) active: Vec<Option<u64>>,
    pub(super) queues: Vec<crate::config::Queue>,
}

/// A drain under way, as the operator knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct DrainModel {
    pub(super) began: Duration,
    /// What runs then is asked to stop.
    pub(super) deadline: Duration,
    pub(super) has_cancelled: bool,
    pub(super) is_waiting_for_consumers: bool,
}

impl LoadedHandlers {
    fn new(setup: &Setup) -> Self {
        let handlers = setup.handlers.iter().enumerate();
        let generations: BTreeMap<_, _> =
            handlers.map(|(n, handler)| (n as u64 + 1, (n, handler.clone()))).collect();
        Self {
            active: generations.keys().map(|number| Some(*number)).collect(),
            generations,
            queues: setup.queues.iter().map(|queue| queue.config.clone()).collect(),
        }
    }

    /// The number of the next generation.
    pub(super) fn next_generation(&self) -> u64 {
        self.generations.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// Whether a generation takes new tasks.
    pub(super) fn is_active(&self, generation: u64) -> bool {
        self.active.contains(&Some(generation))
    }

    /// The longest time that a task has to stop, of every generation there was.
    pub(super) fn longest_grace(&self) -> Duration {
        self.generations.values().map(|(_, setup)| setup.limits.grace).max().unwrap_or_default()
    }

    /// The configuration in force.
    pub(super) fn config(&self, setup: &Setup) -> Arc<Config> {
        Arc::new(Config {
            files: Vec::new(),
            broker: Broker { consumer_timeout: setup.consumer_timeout, ..Broker::default() },
            queues: self.queues.clone(),
            plugins: Plugins { max_idle_hosts: setup.max_idle_hosts, ..Plugins::default() },
            handlers: Vec::new(),
            daemon: DaemonConfig {
                drain_timeout: setup.drain_timeout,
                ..DaemonConfig::new(&Environment::default())
            },
            log: Log::default(),
        })
    }

    /// What is loaded.
    pub(super) fn registry(&self) -> Registry {
        let mut slots = Vec::new();
        let mut entries = Vec::new();
        for number in self.active.iter().flatten() {
            let (handler, setup) = &self.generations[number];
            let prefix: Arc<str> = prefix_of(*handler).into();
            entries.push(RouteEntry {
                prefix: prefix.clone(),
                handler: slots.len(),
                queues: None,
                incumbent: false,
            });
            slots.push(Slot::Active(Arc::new(Generation {
                number: *number,
                handler: setup.name.clone(),
                prefixes: vec![prefix],
                queues: None,
                plugin: snapshot(),
                settings_json: "{}".into(),
                limits: setup.limits.clone(),
                timeout: setup.timeout,
            })));
        }
        let (router, _) = Router::build(entries);
        Registry { slots, router, claims: Router::default() }
    }
}

/// The prefix of the tasks that a handler takes.
pub(super) fn prefix_of(handler: usize) -> String {
    format!("Do{handler}")
}

fn snapshot() -> Arc<Snapshot> {
    static SNAPSHOT: OnceLock<Arc<Snapshot>> = OnceLock::new();
    SNAPSHOT.get_or_init(|| Arc::new(Snapshot::stub("simulated"))).clone()
}

impl World {
    pub(super) fn start_daemon(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        self.incarnation += 1;
        let number = self.incarnation;
        self.note(|| format!("daemon {number} starts"));
        let setup = self.setup().clone();
        let loaded = LoadedHandlers::new(&setup);
        let (config, registry) = (loaded.config(&setup), loaded.registry());
        let seed = self.choices.number(For::Core, number, 0);
        let mut actions = Vec::new();
        let daemon = DaemonModel {
            core: Core::new(config, registry, TaskLog::off(), seed, self.clock(), &mut actions),
            actions,
            hosts: BTreeMap::new(),
            publications: BTreeMap::new(),
            next_publication: 0,
            link: 0,
            is_connected: false,
            wanted: setup.queues.iter().enumerate().map(|(n, queue)| (n, queue.config.window())).collect(),
            subscribing: Vec::new(),
            drain: None,
            loaded,
            has_read: vec![false; setup.queues.len()],
            paused_queues: vec![false; setup.queues.len()],
            paused_handlers: vec![false; setup.handlers.len()],
            starts: vec![VecDeque::new(); setup.handlers.len()],
            has_died: vec![false; setup.handlers.len()],
            has_failed: vec![false; setup.handlers.len()],
            last_start: vec![Duration::ZERO; setup.handlers.len()],
            sharing: Sharing::default(),
        };
        self.daemon = Some(daemon);
        self.remember_recorded();
        self.perform();
        self.connect();
    }

    /// The daemon is killed, or has ended.
    pub(super) fn end_daemon(&mut self, is_orderly: bool) {
        let Some(daemon) = self.daemon.take() else { return };
        self.dies_after = None;
        let number = self.incarnation;
        self.note(|| format!("daemon {number} {}", if is_orderly { "has ended" } else { "is killed" }));
        if is_orderly {
            self.records.write_all();
        } else {
            for _ in 0..self.records.lose_unwritten() {
                self.fault(Fault::RecordLost);
            }
        }
        self.end_publications(daemon.publications);
        self.close_link(is_orderly);
        for message in &mut self.broker.messages {
            if message.place != super::broker::MessagePlace::Gone {
                message.may_start_again();
            }
            (message.hand, message.ended_here, message.waited_here) = (None, false, false);
        }
        self.ledger.forget_daemon();
        let after = self.choices.span(
            Duration::from_millis(1),
            Duration::from_millis(300),
            For::Restart,
            self.incarnation,
            0,
        );
        self.agenda.add(self.now + after, AgendaItem::StartDaemon);
    }

    /// Performs what the core wants done, as the driver does.
    pub(super) fn perform(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let mut actions = std::mem::take(&mut daemon.actions);
        for action in actions.drain(..) {
            if self.violation.is_some() {
                return;
            }
            if let Some(left) = &mut self.dies_after {
                if *left == 0 {
                    return self.end_daemon(false);
                }
                *left -= 1;
            }
            self.perform_one(action);
            if self.daemon.is_none() {
                return;
            }
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.actions = actions;
        }
    }

    fn perform_one(&mut self, action: Action) {
        if !matches!(action, Action::Show(_)) {
            self.has_changed = true;
            self.note(|| format!("    {}", super::trace::action(&action)));
        }
        match action {
            Action::Ack { consumer, tag } => self.on_ack(consumer.0, tag),
            Action::Requeue { consumer, tag } => self.on_requeue(consumer.0, tag),
            Action::Consume { queues, .. } => self.consume(&queues),
            Action::StopConsuming => self.stop_consuming(),
            Action::StartHost { host, generation, create_timeout } => {
                self.on_start_host(host, generation.number, create_timeout);
            }
            Action::SendTask { host, seq, entry } => self.on_send(host, seq, entry),
            Action::CancelTask { host, seq } => self.on_cancel(host, seq),
            Action::RecallTask { host, seq } => self.on_recall(host, seq),
            Action::QuitHost(host) => self.on_quit(host),
            Action::KillHost(host) => self.on_kill(host),
            Action::Publish(copy) => self.on_publish(*copy),
            Action::Dedup(order) => self.on_record(order),
            Action::Drained => self.on_drained(),
            Action::Show(_) | Action::SetMaxTaskBytes(_) | Action::RetryQuarantined => {}
        }
    }

    pub(super) fn step_of_host(&mut self, host: HostId, step: HostStep) {
        self.later(host, self.way(host.0, self.events), step);
    }

    fn on_record(&mut self, order: StoreOrder) {
        match order {
            StoreOrder::Load { queue, .. } => {
                let found = self.records.found(&queue);
                let takes = self.choices.span(
                    Duration::ZERO,
                    Duration::from_millis(5),
                    For::Store,
                    self.incarnation,
                    0,
                );
                self.tell_at(self.now + takes, Event::DedupLoaded { queue, found });
            }
            StoreOrder::Record { queue, segment, fingerprint: print, at } => {
                self.note_recorded(&queue, print);
                let daemon = self.incarnation;
                let number = self.records.add(daemon, queue, segment, print, at);
                let takes =
                    self.choices.span(Duration::ZERO, Duration::from_millis(1), For::Store, number, 1);
                self.agenda.add(self.now + takes, AgendaItem::Record { daemon, number });
            }
            StoreOrder::Forget { queue, oldest } => self.records.forget(queue, oldest),
        }
    }

    /// The link tells that it is up, and a lost one that it is not.
    pub(super) fn tell_connected(&mut self) {
        let event = LinkEvent::Connected { address: "broker".to_owned(), server: "RabbitMQ".to_owned() };
        self.tell_at(self.now, Event::Link(event));
    }

    pub(super) fn tell_lost(&mut self, consumer: u32, at: Duration) {
        let event = LinkEvent::Lost { consumer: ConsumerId(consumer), why: "connection reset".to_owned() };
        self.tell_at(at, Event::Link(event));
    }
}
