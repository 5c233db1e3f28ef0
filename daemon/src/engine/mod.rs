//! The data path: one event loop on one thread that takes deliveries, gives them to plugin hosts, settles them
//! and watches time limits. Nothing in it blocks; everything it waits for arrives as an [`Event`].

mod arrival;
mod cancel;
mod charge;
mod copies;
mod dispatch;
mod drain;
mod duplicates;
mod finish;
mod flight;
mod flights;
mod hold;
mod hosts;
mod lane;
mod losses;
mod odd;
mod queues;
mod standing;
mod status;
mod stuck;
mod swap;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::broker::{Link, LinkEvent, PublishError, Publisher};
use crate::config::Config;
use crate::dedup::{Dedup, Generation};
use crate::failpoint::failpoint;
use crate::host::{HostEvent, HostId, Spawner};
use crate::model::status::{
    ActiveTask, BrokerStatus, CancelReply, HandlerStatus, HoldReply, QueueStatus, RecentError, RouteReply,
};
use crate::registry::Registry;
use crate::telemetry::TaskLog;

use self::drain::Phase;
use self::flight::{FlightKey, Orphan};
use self::flights::Flights;
use self::lane::Lanes;
use self::losses::Losses;
use self::queues::Queues;

/// Events handled in one turn before hosts and the broker get what the turn decided. Large enough that a full
/// window costs one write per host and one ack, small enough that a turn stays under a millisecond.
const TURN: usize = 256;

/// How often time limits are looked at while tasks run, and while none do.
const TICK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// At the end, this long for the records of finished tasks: at most `dedup::store::MAX_WAITING` of them, a few megabytes.
const RECORDS_WITHIN: Duration = Duration::from_secs(5);

/// What the rest of the daemon asks of the engine.
#[derive(Debug)]
pub enum Command {
    /// Routes, handlers, limits and queues of a reload that succeeded.
    Swap(Arc<Config>, Registry, oneshot::Sender<()>),
    /// Finish what runs, give back the rest, close. A second one gives everything back now.
    Drain,
    /// Is the loop turning?
    Ping(oneshot::Sender<()>),
    /// For `warrenctl status`.
    Status(oneshot::Sender<EngineStatus>),
    /// For `warrenctl active`.
    Active(oneshot::Sender<Vec<ActiveTask>>),
    /// Pause a queue or handler (`true`), or let it go on; an error is a sentence for the operator.
    Hold(Held, bool, oneshot::Sender<Result<HoldReply, String>>),
    /// Cancel a task by its id; an error is a sentence for the operator.
    Cancel(String, oneshot::Sender<Result<CancelReply, String>>),
    /// For `warrenctl route`.
    Route {
        /// The task's text.
        text: Vec<u8>,
        /// As if it came from this queue; the first configured one when absent.
        queue: Option<String>,
        /// As if the AMQP `type` were set.
        message_type: Option<String>,
        /// Gets the answer.
        reply: oneshot::Sender<RouteReply>,
    },
}

/// What can be paused, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// A queue: its consumer is cancelled.
    Queue(String),
    /// A handler: its tasks are parked.
    Handler(String),
}

/// The engine's share of `status`.
#[derive(Debug, Default)]
pub struct EngineStatus {
    /// The broker link.
    pub broker: BrokerStatus,
    /// Every queue.
    pub queues: Vec<QueueStatus>,
    /// Every handler.
    pub handlers: Vec<HandlerStatus>,
    /// Newest first.
    pub last_errors: Vec<RecentError>,
    /// Why no plugin host can be started on this machine, if so.
    pub machine_fault: Option<String>,
}

/// What the engine shows without being asked; the newest value is all that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Every configured queue is consumed and takes tasks.
    pub ready: bool,
    /// Which one does not, in a few words for anybody.
    pub unready: String,
    /// One line for systemd's STATUS.
    pub line: String,
    /// The drain has ended; the engine is gone.
    pub ended: bool,
    /// Running tasks, for the drain's time extension.
    pub running: usize,
}

