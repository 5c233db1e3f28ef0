//! The thread that runs the engine, on a current-thread runtime of its own.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::config::Config;
use crate::engine::{self, EngineHandle, Health};
use crate::host::Spawner;
use crate::registry::Registry;
use crate::telemetry::TaskLog;

/// Joined when the daemon ends.
pub(super) struct DataThread {
    thread: JoinHandle<()>,
}

impl DataThread {
    /// Starts the data path. It consumes as soon as the broker is there.
    pub(super) fn start(
        config: Arc<Config>,
        registry: Registry,
        spawner: Spawner,
        log: TaskLog,
    ) -> anyhow::Result<(Self, EngineHandle, watch::Receiver<Health>)> {
        let (engine, commands) = engine::channel();
        let (health, shown) =
            watch::channel(Health { line: "connecting to the broker".to_owned(), ..Health::default() });
        let (built, is_built) = std::sync::mpsc::channel();
        // The runtime is made where it runs: one that is not needed after all must not be dropped on another runtime.
        let thread = std::thread::Builder::new()
            .name("warren-data".to_owned())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(built.send(error)),
                };
                drop(built);
                LocalSet::new()
                    .block_on(&runtime, engine::run(config, registry, spawner, log, commands, health));
            })
            .context("data path thread")?;
        match is_built.recv() {
            Ok(error) => Err(error).context("data path runtime"),
            Err(_) => Ok((Self { thread }, engine, shown)),
        }
    }

    /// Waits for the engine to end. A panic in it was reported by the panic hook.
    pub(super) fn join(self) {
        let _ = self.thread.join();
    }
}
