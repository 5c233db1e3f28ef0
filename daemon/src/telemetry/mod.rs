//! Logs: the journal's own fields under systemd, human text on stderr otherwise.
//!
//! Whoever logs only makes a [`record::LogRecord`] and puts it into a bounded queue; one thread renders and writes.
//! So a slow journal or terminal never holds up the data path: what does not fit is dropped, counted, and the
//! count is logged.
//!
//! - [`init`] sets up `tracing` for the process and returns the [`Guard`]: level reload, flush at the end.
//! - [`TaskLog`] is the data path's way in: one branch and no allocation where its level is off.
//!
//! Levels: a bare level is for Warren's own modules, for `task` (the life of tasks) and for `handler` (what
//! handlers log and print); libraries stay at `warn` unless named, as in `info,lapin=debug`.

mod journald;
mod layer;
mod record;
mod site;
mod task_log;
mod text;
mod writer;

pub use task_log::{Finished, TaskLog, TaskRef};

use std::io::IsTerminal;

use anyhow::{Context, anyhow};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

use crate::config::log_level::LogFilter;
use crate::config::{Environment, Log, LogTarget};
use writer::{Sink, Writer};

/// Sets up logging for the whole process. Call once, before the first thread that logs.
///
/// # Errors
/// A level that is none, a journal that is asked for and not there, a second call.
pub fn init(log: &Log, environment: &Environment) -> Result<Guard, InitError> {
    let writer = Writer::start(sink(log.target, environment)?).map_err(InitError::Thread)?;
    let (guard, subscriber) = assemble(log, writer)?;
    tracing::subscriber::set_global_default(subscriber).context("logging is set up already")?;
    Ok(guard)
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// What is configured cannot be had.
    #[error("{0:#}")]
    Config(#[from] anyhow::Error),
    /// The system gives no thread.
    #[error("cannot start the log thread: {0}")]
    Thread(std::io::Error),
}

/// Keeps the log thread. Dropped at the very end, it writes out what is queued (for a second at most).
#[derive(Debug)]
pub struct Guard {
    writer: Writer,
    task_log: TaskLog,
    targets: reload::Handle<Targets, Registry>,
}

impl Guard {
    /// The data path's log.
    pub fn task_log(&self) -> TaskLog {
        self.task_log.clone()
    }

    /// Puts another `log.level` in force, at once and for every thread.
    ///
    /// # Errors
    /// The text is not a level; the old one stays.
    pub fn set_level(&self, level: &str) -> anyhow::Result<()> {
        let filter = LogFilter::parse(level).map_err(|why| anyhow!("log.level: {why}"))?;
        self.task_log.set_levels(filter.task, filter.handler);
        self.targets.reload(filter.targets).context("logging has ended")
    }

    /// Lines lost since the start because the log was too slow.
    pub fn lost_lines(&self) -> u64 {
        self.writer.lost()
    }

    /// Waits until everything logged so far is written, for a second at most.
    pub fn flush(&self) {
        self.writer.flush();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Everything but making it the process's subscriber.
fn assemble(
    log: &Log,
    writer: Writer,
) -> anyhow::Result<(Guard, impl tracing::Subscriber + Send + Sync + use<>)> {
    let filter = LogFilter::parse(&log.level).map_err(|why| anyhow!("log.level: {why}"))?;
    let task_log = TaskLog::new(writer.queue(), filter.task, filter.handler);
    let (targets, handle) = reload::Layer::new(filter.targets);
    let subscriber = Registry::default().with(targets).with(layer::Forward::new(writer.queue()));
    Ok((Guard { writer, task_log, targets: handle }, subscriber))
}

fn sink(target: LogTarget, environment: &Environment) -> anyhow::Result<Sink> {
    match target {
        LogTarget::Journald => {
            let journal = journald::Journal::connect();
            journal.map(Sink::Journal).context("no journal here: set log.target = \"stderr\" or \"auto\"")
        }
        // A journal that is announced but does not answer is no reason not to start: stderr leads there as well.
        LogTarget::Auto if journald::is_stderr(environment) => {
            Ok(journald::Journal::connect().map_or_else(|_| stderr(environment), Sink::Journal))
        }
        LogTarget::Auto | LogTarget::Stderr => Ok(stderr(environment)),
    }
}

fn stderr(environment: &Environment) -> Sink {
    let stderr = std::io::stderr();
    let wanted = environment.get("NO_COLOR").is_none();
    Sink::Text { color: wanted && stderr.is_terminal(), out: Box::new(stderr) }
}

#[cfg(test)]
mod tests;