/// Everything that can happen to the engine.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every event is a delivery; a box would be an allocation per task"
)]
enum Event {
    Link(LinkEvent),
    Host(HostId, HostEvent),
    /// The copies of a flight are confirmed, or cannot be.
    Copied(FlightKey, Result<(), PublishError>),
    /// The copy of a flight is refused for now; it is tried again.
    CopyRefused(FlightKey, String),
    /// The broker refuses the copy of a flight for what it is.
    Unacceptable {
        flight: FlightKey,
        retried: bool,
        why: String,
    },
    /// What an earlier daemon remembered of a queue's finished tasks.
    Remembered(Arc<str>, Vec<Generation>),
    /// Every consumer has ended for the drain.
    ConsumersStopped,
    Command(Command),
}

/// Sends commands to the engine from any thread.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl EngineHandle {
    /// Hands over a command. A command to an engine that has ended is dropped, and with it its reply channel.
    pub fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

/// Owned by the data thread.
pub struct Engine {
    config: Arc<Config>,
    registry: Registry,
    link: Link,
    publisher: Publisher,
    spawner: Spawner,
    log: TaskLog,
    /// Everything arrives here: at most a window of deliveries per queue, a few events per host, and commands.
    events: mpsc::UnboundedReceiver<Event>,
    sender: mpsc::UnboundedSender<Event>,
    queues: Queues,
    lanes: Lanes,
    flights: Flights,
    /// Flights whose link was lost. At most a window per queue and link; see `losses::REDELIVERED_WITHIN`.
    orphans: Vec<Orphan>,
    /// Flights that wait for their twin, or for what an earlier daemon remembered. Some may have left by now.
    held_back: Vec<FlightKey>,
    /// Which tasks were done, where that is asked for.
    dedup: Dedup,
    /// The last copy that the broker did not take: when, and why.
    not_taken: Option<(Instant, String)>,
    /// When settling tasks were last looked through for those that cannot be settled.
    stuck_at: Instant,
    /// What is known of deliveries that are not in hand any more.
    losses: Losses,
    phase: Phase,
    broker: BrokerStatus,
    errors: VecDeque<RecentError>,
    /// Why no host could be started lately, when that was not for a plugin's sake.
    machine_fault: Option<String>,
    health: watch::Sender<Health>,
    health_at: Instant,
    /// When flights were last looked through for those that have waited too long.
    aged_at: Instant,
    /// The clock of this turn.
    now: Instant,
    /// Stands in for the prefix of a task that has none.
    no_prefix: Arc<str>,
}

/// Runs the engine on the calling thread, in a `LocalSet` of a current-thread runtime, until a drain has ended.
pub async fn run(
    config: Arc<Config>,
    registry: Registry,
    spawner: Spawner,
    log: TaskLog,
    mut commands: mpsc::UnboundedReceiver<Command>,
    health: watch::Sender<Health>,
) {
    let (sender, events) = mpsc::unbounded_channel();
    let forward = sender.clone();
    tokio::task::spawn_local(async move {
        while let Some(command) = commands.recv().await {
            if forward.send(Event::Command(command)).is_err() {
                break;
            }
        }
    });
    let to_link = sender.clone();
    let link = Link::start(
        &config.broker,
        &config.queues,
        config.daemon.max_task_bytes,
        Rc::new(move |event| {
            let _ = to_link.send(Event::Link(event));
        }),
    );
    let mut engine = Engine {
        publisher: link.publisher(),
        link,
        spawner,
        log,
        events,
        sender,
        queues: Queues::default(),
        lanes: Lanes::default(),
        flights: Flights::default(),
        orphans: Vec::new(),
        held_back: Vec::new(),
        dedup: Dedup::new(&config.daemon.state_dir),
        not_taken: None,
        stuck_at: Instant::now(),
        losses: Losses::default(),
        phase: Phase::Running,
        broker: BrokerStatus { state: "connecting".to_owned(), ..BrokerStatus::default() },
        errors: VecDeque::new(),
        machine_fault: None,
        health,
        health_at: Instant::now(),
        aged_at: Instant::now(),
        now: Instant::now(),
        no_prefix: Arc::from(""),
        registry: Registry::default(),
        config: config.clone(),
    };
    engine.queues.configure(&config.queues);
    engine.configure_dedup();
    engine.adopt_registry(registry);
    engine.turn_until_drained().await;
    failpoint!("drain::before-close");
    let limit = engine.config.broker.connect_timeout;
    let Engine { link, dedup, events, health, .. } = engine;
    let close = async {
        link.close(limit).await;
        let _ = tokio::time::timeout(RECORDS_WITHIN, dedup.close()).await;
    };
    // A broker or a disk that does not answer any more keeps this waiting, but the thread is not stuck.
    tokio::select! {
        () = close => {}
        () = answer_pings(events) => {}
    }
    health.send_replace(Health { ended: true, line: "stopped".to_owned(), ..Health::default() });
}

