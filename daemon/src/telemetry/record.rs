//! One log line before it is rendered: owned, bounded, made where something happens and written elsewhere.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{Level, Metadata};

use crate::registry::Generation;
use crate::text::cut;

/// Longest message kept, in bytes; a handler can print lines of any length.
pub(super) const MAX_MESSAGE: usize = 4096;
/// Longest value of one field kept, in bytes.
pub(super) const MAX_VALUE: usize = 1024;
/// Most fields kept.
pub(super) const MAX_FIELDS: usize = 32;

#[derive(Debug)]
pub(super) struct LogRecord {
    pub(super) time: SystemTime,
    /// Where it comes from: level, target, and the names of Warren's own fields.
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) message: Cow<'static, str>,
    pub(super) task: Option<TaskPart>,
    /// Fields of Warren's own code.
    pub(super) fields: Vec<(&'static str, String)>,
    /// Fields a handler made up. They cannot pass for Warren's own.
    pub(super) foreign: Vec<(String, String)>,
}

/// The task that a line is about. What many tasks share is shared here, so that a line costs few allocations.
#[derive(Debug)]
pub(super) struct TaskPart {
    pub(super) id: Box<str>,
    pub(super) queue: Option<Arc<str>>,
    pub(super) generation: Option<Arc<Generation>>,
    pub(super) attempt: u32,
    /// Of the W3C trace context that the task came with.
    pub(super) trace_id: Option<Box<str>>,
    pub(super) outcome: Option<&'static str>,
    pub(super) duration: Option<Duration>,
}

impl LogRecord {
    pub(super) fn new(metadata: &'static Metadata<'static>, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            time: SystemTime::now(),
            metadata,
            message: bounded(message.into(), MAX_MESSAGE),
            task: None,
            fields: Vec::new(),
            foreign: Vec::new(),
        }
    }

    pub(super) fn level(&self) -> Level {
        *self.metadata.level()
    }

    pub(super) fn target(&self) -> &'static str {
        self.metadata.target()
    }

    /// The same with this message.
    pub(super) fn with_message(mut self, message: String) -> Self {
        self.message = bounded(Cow::Owned(message), MAX_MESSAGE);
        self
    }

    /// Adds a field of Warren's own; silently none beyond the bound.
    pub(super) fn field(&mut self, name: &'static str, value: impl Into<String>) {
        if self.fields.len() < MAX_FIELDS {
            self.fields.push((name, bounded(Cow::Owned(value.into()), MAX_VALUE).into_owned()));
        }
    }

    /// Adds a handler's field; silently none beyond the bound.
    pub(super) fn foreign(&mut self, name: &str, value: &str) {
        if self.foreign.len() < MAX_FIELDS {
            self.foreign.push((cut(name, MAX_VALUE).to_owned(), cut(value, MAX_VALUE).to_owned()));
        }
    }

    /// Calls `visit` with the name and value of each of Warren's own fields, the task's first.
    pub(super) fn each_field(&self, mut visit: impl FnMut(&str, &str)) {
        if let Some(task) = &self.task {
            task.each_field(&mut visit);
        }
        for (name, value) in &self.fields {
            visit(name, value);
        }
    }
}

impl TaskPart {
    fn each_field(&self, visit: &mut impl FnMut(&str, &str)) {
        let generation = self.generation.as_deref();
        let texts = [
            ("handler", generation.map(|g| &*g.handler)),
            ("task_id", Some(&*self.id).filter(|id| !id.is_empty())),
            ("queue", self.queue.as_deref()),
            ("outcome", self.outcome),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                visit(name, cut(value, MAX_VALUE));
            }
        }
        let numbers = [
            ("attempt", Some(u64::from(self.attempt)).filter(|n| *n > 0)),
            ("duration_ms", self.duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))),
            ("generation", generation.map(|g| g.number)),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                visit(name, &value.to_string());
            }
        }
        if let Some(generation) = generation {
            visit("plugin_sha256", &generation.plugin.sha256);
        }
        if let Some(trace_id) = &self.trace_id {
            visit("trace_id", trace_id);
        }
    }
}

fn bounded(text: Cow<'static, str>, max: usize) -> Cow<'static, str> {
    if text.len() <= max { text } else { Cow::Owned(format!("{}…", cut(&text, max))) }
}
