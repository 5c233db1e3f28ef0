//! Warren with the no-op handler.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use warren::control::client::Client;
use warren::engine::PauseTarget;
use warren::model::status::{Counts, Status};

use super::process::Process;
use super::queue::Tasks;
use super::usage::{self, Measured};
use super::{Bench, limit};

/// How long it may take to start, and to end when asked.
const START_OR_STOP: Duration = Duration::from_mins(1);

/// Between two looks at the status: each costs the daemon about as much as ten tasks, so that far from the end there
/// are few, and a late one near the end costs little precision.
const LOOKS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// What a daemon is started with.
pub(crate) struct Setup<'a> {
    target: &'a Path,
    uri: String,
    queue: &'a str,
    prefetch: u16,
    workers: u16,
    stamp: Option<&'a Path>,
    others: u16,
    max_idle_hosts: Option<u16>,
}

/// A running `warrend` of the release build. Dropping it kills it.
pub(crate) struct Daemon {
    process: Process,
    client: Client,
    _directory: TempDir,
}

impl<'a> Setup<'a> {
    /// prefetch × workers of that queue.
    pub(crate) fn new(bench: &'a Bench, queue: &'a str, (prefetch, workers): (u16, u16)) -> Self {
        Self {
            target: &bench.target,
            uri: bench.uri(),
            queue,
            prefetch,
            workers,
            stamp: None,
            others: 0,
            max_idle_hosts: None,
        }
    }

    /// A FIFO that gets a byte per task.
    pub(crate) fn with_stamp(self, fifo: &'a Path) -> Self {
        Self { stamp: Some(fifo), ..self }
    }

    /// So many other handlers of the same plugin.
    pub(crate) fn beside(self, others: u16) -> Self {
        Self { others, ..self }
    }

    /// It keeps so many hosts without a task, instead of what is the default.
    pub(crate) fn keeping(self, idle_hosts: u16) -> Self {
        Self { max_idle_hosts: Some(idle_hosts), ..self }
    }

    /// The retry delay is so long that no retry comes back while something is measured.
    fn config(&self, directory: &Path) -> String {
        let Self { uri, queue, prefetch, workers, .. } = self;
        let stamp = self.stamp.map_or(String::new(), |path| format!("stamp = \"{}\"\n", path.display()));
        let directory = directory.display();
        let handler = |n| format!("[handlers.idle-{n}]\nplugin = \"noop\"\nprefixes = [\"Idle{n}:\"]");
        let others = (0..self.others).map(handler).collect::<Vec<_>>().join("\n");
        let max_idle_hosts =
            self.max_idle_hosts.map_or(String::new(), |most| format!("max_idle_hosts = {most}\n"));
        format!(
            "[broker]\nuri = \"{uri}\"\n[queues.{queue}]\nprefetch = {prefetch}\nworkers = {workers}\n\
             [plugins]\ndir = \"{directory}/plugins\"\n{max_idle_hosts}[daemon]\nsocket = \"{directory}/control.sock\"\n\
             [log]\nlevel = \"error,task=off\"\n\
             [handlers.noop]\nplugin = \"noop\"\ntimeout = \"1s\"\n\
             retry = {{ attempts = 2, delay = \"1h\", max_delay = \"1h\", jitter = 0.0 }}\n\
             [handlers.noop.settings]\n{stamp}\n{others}"
        )
    }
}

impl Daemon {
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self> {
        let directory = TempDir::new()?;
        let plugins = directory.path().join("plugins");
        fs::create_dir(&plugins)?;
        fs::copy(setup.target.join("libwarren_fixture_noop.so"), plugins.join("noop.so"))?;
        let config = directory.path().join("warren.toml");
        fs::write(&config, setup.config(directory.path()))?;
        let config = config.to_str().context("a path in UTF-8")?;
        let process = Process::start(&setup.target.join("warrend"), &["--config", config], Stdio::inherit())?;
        let client = Client::new(directory.path().join("control.sock"));
        Ok(Self { process, client, _directory: directory })
    }