/// After the last turn, for as long as this is polled.
async fn answer_pings(mut events: mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        if let Event::Command(Command::Ping(reply)) = event {
            let _ = reply.send(());
        }
    }
    std::future::pending::<()>().await;
}

/// A channel pair for [`run`].
pub fn channel() -> (EngineHandle, mpsc::UnboundedReceiver<Command>) {
    let (commands, receiver) = mpsc::unbounded_channel();
    (EngineHandle { commands }, receiver)
}

impl Engine {
    async fn turn_until_drained(&mut self) {
        let mut batch = Vec::with_capacity(TURN);
        let tick = tokio::time::sleep(TICK.0);
        tokio::pin!(tick);
        let mut ticked = Instant::now();
        loop {
            let every = if self.flights.is_empty() { TICK.1 } else { TICK.0 };
            // One that fires too early is harmless, and cheaper than putting it off and back with every single task.
            let due = ticked + every;
            if tick.is_elapsed() || tick.deadline().into_std() > due {
                tick.as_mut().reset(due.into());
            }
            tokio::select! {
                biased;
                _ = self.events.recv_many(&mut batch, TURN) => {}
                () = &mut tick => {}
            }
            failpoint!("data::turn");
            self.now = Instant::now();
            for event in batch.drain(..) {
                self.on_event(event);
            }
            if self.now >= due {
                ticked = self.now;
                self.on_tick();
            }
            self.dispatch();
            self.flush();
            self.show_health();
            if self.drained() {
                return;
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Link(event) => self.on_link(event),
            Event::Host(id, event) => self.on_host(id, event),
            Event::Copied(flight, result) => self.on_copied(flight, result),
            Event::CopyRefused(flight, why) => self.on_copy_refused(flight, &why),
            Event::Unacceptable { flight, retried, why } => self.on_unacceptable(flight, retried, why),
            Event::Remembered(queue, found) => self.on_remembered(&queue, found),
            Event::ConsumersStopped => self.on_consumers_stopped(),
            Event::Command(command) => self.on_command(command),
        }
    }

    fn on_command(&mut self, command: Command) {
        // A reply that nobody waits for any more is no error.
        match command {
            Command::Swap(config, registry, reply) => {
                self.reconfigure(config);
                self.link.retry_quarantined();
                self.adopt_registry(registry);
                let _ = reply.send(());
            }
            Command::Drain => self.start_drain(),
            Command::Ping(reply) => {
                let _ = reply.send(());
            }
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Command::Active(reply) => {
                let _ = reply.send(self.active());
            }
            Command::Hold(what, paused, reply) => {
                let _ = reply.send(match what {
                    Held::Queue(name) => self.hold_queue(&name, paused),
                    Held::Handler(name) => self.hold_handler(&name, paused),
                });
            }
            Command::Cancel(id, reply) => {
                let _ = reply.send(self.cancel(&id));
            }
            Command::Route { text, queue, message_type, reply } => {
                let _ = reply.send(self.explain_route(&text, queue.as_deref(), message_type.as_deref()));
            }
        }
    }

    /// Takes over broker and queue settings. The link re-subscribes what changed; running tasks go on.
    fn reconfigure(&mut self, config: Arc<Config>) {
        if config.broker != self.config.broker || config.queues != self.config.queues {
            self.queues.configure(&config.queues);
            self.link.reconfigure(&config.broker, &self.queues.wanted());
            self.publisher = self.link.publisher();
        }
        self.link.set_max_task_bytes(config.daemon.max_task_bytes);
        self.config = config;
        self.configure_dedup();
    }

    /// End of a turn: hosts get their tasks, the broker its acks. One write each.
    fn flush(&mut self) {
        for slot in self.lanes.hosts.values_mut() {
            slot.host.flush();
        }
        self.link.flush();
    }

    fn event_sink(&self) -> Rc<dyn Fn(HostId, HostEvent)> {
        let sender = self.sender.clone();
        Rc::new(move |id, event| {
            let _ = sender.send(Event::Host(id, event));
        })
    }
}
