//! Warren with the no-op handler, draining a full queue.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use warren::control::api::Status;
use warren::control::client::Client;

use super::LIMIT;
use super::usage::{self, Measured};

/// A running `warrend` of the release build. Dropping it kills it.
pub(crate) struct Daemon {
    _directory: TempDir,
    child: Child,
    client: Client,
}

impl Daemon {
    /// Starts it on queue `bench` with the no-op handler. `stamp`: a FIFO that gets a byte per task.
    pub(crate) fn start(
        target: &Path,
        uri: &str,
        prefetch: u16,
        workers: u16,
        stamp: Option<&Path>,
    ) -> Result<Self> {
        let directory = TempDir::new()?;
        let plugins = directory.path().join("plugins");
        fs::create_dir(&plugins)?;
        fs::copy(target.join("libwarren_fixture_noop.so"), plugins.join("noop.so"))?;
        let settings = stamp.map_or(String::new(), |path| {
            let path = path.display();
            format!("[handlers.noop.settings]\nstamp = \"{path}\"\n")
        });
        let socket = directory.path().join("control.sock");
        let config = format!(
            "[broker]\nuri = {uri:?}\n[queues.bench]\nprefetch = {prefetch}\nworkers = {workers}\n\
             [plugins]\ndir = \"{}\"\n[daemon]\nsocket = \"{}\"\n[log]\nlevel = \"warn\"\n\
             [handlers.noop]\nplugin = \"noop\"\ntimeout = \"1s\"\n{settings}",
            plugins.display(),
            socket.display()
        );
        let path = directory.path().join("warren.toml");
        fs::write(&path, config)?;
        let child =
            Command::new(target.join("warrend")).arg("--config").arg(&path).stdin(Stdio::null()).spawn()?;
        Ok(Self { _directory: directory, child, client: Client::new(socket) })
    }

    /// Asks for the status until `wanted` says it is there.
    pub(crate) fn wait(&mut self, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let end = Instant::now() + LIMIT;
        loop {
            if let Ok(status) = self.client.status()
                && wanted(&status)
            {
                return Ok(status);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("warrend ended: {status}");
            }
            ensure!(Instant::now() < end, "warrend does not get there within {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "warrend: {status}");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Drains `count` tasks that stand in the queue.
pub(crate) fn drain(target: &Path, uri: &str, prefetch: u16, workers: u16, count: u32) -> Result<Measured> {
    let mut daemon = Daemon::start(target, uri, prefetch, workers, None)?;
    daemon.wait(|status| status.queues.iter().any(|queue| queue.counts.delivered > 0))?;
    let start = Instant::now();
    let status =
        daemon.wait(|status| status.queues.iter().any(|queue| queue.counts.done >= u64::from(count)))?;
    let wall = start.elapsed();
    let daemon_pid = daemon.child.id();
    let hosts: Vec<u32> = status.handlers.iter().flat_map(|handler| handler.hosts.clone()).collect();
    let mut cpu = usage::cpu_time(daemon_pid)?;
    let mut peak_mib = usage::peak_mib(daemon_pid)?;
    for host in &hosts {
        cpu += usage::cpu_time(*host).context("a host ended before it was measured")?;
        peak_mib += usage::peak_mib(*host)?;
    }
    daemon.stop()?;
    Ok(Measured { wall, cpu, peak_mib })
}
