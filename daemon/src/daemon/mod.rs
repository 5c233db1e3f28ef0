//! Owns everything: start, signals, reload, drain. The main thread runs what may take its time (config, plugin
//! inspection, the control socket); the data path has a thread of its own.

mod arguments;
mod data_thread;
mod memory;
mod process;
mod pulse;
mod reloads;
mod requests;
mod signals;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::config::{Config, ConfigErrors, Environment};
use crate::control::server::{ControlServer, Request};
use crate::engine::{EngineCommand, EngineHandle, Health};
use crate::host::{Groups, Spawner};
use crate::model::UnixMs;
use crate::plugin::DiscoverError;
use crate::reload;
use crate::stderr;
use crate::systemd::Notifier;
use crate::telemetry::{self, InitError};

pub use self::arguments::Arguments;
use self::data_thread::DataThread;
use self::pulse::{MORE_TIME, Pulse};
use self::reloads::Reloads;
use self::signals::Signal;

/// Control requests that wait for the main loop. It answers each at once, so that a few are plenty.
const REQUESTS: usize = 64;

/// sysexits(3) of the daemon.
mod exit {
    pub(super) const UNAVAILABLE: u8 = 69;
    pub(super) const SOFTWARE: u8 = 70;
    pub(super) const TEMPFAIL: u8 = 75;
    pub(super) const CONFIG: u8 = 78;
}

/// Everything the main loop works with.
struct MainLoop {
    path: PathBuf,
    config: Arc<Config>,
    started: Instant,
    started_ms: u64,
    engine: EngineHandle,
    health: watch::Receiver<Health>,
    reloads: Reloads,
    pulse: Pulse,
    notifier: Notifier,
    telemetry: Rc<telemetry::Guard>,
    ready_given: bool,
    draining: bool,
    exit: u8,
}

/// Why the daemon does not start, with its exit code.
struct StartError(u8, anyhow::Error);

