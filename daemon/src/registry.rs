//! What is loaded: the generations of every handler and the routing table over them.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Limits, Retry};
use crate::plugin::Snapshot;

/// One sealed snapshot of a plugin + one configuration of its handler. Hosts belong to a generation.
#[derive(Debug)]
pub struct Generation {
    /// Counts up over the daemon's life, over all handlers.
    pub number: u64,
    /// The handler's name.
    pub handler: Arc<str>,
    /// The prefixes it takes.
    pub prefixes: Vec<Arc<str>>,
    /// The queues it is narrowed to; `None`: all.
    pub queues: Option<Vec<String>>,
    /// The plugin it runs.
    pub plugin: Arc<Snapshot>,
    /// The settings, JSON text of an object.
    pub settings_json: String,
    /// The handler's bounds.
    pub limits: Limits,
    /// Soft cancel after this (operator, else plugin, else default).
    pub timeout: Duration,
}

impl Generation {
    /// The retry policy.
    pub fn retry(&self) -> &Retry {
        &self.limits.retry
    }
}
