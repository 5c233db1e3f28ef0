//! What is loaded: the generations of every handler and the routing table over them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Limits, Retry};
use crate::host::{HostSpec, OutputBounds};
use crate::model::status::RouteReply;
use crate::plugin::{Snapshot, WantedHandler};
use crate::router::Router;

/// Every known handler and the routes to them. Built apart, swapped in whole.
#[derive(Debug, Default)]
pub struct Registry {
    /// What the router's handler indexes point at.
    pub slots: Vec<Slot>,
    /// Prefix → index into `slots`.
    pub router: Router,
    /// Prefixes that files claim which others may have written. It is asked for tasks that `router` does not know.
    pub claims: Router,
}

/// So long a task that no route takes is parked for a handler whose prefixes are not known. Each costs a copy every
/// half minute; who has not mended the file in this time finds them as dead letters, and can replay them.
const UNKNOWN_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Debug, Clone)]
pub enum Slot {
    Active(Arc<Generation>),
    /// Its prefixes are known, but it could not be started. Its tasks are parked, not dead-lettered.
    Absent(Arc<Absent>),
}

/// A handler that is known and not running.
#[derive(Debug)]
pub struct Absent {
    pub handler: Arc<str>,
    pub plugin: String,
    /// The prefixes it claims.
    pub prefixes: Vec<Arc<str>>,
    /// Where those are known from.
    pub source: PrefixSource,
    /// The queues it is narrowed to; `None`: all.
    pub queues: Option<Vec<String>>,
    /// Why it does not run.
    pub why: String,
}

/// Where the prefixes of a handler that does not run are known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixSource {
    /// The configuration.
    Stated,
    /// The manifest of its plugin, whose file cannot be loaded.
    Manifest,
    /// The same, and others may have written it.
    Untrusted,
    /// Nowhere, since this time: they are not known.
    Unknown(Instant),
}

/// One sealed snapshot of a plugin + one configuration of its handler. Hosts belong to a generation.
#[derive(Debug)]
pub struct Generation {
    /// Counts up over the daemon's life, over all handlers.
    pub number: u64,
    pub handler: Arc<str>,
    /// The prefixes it takes.
    pub prefixes: Vec<Arc<str>>,
    /// The queues it is narrowed to; `None`: all.
    pub queues: Option<Vec<String>>,
    pub plugin: Arc<Snapshot>,
    /// The settings, JSON text of an object.
    pub settings_json: Arc<str>,
    pub limits: Limits,
    /// Soft cancel after this (operator, else plugin, else default).
    pub timeout: Duration,
}

impl Generation {
    /// The handler that is asked for, on this plugin.
    pub fn new(number: u64, wanted: &WantedHandler, plugin: Arc<Snapshot>) -> Self {
        Self {
            number,
            handler: wanted.name.clone(),
            prefixes: wanted.prefixes.clone(),
            queues: wanted.queues.clone(),
            plugin,
            settings_json: wanted.settings_json.clone(),
            limits: wanted.limits.clone(),
            timeout: wanted.timeout,
        }
    }

    /// What its hosts are started with.
    pub fn host_spec(&self, create_timeout: Duration) -> HostSpec {
        HostSpec {
            handler: self.handler.clone(),
            plugin: self.plugin.clone(),
            settings_json: self.settings_json.clone(),
            create_timeout,
            grace: self.limits.grace,
            output: OutputBounds { bytes: self.limits.max_output, lines: self.limits.max_output_lines },
            bounds: self.limits.bounds,
        }
    }

    pub fn retry(&self) -> &Retry {
        &self.limits.retry
    }

    /// Whether a host of `self` can serve `wanted` as it is: same bytes, same settings, same bounds and routes.
    pub fn serves(&self, wanted: &Generation) -> bool {
        self.handler == wanted.handler
            && self.prefixes == wanted.prefixes
            && self.queues == wanted.queues
            && self.plugin.sha256 == wanted.plugin.sha256
            && self.settings_json == wanted.settings_json
            && self.limits == wanted.limits
            && self.timeout == wanted.timeout
    }
}

impl Slot {
    /// The generation that takes its tasks.
    pub fn active(&self) -> Option<&Arc<Generation>> {
        match self {
            Self::Active(generation) => Some(generation),
            Self::Absent(_) => None,
        }
    }

    /// The handler, when it does not run.
    pub fn absent(&self) -> Option<&Arc<Absent>> {
        match self {
            Self::Active(_) => None,
            Self::Absent(absent) => Some(absent),
        }
    }

    pub fn handler(&self) -> &Arc<str> {
        match self {
            Self::Active(generation) => &generation.handler,
            Self::Absent(absent) => &absent.handler,
        }
    }

    /// The prefixes it takes or claims.
    pub fn prefixes(&self) -> &[Arc<str>] {
        match self {
            Self::Active(generation) => &generation.prefixes,
            Self::Absent(absent) => &absent.prefixes,
        }
    }

    /// The queues it is narrowed to; `None`: all.
    pub fn queues(&self) -> Option<&[String]> {
        match self {
            Self::Active(generation) => generation.queues.as_deref(),
            Self::Absent(absent) => absent.queues.as_deref(),
        }
    }
}

impl Absent {
    /// Whether a task from this queue that no route takes may be its own.
    fn may_want(&self, queue: &str, now: Instant) -> bool {
        let PrefixSource::Unknown(since) = self.source else { return false };
        let takes = |queues: &Vec<String>| queues.iter().any(|name| name == queue);
        self.queues.as_ref().is_none_or(takes) && now < since + UNKNOWN_LIFE
    }
}

impl Registry {
    /// The handler that does not run and may want a task that no route takes: by what its file claims, or because
    /// nothing is known of its prefixes.
    pub fn claimant(
        &self,
        queue: &str,
        message_type: Option<&str>,
        text: &[u8],
        now: Instant,
    ) -> Option<&Arc<Absent>> {
        let claimed = self.claims.route(queue, message_type, text);
        claimed
            .and_then(|found| self.slots[found.handler].absent())
            .or_else(|| self.slots.iter().filter_map(Slot::absent).find(|absent| absent.may_want(queue, now)))
    }

    /// Where a task would go, and why, for `warrenctl route`.
    pub fn explain(&self, queue: &str, message_type: Option<&str>, text: &[u8], now: Instant) -> RouteReply {
        let explained =
            self.router.explain(queue, message_type, text, |index| &**self.slots[index].handler());
        let Some(found) = explained.found else {
            let Some(absent) = self.claimant(queue, message_type, text, now) else {
                return RouteReply { why: explained.why, ..RouteReply::default() };
            };
            let (name, fault) = (&absent.handler, &absent.why);
            let why = format!(
                "{} It may be for handler `{name}`, which is not running, so the task is parked: {fault}",
                explained.why
            );
            return RouteReply { handler: Some(name.to_string()), why, ..RouteReply::default() };
        };
        let mut why = explained.why;
        if let Slot::Absent(absent) = &self.slots[found.handler] {
            why = format!("{why} The handler is not running, so the task is parked: {}", absent.why);
        }
        RouteReply {
            handler: Some(self.slots[found.handler].handler().to_string()),
            prefix: Some(found.prefix.to_string()),
            argument: text.get(found.argument).map(|text| String::from_utf8_lossy(text).into_owned()),
            why,
        }
    }
}
