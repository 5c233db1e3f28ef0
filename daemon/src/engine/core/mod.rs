//! The engine's core: a state machine that decides everything and does nothing.
//!
//! [`Core::on`] takes an event and appends what is to be done to a buffer of [`Action`]s; [`Core::turn_end`] closes a batch
//! of events: it lets time pass and hands waiting tasks to workers. The driver performs the actions. The core has no clock,
//! no I/O and no randomness of its own: time and seed are handed in, so that a simulator can play any history again.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `event` `action` | what goes in and what comes out |
//! | `entry` `in_flight` | a delivery in hand, and how far it is; the table of them |
//! | `pools` | the workers (plugin hosts) of each generation |
//! | `scheduler` | which waiting task runs next |
//! | `task_keys` | what `fair_by` and `exclusive_by` tell tasks apart by |
//! | `rate` | how fast a handler's tasks may start |
//! | `queues` | the configured queues and their subscriptions |
//! | `handlers` `handler_health` | what is known of a handler over its generations; whether it is given tasks |
//! | `losses` | what explains a redelivery |
//! | `link` `arrival` `duplicates` | the broker's events: a delivery is reattached, routed or settled at once |
//! | `dispatch` `tick` | waiting tasks go to workers; what only the clock decides |
//! | `hosts` `charge` | the hosts' events: who answers for the end of a host |
//! | `outcome` `settle` | what the end of an attempt means, and how it is carried out |
//! | `swap` `pause` `cancel` `drain` | what operators ask for |
//! | `stuck` `odd` `errors` `status` `readiness` | what operators are shown |

mod action;
mod arrival;
mod cancel;
mod charge;
#[cfg(any(test, feature = "simulate"))]
mod check;
mod dispatch;
mod drain;
mod duplicates;
mod entry;
mod errors;
mod event;
mod handler_health;
mod handlers;
mod hosts;
mod in_flight;
mod keys;
mod link;
mod losses;
mod odd;
#[cfg(any(test, feature = "simulate"))]
mod originals;
mod outcome;
mod pause;
mod pools;
mod queues;
mod rate;
mod readiness;
mod scheduler;
mod settle;
mod status;
mod stuck;
mod swap;
mod task_keys;
#[cfg(test)]
mod tests;
mod tick;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::dedup::Memories;
use crate::model::status::BrokerStatus;
use crate::registry::Registry;
use crate::telemetry::TaskLog;

pub(crate) use self::action::{Action, Again, Copy, CopyKind};
pub(crate) use self::event::{CopyResult, Event, Now};
#[cfg(any(test, feature = "simulate"))]
pub(crate) use self::keys::EntryKey;

use self::drain::EnginePhase;
use self::errors::RecentErrors;
use self::handlers::Handlers;
use self::in_flight::InFlight;
use self::losses::Losses;
use self::pools::Pools;
use self::queues::Queues;
use self::scheduler::Scheduler;

/// How often time limits are looked at while tasks are in hand, and while none are.
const TICK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The state machine.
#[derive(Debug)]
pub(crate) struct Core {
    config: Arc<Config>,
    registry: Registry,
    log: TaskLog,
    random: fastrand::Rng,
    queues: Queues,
    pools: Pools,
    scheduler: Scheduler,
    in_flight: InFlight,
    /// How many there were.
    deliveries: u64,
    handlers: Handlers,
    /// Which tasks were done, where that is asked for.
    dedup: Memories,
    /// What is known of deliveries that are not in hand any more.
    losses: Losses,
    phase: EnginePhase,
    broker: BrokerStatus,
    errors: RecentErrors,
    /// The last copy that the broker did not take: why.
    not_taken: Option<String>,
    /// Why no host could be started lately, when that was not for a plugin's sake.
    machine_fault: Option<String>,
    /// When each thing that is not done at every turn was done last.
    last: Last,
    /// Whether the engine was ready when that was shown last.
    shown_ready: bool,
}

/// When something was done last.
#[derive(Debug)]
struct Last {
    tick: Instant,
    look_for_stuck: Instant,
    look_for_old: Instant,
    shown: Instant,
}

/// One call of the core: the clock, and where its actions go.
struct Turn<'a> {
    now: Now,
    actions: &'a mut Vec<Action>,
}

impl Turn<'_> {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}

impl Core {
    /// A core that consumes what `config` says, and runs what `registry` has. The driver starts a link to the same queues.
    /// `seed` decides everything random.
    pub(crate) fn new(
        config: Arc<Config>,
        registry: Registry,
        log: TaskLog,
        seed: u64,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Self {
        let at = now.instant;
        let mut core = Self {
            registry: Registry::default(),
            log,
            random: fastrand::Rng::with_seed(seed),
            queues: Queues::default(),
            pools: Pools::default(),
            scheduler: Scheduler::default(),
            in_flight: InFlight::default(),
            deliveries: 0,
            handlers: Handlers::default(),
            dedup: Memories::default(),
            losses: Losses::default(),
            phase: EnginePhase::Running,
            broker: BrokerStatus::default(),
            errors: RecentErrors::default(),
            not_taken: None,
            machine_fault: None,
            last: Last { tick: at, look_for_stuck: at, look_for_old: at, shown: at },
            shown_ready: false,
            config,
        };
        let turn = &mut Turn { now, actions };
        core.queues.configure(&core.config.queues, at);
        core.configure_dedup(turn);
        core.swap_registry(registry, turn);
        core
    }

    /// Takes an event.
    pub(crate) fn on(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        let turn = &mut Turn { now, actions };
        match event {
            Event::Link(event) => self.on_link(event, turn),
            Event::Host { host, event, rss } => self.on_host(host, event, rss, turn),
            Event::Copy { entry, result } => self.on_copy(entry, result, turn),
            Event::DedupLoaded { queue, found } => {
                self.dedup.loaded(&queue, found);
                self.in_flight.look_again();
            }
            Event::ConsumersStopped => self.on_consumers_stopped(),
        }
    }

    /// Closes a batch of events; to be called after each, and when [`next_tick`](Self::next_tick) has come.
    pub(crate) fn turn_end(&mut self, now: Now, actions: &mut Vec<Action>) {
        let turn = &mut Turn { now, actions };
        if now.instant >= self.next_tick() {
            self.last.tick = now.instant;
            self.tick(turn);
        }
        self.dispatch(turn);
        self.end_excess_hosts(turn);
        self.show(turn);
        if self.is_drained(turn) {
            turn.act(Action::Drained);
        }
    }

    /// What is in force.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// When [`turn_end`](Self::turn_end) wants to be called although nothing happens.
    pub(crate) fn next_tick(&self) -> Instant {
        self.last.tick + if self.in_flight.is_empty() { TICK.1 } else { TICK.0 }
    }
}
