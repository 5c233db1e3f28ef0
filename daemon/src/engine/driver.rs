//! The engine's driver: the event loop around the core. It owns what does I/O (the link, the hosts, the store of finished
//! tasks) and the clock, hands events to the core, and performs the core's actions. It decides nothing.

mod perform;
mod publish;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::broker::{Link, Publisher};
use crate::config::Config;
use crate::dedup::Store;
use crate::failpoint::failpoint;
use crate::host::{Host, HostEvent, HostId, Spawner};
use crate::model::UnixMs;
use crate::registry::Registry;
use crate::telemetry::TaskLog;

use super::core::{Action, Core, Event, Now};
use super::{EngineCommand, EngineStatus, Health};

/// Inputs handled in one turn before hosts and the broker get what the turn decided. Large enough that a full
/// window costs one write per host and one ack, small enough that a turn stays under a millisecond.
const TURN: usize = 256;

/// At the end, this long for the records of finished tasks: at most `dedup::store::MAX_WAITING` of them, a few megabytes.
const RECORDS_WITHIN: Duration = Duration::from_secs(5);

/// What arrives in the loop.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every input is a delivery; a box would be an allocation per task"
)]
enum DriverInput {
    Event(Event),
    Command(EngineCommand),
}

/// Owned by the data thread.
struct Driver {
    core: Core,
    /// Filled by the core, and emptied when its actions are performed.
    actions: Vec<Action>,
    link: Link,
    publisher: Publisher,
    spawner: Spawner,
    hosts: BTreeMap<HostId, Host>,
    store: Store,
    /// Everything arrives here: at most a window of deliveries per queue, a few events per host, and commands.
    inputs: mpsc::UnboundedReceiver<DriverInput>,
    sender: mpsc::UnboundedSender<DriverInput>,
    health: watch::Sender<Health>,
    drained: bool,
}

/// Runs the engine on the calling thread, in a `LocalSet` of a current-thread runtime, until a drain has ended.
pub async fn run(
    config: Arc<Config>,
    registry: Registry,
    spawner: Spawner,
    log: TaskLog,
    mut commands: mpsc::UnboundedReceiver<EngineCommand>,
    health: watch::Sender<Health>,
) {
    let (sender, inputs) = mpsc::unbounded_channel();
    let forward = sender.clone();
    tokio::task::spawn_local(async move {
        while let Some(command) = commands.recv().await {
            if forward.send(DriverInput::Command(command)).is_err() {
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
            let _ = to_link.send(DriverInput::Event(Event::Link(event)));
        }),
    );
    let mut actions = Vec::new();
    let store = Store::new(&config.daemon.state_dir);
    let core = Core::new(config, registry, log, fastrand::u64(..), clock(), &mut actions);
    let mut driver = Driver {
        core,
        actions,
        publisher: link.publisher(),
        link,
        spawner,
        hosts: BTreeMap::new(),
        store,
        inputs,
        sender,
        health,
        drained: false,
    };
    driver.perform();
    driver.turn_until_drained().await;
    failpoint!("drain::before-close");
    let limit = driver.core.config().broker.connect_timeout;
    let Driver { link, store, inputs, health, .. } = driver;
    let close = async {
        link.close(limit).await;
        let _ = tokio::time::timeout(RECORDS_WITHIN, store.close()).await;
    };
    // A broker or a disk that does not answer any more keeps this waiting, but the thread is not stuck.
    tokio::select! {
        () = close => {}
        () = answer_pings(inputs) => {}
    }
    health.send_replace(Health { ended: true, line: "stopped".to_owned(), ..Health::default() });
}

/// After the last turn, for as long as this is polled.
async fn answer_pings(mut inputs: mpsc::UnboundedReceiver<DriverInput>) {
    while let Some(input) = inputs.recv().await {
        if let DriverInput::Command(EngineCommand::Ping(reply)) = input {
            let _ = reply.send(());
        }
    }
    std::future::pending::<()>().await;
}

fn clock() -> Now {
    Now { instant: Instant::now(), unix: UnixMs::now() }
}

impl Driver {
    async fn turn_until_drained(&mut self) {
        let mut batch = Vec::with_capacity(TURN);
        let tick = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(tick);
        while !self.drained {
            let due = self.core.next_tick();
            // One that fires too early is harmless, and cheaper than putting it off and back with every single task.
            if tick.is_elapsed() || tick.deadline().into_std() > due {
                tick.as_mut().reset(due.into());
            }
            tokio::select! {
                biased;
                _ = self.inputs.recv_many(&mut batch, TURN) => {}
                () = &mut tick => {}
            }
            failpoint!("data::turn");
            let now = clock();
            for input in batch.drain(..) {
                match input {
                    DriverInput::Event(event) => self.on_event(event, now),
                    DriverInput::Command(command) => self.on_command(command, now),
                }
                self.perform();
            }
            self.core.turn_end(now, &mut self.actions);
            self.perform();
            self.flush();
        }
    }

    fn on_event(&mut self, mut event: Event, now: Now) {
        let mut ended = None;
        if let Event::Host { host, event, rss } = &mut event {
            match event {
                HostEvent::Exited(_) => ended = Some(*host),
                HostEvent::Report(_) | HostEvent::Withdrawn { .. } if self.core.watches_rss(*host) => {
                    *rss = self.hosts.get(host).and_then(Host::rss_bytes);
                }
                _ => {}
            }
        }
        self.core.on(event, now, &mut self.actions);
        if let Some(host) = ended {
            self.hosts.remove(&host);
        }
    }

    fn on_command(&mut self, command: EngineCommand, now: Now) {
        let (core, hosts, actions) = (&mut self.core, &self.hosts, &mut self.actions);
        let pid_of = |host| hosts.get(&host).and_then(Host::pid);
        // A reply that nobody waits for any more is no error.
        match command {
            EngineCommand::Swap(config, registry, reply) => {
                core.swap(config, registry, now, actions);
                self.perform();
                let _ = reply.send(());
            }
            EngineCommand::Drain => {
                core.drain(now, actions);
                self.perform();
                failpoint!("drain::started");
            }
            EngineCommand::Ping(reply) => {
                let _ = reply.send(());
            }
            EngineCommand::Status(reply) => {
                let status = core.status(now.instant, &pid_of);
                let _ = reply.send(with_fault(status, self.store.fault().as_ref()));
            }
            EngineCommand::Active(reply) => {
                let _ = reply.send(core.active(now.instant, &pid_of));
            }
            EngineCommand::SetPaused(what, paused, reply) => {
                let _ = reply.send(core.set_paused(&what, paused, now, actions));
            }
            EngineCommand::Cancel(id, reply) => {
                let _ = reply.send(core.cancel(&id, now, actions));
            }
            EngineCommand::Route { text, queue, message_type, reply } => {
                let (queue, message_type) = (queue.as_deref(), message_type.as_deref());
                let _ = reply.send(core.explain_route(&text, queue, message_type, now.instant));
            }
        }
    }

    /// End of a turn: hosts get their tasks, the broker its acks. One write each.
    fn flush(&mut self) {
        for host in self.hosts.values_mut() {
            host.flush();
        }
        self.link.flush();
    }
}

/// A status with why finished tasks are remembered in memory only.
fn with_fault(mut status: EngineStatus, fault: Option<&String>) -> EngineStatus {
    for shown in status.queues.iter_mut().filter_map(|queue| queue.deduplication.as_mut()) {
        shown.fault = fault.cloned();
    }
    status
}