/// Runs the daemon until it is told to stop. Errors before logging is set up go to stderr, one per line.
pub fn run(path: &Path) -> ExitCode {
    memory::give_back_large_blocks();
    let sealed = process::seal();
    let environment = Environment::of_process();
    let loaded = match Config::load(path, &environment) {
        Ok(loaded) => loaded,
        Err(errors) => {
            stderr::print(&format!("warrend: the configuration has errors, nothing was started\n{errors}"));
            return ExitCode::from(exit::CONFIG);
        }
    };
    // Held until the end of this function, so that the reason for not starting is still written.
    let guard = match telemetry::init(&loaded.config.log, &environment) {
        Ok(guard) => Rc::new(guard),
        Err(error) => {
            stderr::print(&format!("warrend: logging cannot be set up: {error}"));
            let code = if matches!(error, InitError::Config(_)) { exit::CONFIG } else { exit::SOFTWARE };
            return ExitCode::from(code);
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = sealed {
        tracing::warn!(%error, "plugin hosts can read the memory of warrend: it cannot be made undumpable");
    }
    if let Err(error) = process::raise_open_files() {
        tracing::error!("not started: {error:#}");
        return ExitCode::from(exit::CONFIG);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the main loop cannot be set up");
            return ExitCode::from(exit::SOFTWARE);
        }
    };
    let result = LocalSet::new().block_on(&runtime, start(path, loaded.config, guard.clone(), &environment));
    let code = match result {
        Ok(code) => code,
        Err(StartError(code, error)) => {
            tracing::error!("not started: {error:#}");
            code
        }
    };
    // A blocking task (a plugins directory on a dead mount) must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ExitCode::from(code)
}

async fn start(
    path: &Path,
    config: Config,
    telemetry: Rc<telemetry::Guard>,
    environment: &Environment,
) -> Result<u8, StartError> {
    let started = Instant::now();
    let software = |error: anyhow::Error| StartError(exit::SOFTWARE, error);
    let config = Arc::new(config);
    let signals = signals::listen().context("signal handlers").map_err(software)?;
    crate::host::become_subreaper().context("child subreaper").map_err(software)?;
    let spawner = spawner().context("the thread that starts plugin hosts").map_err(software)?;
    let taken = |error: std::io::Error| StartError(exit::TEMPFAIL, error.into());
    let mut server = ControlServer::bind(&config.daemon.socket, config.daemon.socket_mode).map_err(taken)?;
    if let Some(address) = config.daemon.monitor {
        server = server.monitor(address).map_err(taken)?;
    }
    let mut numbers = 0;
    let plan = reload::plan(&config, &[], &mut numbers, &spawner).await.map_err(|error| match error {
        DiscoverError::NotLooked(_) => software(error.into()),
        error => StartError(exit::CONFIG, error.into()),
    })?;
    reloads::log_rows(&plan.rows);
    reloads::warn_of_consumer_timeout(&config, &plan.registry.slots);
    reloads::warn_of_bounds(&config, &spawner);
    let slots = plan.registry.slots.clone();
    let (data, engine, health) =
        DataThread::start(config.clone(), plan.registry, spawner.clone(), telemetry.task_log())
            .map_err(software)?;
    let (requests, receiver) = mpsc::channel(REQUESTS);
    let serving = tokio::task::spawn_local(server.run(requests));
    let notifier = Notifier::from_environment(environment);
    let daemon = MainLoop {
        path: path.to_owned(),
        reloads: Reloads::new(slots, numbers, spawner),
        pulse: Pulse::new(engine.clone(), notifier.watchdog_interval()),
        config,
        started,
        started_ms: UnixMs::now().0,
        engine,
        health,
        notifier,
        telemetry,
        ready_given: false,
        draining: false,
        exit: 0,
    };
    let code = daemon.run(signals, receiver).await;
    serving.abort();
    let _ = serving.await; // removes the socket file
    data.join();
    Ok(code)
}

/// Plugin hosts get cgroups of their own where one is delegated.
fn spawner() -> std::io::Result<Spawner> {
    match Groups::take() {
        Ok(groups) => {
            let has = groups.controllers();
            tracing::info!(
                memory = has.memory,
                cpu = has.cpu,
                pids = has.pids,
                "each plugin host gets a cgroup of its own"
            );
            Spawner::with_groups(groups)
        }
        Err(why) => {
            tracing::info!(%why, "plugin hosts are bounded by rlimits and process groups, not by cgroups");
            Spawner::start()
        }
    }
}

impl MainLoop {
    async fn run(mut self, mut signals: mpsc::Receiver<Signal>, mut requests: mpsc::Receiver<Request>) -> u8 {
        let give_ready = tokio::time::sleep(self.start_wait());
        tokio::pin!(give_ready);
        loop {
            tokio::select! {
                Some(signal) = signals.recv() => self.on_signal(signal),
                Some(request) = requests.recv() => self.on_request(request),
                done = self.reloads.finished() => self.on_reload_done(done).await,
                () = self.pulse.answered() => self.on_pulse(),
                () = &mut give_ready, if !self.ready_given && !self.draining => self.on_start_wait_over(),
                changed = self.health.changed() => {
                    if changed.is_err() || self.health.borrow().ended {
                        return self.ended();
                    }
                    self.on_health();
                }
            }
        }
    }

    fn start_wait(&self) -> Duration {
        const NO_LIMIT: Duration = Duration::from_secs(60 * 60 * 24 * 365);
        if self.config.daemon.start_wait.is_zero() { NO_LIMIT } else { self.config.daemon.start_wait }
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Reload => self.request_reload(None),
            Signal::Stop => self.stop(),
            Signal::LogStatus => {
                let health = self.health.borrow();
                tracing::info!(ready = health.ready, status = %health.line, "status");
            }
        }
    }

    /// Starts the drain; a second call shortens it.
    fn stop(&mut self) {
        if !self.draining {
            self.notifier.stopping("draining");
            self.notifier.extend_timeout(MORE_TIME);
        }
        self.draining = true;
        self.engine.send(EngineCommand::Drain);
    }

    fn on_health(&mut self) {
        let health = self.health.borrow_and_update().clone();
        if health.ready && !self.ready_given {
            self.give_ready();
        }
        self.notifier.status(&health.line);
    }

    /// Both loops have turned. What takes its time without anything to be seen (a drain behind one long task, a broker
    /// that stays away, a slow probe) is not stuck.
    fn on_pulse(&self) {
        self.notifier.watchdog();
        if self.draining || !self.ready_given || self.reloads.is_running() {
            self.notifier.extend_timeout(MORE_TIME);
        }
    }

    fn give_ready(&mut self) {
        self.ready_given = true;
        tracing::info!(after_ms = self.started.elapsed().as_millis() as u64, "ready");
        self.notifier.ready(&self.health.borrow().line);
    }

    /// Not consuming yet: the service is active anyway, unless the operator wants a failure.
    fn on_start_wait_over(&mut self) {
        if self.config.daemon.require_broker {
            tracing::error!(
                "not consuming after {:?} and daemon.require_broker is set",
                self.config.daemon.start_wait
            );
            self.exit = exit::UNAVAILABLE;
            self.ready_given = true;
            self.stop();
            return;
        }
        tracing::warn!("started, not consuming yet; {}", self.health.borrow().line);
        self.give_ready();
    }

    fn ended(&self) -> u8 {
        if self.health.borrow().ended {
            tracing::info!("stopped");
            return self.exit;
        }
        tracing::error!("the data path ended by itself; this is a bug");
        exit::SOFTWARE
    }
}

/// Loads the configuration again.
fn load(path: &Path) -> Result<crate::config::Loaded, ConfigErrors> {
    let environment = Environment::of_process();
    Config::load(path, &environment)
}