    /// Asks for the status until `wanted` says it is there.
    pub(crate) fn wait(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<Status> {
        self.wait_at(limit, |status| if wanted(status) { None } else { Some(LOOKS.0) })
    }

    /// Waits until so many tasks are settled.
    pub(crate) fn wait_settled(&mut self, count: u64, limit: Duration) -> Result<Status> {
        let start = Instant::now();
        let before = settled(&self.wait(limit, |_| true)?);
        self.wait_at(limit, |status| {
            let now = settled(status);
            let left = count.checked_sub(now).filter(|left| *left > 0)?;
            // Half of what the rest takes at the pace so far.
            let share = left as f64 / (now - before).max(1) as f64 / 2.0;
            Some(
                Duration::from_secs_f64((start.elapsed().as_secs_f64() * share).min(1.0))
                    .clamp(LOOKS.0, LOOKS.1),
            )
        })
    }

    /// Asks until `after` names no further look.
    fn wait_at(
        &mut self,
        limit: Duration,
        mut after: impl FnMut(&Status) -> Option<Duration>,
    ) -> Result<Status> {
        let end = Instant::now() + limit;
        loop {
            let pause = match self.client.status() {
                Ok(status) => match after(&status) {
                    None => return Ok(status),
                    Some(pause) => pause,
                },
                // It is starting.
                Err(_) => LOOKS.0,
            };
            if let Some(status) = self.process.child.try_wait()? {
                bail!("warrend ended: {status}");
            }
            ensure!(Instant::now() < end, "warrend does not get there within {limit:?}");
            std::thread::sleep(pause);
        }
    }

    /// The processes: the daemon, and its hosts as the status has them.
    pub(crate) fn pids(&self, status: &Status) -> Vec<u32> {
        let hosts = status.handlers.iter().flat_map(|handler| handler.hosts.iter().copied());
        std::iter::once(self.process.pid()).chain(hosts).collect()
    }

    /// Measures how it settles so many tasks more, from the first look that shows one of them delivered on: the start,
    /// which is no task's, is left out. Then ends it.
    ///
    /// `before` tasks have failed already.
    fn measure(mut self, tasks: Tasks, before: u64) -> Result<Measured> {
        let first = self.wait(START_OR_STOP, |status| counts(status).delivered > before)?;
        let start = Instant::now();
        let cpu_of = |daemon: &Self, status: &Status| {
            let all = daemon.pids(status).into_iter().map(usage::cpu_time).sum::<Result<Duration>>();
            all.context("a host ended before it was measured")
        };
        let cpu = cpu_of(&self, &first)?;
        let end = before + u64::from(tasks.count);
        let last = self.wait_settled(end, limit(tasks.count))?;
        let wall = start.elapsed();
        let cpu = cpu_of(&self, &last)?.saturating_sub(cpu);
        let peak_mib = self.pids(&last).into_iter().map(usage::peak_mib).sum::<Result<f64>>()?;
        let failed = counts(&last).retried - before;
        let wanted = u64::from(tasks.failing_count());
        ensure!(failed == wanted, "{failed} tasks failed instead of {wanted}");
        self.stop()?;
        Ok(Measured { tasks: (end - settled(&first)) as u32, wall, cpu, peak_mib })
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.process.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.process.wait(START_OR_STOP)?;
        ensure!(status.success(), "warrend: {status}");
        Ok(())
    }
}

/// Drains what stands in the queue.
pub(crate) fn drain(setup: &Setup<'_>, tasks: Tasks) -> Result<Measured> {
    Daemon::start(setup)?.measure(tasks, 0)
}

/// Fills the queue for a daemon that has retried a task before, and drains it. The first retry of its life does not
/// count: a daemon does not rely at once on a delay queue that it does not know, and holds tasks for some seconds.
pub(crate) fn drain_acquainted(bench: &Bench, setup: &Setup<'_>, tasks: Tasks) -> Result<Measured> {
    let queue = PauseTarget::Queue(setup.queue.to_owned());
    bench.fill(setup.queue, Tasks { count: 1, failing: Some(1) })?;
    let mut daemon = Daemon::start(setup)?;
    daemon.wait_settled(1, START_OR_STOP)?;
    daemon.client.hold(&queue, true)?;
    bench.fill(setup.queue, tasks)?;
    daemon.client.hold(&queue, false)?;
    daemon.measure(tasks, 1)
}

/// Tasks of which the broker has taken everything.
fn settled(status: &Status) -> u64 {
    let settling: usize = status.queues.iter().map(|queue| queue.settling).sum();
    let counts = counts(status);
    (counts.done + counts.retried).saturating_sub(settling as u64)
}

/// The counts of its one queue.
fn counts(status: &Status) -> Counts {
    status.queues.first().map(|queue| queue.counts).unwrap_or_default()
}
