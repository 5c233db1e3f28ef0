//! Reloads in the order they are asked for: one at a time, requests during a run become one further run.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::blocking;
use crate::config::Config;
use crate::engine::EngineCommand;
use crate::failpoint::failpoint;
use crate::host::{self, Spawner};
use crate::model::UnixMs;
use crate::model::status::{HandlerChange, ReloadReply, ReloadRow};
use crate::registry::{Generation, Slot};
use crate::reload::{self, Plan};

use super::MainLoop;

/// The reload state of the daemon.
pub(super) struct Reloads {
    /// What runs now.
    slots: Vec<Slot>,
    /// The last generation number given out.
    numbers: u64,
    spawner: Spawner,
    running: Option<JoinHandle<Built>>,
    /// Who waits for the run under way.
    waiting: Vec<oneshot::Sender<ReloadReply>>,
    /// Asked for during the run under way, and by whom.
    again: Option<Vec<oneshot::Sender<ReloadReply>>>,
    /// The last one that ended.
    pub(super) last: Option<ReloadReply>,
    /// How many put everything in force, and how many did not.
    pub(super) counts: (u64, u64),
}

/// What a run came to: a plan to be swapped in, or why nothing changes.
pub(super) struct Built {
    numbers: u64,
    result: Result<(Arc<Config>, Plan), String>,
}

impl Reloads {
    pub(super) fn new(slots: Vec<Slot>, numbers: u64, spawner: Spawner) -> Self {
        Self {
            slots,
            numbers,
            spawner,
            running: None,
            waiting: Vec::new(),
            again: None,
            last: None,
            counts: (0, 0),
        }
    }

    /// Whether a run is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Waits for the run under way; without end when there is none.
    pub(super) async fn finished(&mut self) -> Built {
        let Some(running) = &mut self.running else { return pending().await };
        let built = match running.await {
            Ok(built) => built,
            Err(error) => Built { numbers: self.numbers, result: Err(format!("the reload failed: {error}")) },
        };
        self.running = None;
        built
    }
}

impl MainLoop {
    /// Starts a reload, or notes that another one is wanted after the one under way.
    pub(super) fn request_reload(&mut self, reply: Option<oneshot::Sender<ReloadReply>>) {
        if self.reloads.running.is_some() {
            self.reloads.again.get_or_insert_default().extend(reply);
            return;
        }
        self.reloads.waiting.extend(reply);
        self.notifier.reloading();
        tracing::info!("reloading");
        let (path, slots) = (self.path.clone(), self.reloads.slots.clone());
        let (mut numbers, spawner) = (self.reloads.numbers, self.reloads.spawner.clone());
        self.reloads.running = Some(tokio::task::spawn_local(async move {
            let loaded = blocking::run("config", move || super::load(&path)).await;
            let loaded = match loaded {
                Ok(Ok(loaded)) => loaded,
                Ok(Err(errors)) => return Built { numbers, result: Err(format!("configuration: {errors}")) },
                Err(error) => return Built { numbers, result: Err(format!("configuration: {error}")) },
            };
            for warning in &loaded.warnings {
                tracing::warn!("{warning}");
            }
            let config = Arc::new(loaded.config);
            let plan = reload::plan(&config, &slots, &mut numbers, &spawner).await;
            Built { numbers, result: plan.map(|plan| (config, plan)).map_err(|error| error.to_string()) }
        }));
    }

    /// Swaps in what was built, or keeps everything; tells everybody who waited.
    pub(super) async fn on_reload_done(&mut self, built: Built) {
        self.reloads.numbers = built.numbers;
        let reply = match built.result {
            Ok((config, plan)) => self.swap(config, plan).await,
            Err(error) => {
                tracing::error!(%error, "reload failed, nothing changed");
                ReloadReply { error: Some(error), ..ReloadReply::default() }
            }
        };
        let reply = ReloadReply { at_ms: UnixMs::now().0, ..reply };
        tracing::info!(ok = reply.ok, "reload ended");
        let count = if reply.ok { &mut self.reloads.counts.0 } else { &mut self.reloads.counts.1 };
        *count += 1;
        // READY on every way out of a reload, or systemd waits for it until its time limit; and before the answer,
        // so that the service is active again when ExecReload's client ends.
        self.notifier.ready(&self.health.borrow().line);
        self.reloads.last = Some(reply.clone());
        for waiting in self.reloads.waiting.drain(..) {
            let _ = waiting.send(reply.clone()); // a client that hung up needs no answer
        }
        if let Some(again) = self.reloads.again.take() {
            let mut again = again.into_iter();
            self.request_reload(again.next());
            self.reloads.waiting.extend(again);
        }
    }

    async fn swap(&mut self, config: Arc<Config>, plan: Plan) -> ReloadReply {
        let ok = plan.ok();
        log_rows(&plan.rows);
        warn_of_consumer_timeout(&config, &plan.registry.slots);
        warn_of_bounds(&config, &self.reloads.spawner);
        if config.daemon.socket != self.config.daemon.socket {
            tracing::warn!("daemon.socket takes effect at the next start");
        }
        if config.daemon.state_dir != self.config.daemon.state_dir {
            tracing::warn!("daemon.state_dir takes effect at the next start");
        }
        if let Err(error) = self.telemetry.set_level(&config.log.level) {
            tracing::warn!(error = %format!("{error:#}"), "log.level is unchanged");
        }
        self.reloads.slots.clone_from(&plan.registry.slots);
        self.config = config.clone();
        failpoint!("reload::before-swap");
        let (swapped, done) = oneshot::channel();
        self.engine.send(EngineCommand::Swap(config, plan.registry, swapped));
        let swapped = done.await;
        failpoint!("reload::after-swap");
        let error = swapped.err().map(|_| "the daemon is ending".to_owned());
        ReloadReply { ok: ok && error.is_none(), at_ms: 0, error, handlers: plan.rows }
    }
}

/// Handlers that can hold a delivery longer than the broker allows. What the files alone tell was said with the
/// configuration's other warnings.
pub(super) fn warn_of_consumer_timeout(config: &Config, slots: &[Slot]) {
    for generation in slots.iter().filter_map(Slot::active) {
        let Generation { handler, queues, limits, timeout, .. } = &**generation;
        for risk in config.consumer_timeout_risks(handler, queues.as_deref(), limits, *timeout) {
            tracing::warn!("{risk}");
        }
    }
}

/// What handlers are to be held to and this machine cannot.
pub(super) fn warn_of_bounds(config: &Config, spawner: &Spawner) {
    for handler in &config.handlers {
        for fault in host::not_in_force(&handler.limits.bounds, spawner.controllers()) {
            tracing::warn!(handler = %handler.name, "{fault}");
        }
    }
}

/// One line per handler that changed or failed.
pub(super) fn log_rows(rows: &[ReloadRow]) {
    for row in rows {
        match &row.error {
            Some(error) => {
                tracing::error!(handler = %row.handler, change = %row.change, generation = row.generation, %error, "handler not as asked");
            }
            None if row.change == HandlerChange::Unchanged => {
                tracing::debug!(handler = %row.handler, generation = row.generation, "handler unchanged");
            }
            None => {
                tracing::info!(handler = %row.handler, generation = row.generation, "handler {}", row.change);
            }
        }
    }
}
