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

/// Message headers are copied and dropped recursively here; `main` says how deep they can be.
const STACK: usize = 64 << 20;

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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("data path runtime")?;
        let thread = std::thread::Builder::new()
            .name("warren-data".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                LocalSet::new()
                    .block_on(&runtime, engine::run(config, registry, spawner, log, commands, health));
            })
            .context("data path thread")?;
        Ok((Self { thread }, engine, shown))
    }

    /// Waits for the engine to end. A panic in it was reported by the panic hook.
    pub(super) fn join(self) {
        let _ = self.thread.join();
    }
}
