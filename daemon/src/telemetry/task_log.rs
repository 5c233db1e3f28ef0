//! The life of tasks in the log, cheap enough for the data path.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::types::FieldTable;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;

use super::record::{LogRecord, TaskPart};
use super::site;
use super::writer::{RecordQueue, RecordSource};
use crate::model::{DeadReason, Outcome, TaskError};
use crate::registry::Generation;
use crate::settlement::Settlement;
use crate::task::trace;

/// The data path's log. Clones share the level. Where the level is off, a call costs one branch.
#[derive(Debug, Clone, Default)]
pub struct TaskLog {
    inner: Option<EnabledLog>,
}

#[derive(Debug, Clone)]
struct EnabledLog {
    queue: RecordQueue,
    task: Arc<AtomicUsize>,
    handler: Arc<AtomicUsize>,
}

/// The task that a line is about. What is not known is left out of the line.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskRef<'a> {
    /// Its id; empty: none.
    pub id: &'a str,
    pub queue: Option<&'a Arc<str>>,
    /// What runs it: its handler, generation number and plugin digest.
    pub generation: Option<&'a Arc<Generation>>,
    /// Attempt, from 1; 0: none.
    pub attempt: u32,
    /// Its headers, which may name a trace.
    pub headers: Option<&'a FieldTable>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// What the handler said.
    pub outcome: Outcome,
    /// Its error, when there is one.
    pub error: Option<&'a TaskError>,
    /// What is done at the broker.
    pub settlement: Settlement,
    /// How long the handler took.
    pub duration: Duration,
}

impl TaskLog {
    /// Logs nothing: for tests and for tools.
    pub fn off() -> Self {
        Self::default()
    }

    pub(super) fn new(queue: RecordQueue, task: LevelFilter, handler: LevelFilter) -> Self {
        let log = Self { inner: Some(EnabledLog { queue, task: Arc::default(), handler: Arc::default() }) };
        log.set_levels(task, handler);
        log
    }

    pub(super) fn set_levels(&self, task: LevelFilter, handler: LevelFilter) {
        if let Some(inner) = &self.inner {
            inner.task.store(rank(task), Ordering::Relaxed);
            inner.handler.store(rank(handler), Ordering::Relaxed);
        }
    }

    /// Whether lines about the life of tasks are wanted at this level.
    #[inline]
    pub fn enabled(&self, level: Level) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.task.load(Ordering::Relaxed) >= rank(level.into()))
    }

    /// Whether what handlers log is wanted at this level.
    #[inline]
    pub fn handler_enabled(&self, level: Level) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.handler.load(Ordering::Relaxed) >= rank(level.into()))
    }

    /// The broker delivered it; `debug`.
    #[inline]
    pub fn received(&self, task: TaskRef<'_>, body_bytes: usize, redelivered: bool) {
        if self.enabled(Level::DEBUG) {
            let mut record = about(task, site::task(Level::DEBUG), "task received");
            record.field("bytes", body_bytes.to_string());
            record.field("redelivered", redelivered.to_string());
            self.push(record);
        }
    }

    /// A host was given it; `debug`.
    #[inline]
    pub fn started(&self, task: TaskRef<'_>) {
        if self.enabled(Level::DEBUG) {
            self.push(about(task, site::task(Level::DEBUG), "task started"));
        }
    }

    /// It ended: done and given back at `info`, a retry and a dead letter at `warn`.
    #[inline]
    pub fn finished(&self, task: TaskRef<'_>, end: Finished<'_>) {
        let level = match end.settlement {
            Settlement::Ack | Settlement::Requeue | Settlement::Park { .. } | Settlement::Recount => {
                Level::INFO
            }
            Settlement::Retry { .. } | Settlement::Dead { .. } => Level::WARN,
        };
        if self.enabled(level) {
            self.push(ending(task, level, end));
        }
    }

    /// A task became a dead letter before it was started: no route takes it, it is not text, it is too large, its time is
    /// up; `warn`.
    #[inline]
    pub fn refused(&self, task: TaskRef<'_>, reason: DeadReason) {
        if self.enabled(Level::WARN) {
            let message = match reason {
                DeadReason::Expired => "task has expired, now a dead letter",
                DeadReason::Refused => "task's copy is refused by the broker, now a dead letter",
                _ => "task is dead before it ran",
            };
            let mut record = about(task, site::task(Level::WARN), message);
            record.field("reason", reason.as_str());
            self.push(record);
        }
    }

    /// It is parked, its attempt not counted, because its handler is given no tasks now; `debug`: that the handler
    /// is held is said once, by the engine.
    #[inline]
    pub fn parked(&self, task: TaskRef<'_>, delay: Duration, why: &str) {
        if self.enabled(Level::DEBUG) {
            let mut record = about(task, site::task(Level::DEBUG), "task parked");
            record.field("for_ms", delay.as_millis().to_string());
            record.field("why", why.to_owned());
            self.push(record);
        }
    }

    /// Its last start was cut short by the end of a daemon: it is copied, so that this is counted; `info`.
    #[inline]
    pub fn recounted(&self, task: TaskRef<'_>, starts: u32) {
        if self.enabled(Level::INFO) {
            let mut record = about(task, site::task(Level::INFO), "task was started before and cut short");
            record.field("starts_cut_short", starts.to_string());
            self.push(record);
        }
    }

    /// A line that the handler logged; `level` as the plugin boundary numbers them, 1 error to 5 trace.
    #[inline]
    pub fn handler_log(&self, task: TaskRef<'_>, level: i32, message: &str, fields: &[(String, String)]) {
        let level = match level {
            ..=1 => Level::ERROR,
            2 => Level::WARN,
            3 => Level::INFO,
            4 => Level::DEBUG,
            5.. => Level::TRACE,
        };
        if self.handler_enabled(level) {
            let mut record = about(task, site::handler(level), "").with_message(message.to_owned());
            for (name, value) in fields {
                record.foreign(name, value);
            }
            self.push_of(RecordSource::Handler, record);
        }
    }

    /// A line that the handler or its children printed; `info`.
    #[inline]
    pub fn handler_output(&self, task: TaskRef<'_>, stderr: bool, line: &str) {
        if self.handler_enabled(Level::INFO) {
            let mut record = about(task, site::handler(Level::INFO), "").with_message(line.to_owned());
            record.field("stream", if stderr { "stderr" } else { "stdout" });
            self.push_of(RecordSource::Handler, record);
        }
    }

    fn push(&self, record: LogRecord) {
        self.push_of(RecordSource::Own, record);
    }

    fn push_of(&self, source: RecordSource, record: LogRecord) {
        if let Some(inner) = &self.inner {
            inner.queue.push(source, record);
        }
    }
}

fn about(task: TaskRef<'_>, place: &'static Metadata<'static>, message: &'static str) -> LogRecord {
    let mut record = LogRecord::new(place, message);
    record.task = Some(TaskPart {
        id: task.id.into(),
        queue: task.queue.cloned(),
        generation: task.generation.cloned(),
        attempt: task.attempt,
        trace_id: trace::id(task.headers).map(Into::into),
        outcome: None,
        duration: None,
    });
    record
}

fn ending(task: TaskRef<'_>, level: Level, end: Finished<'_>) -> LogRecord {
    let message = match end.settlement {
        Settlement::Ack => "task done",
        Settlement::Retry { .. } => "task failed, to be retried",
        Settlement::Dead { .. } => "task failed, now a dead letter",
        Settlement::Requeue => "task given back",
        Settlement::Park { .. } => "task parked",
        Settlement::Recount => "task counted anew",
    };
    let mut record = about(task, site::task(level), message);
    if let Some(part) = &mut record.task {
        part.duration = Some(end.duration);
        part.outcome = Some(end.outcome.as_str());
    }
    match end.settlement {
        Settlement::Retry { delay, .. } => record.field("retry_in_ms", delay.as_millis().to_string()),
        Settlement::Dead { reason } => record.field("reason", reason.as_str()),
        Settlement::Ack | Settlement::Requeue | Settlement::Park { .. } | Settlement::Recount => {}
    }
    if let Some(error) = end.error {
        record.field("code", error.code.as_str());
        record.field("error", error.message.as_str());
    }
    record
}

/// Off is 0, error 1, … trace 5.
fn rank(level: LevelFilter) -> usize {
    level.into_level().map_or(0, |level| match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    })
}
