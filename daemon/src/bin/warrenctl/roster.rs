//! The handlers that a daemon would have if it started now and all of them could be started: by the configuration and
//! the plugins on disk, of which nothing is run.

use std::sync::Arc;
use std::time::Duration;

use warren::config::{Config, Limits};
use warren::plugin::Manifest;
use warren::router::Entry;

/// One handler.
#[derive(Debug, Clone)]
pub(crate) struct Rostered {
    /// Its name.
    pub(crate) name: String,
    /// The plugin it names.
    pub(crate) plugin: String,
    /// Where its table stands; `None`: a plugin that no table names.
    pub(crate) origin: Option<String>,
    /// No such plugin is there.
    pub(crate) is_missing: bool,
    /// Its prefixes.
    pub(crate) prefixes: Vec<String>,
    /// The queues it is narrowed to.
    pub(crate) queues: Option<Vec<String>>,
    /// Its bounds.
    pub(crate) limits: Limits,
    /// The limit on its tasks' time: the configured one, else the plugin's, else the default.
    pub(crate) timeout: Duration,
}

/// The configured handlers, then every plugin that none of them names.
pub(crate) fn roster(config: &Config, plugins: &[&Manifest]) -> Vec<Rostered> {
    let configured = config.handlers.iter().map(|handler| {
        let plugin = plugins.iter().copied().find(|plugin| plugin.name == handler.plugin);
        let own = plugin.map(|plugin| plugin.prefixes.clone());
        Rostered {
            name: handler.name.to_string(),
            plugin: handler.plugin.clone(),
            origin: Some(handler.origin.clone()),
            is_missing: plugin.is_none(),
            prefixes: handler.prefixes.clone().or(own).unwrap_or_default(),
            queues: handler.queues.clone(),
            timeout: timeout(&handler.limits, plugin),
            limits: handler.limits.clone(),
        }
    });
    let unnamed =
        plugins.iter().filter(|plugin| !config.handlers.iter().any(|handler| handler.plugin == plugin.name));
    let implicit = unnamed.map(|plugin| Rostered {
        name: plugin.name.clone(),
        plugin: plugin.name.clone(),
        origin: None,
        is_missing: false,
        prefixes: plugin.prefixes.clone(),
        queues: None,
        timeout: timeout(&Limits::default(), Some(plugin)),
        limits: Limits::default(),
    });
    configured.chain(implicit).collect()
}

/// What a router is built from; indexes are those of the roster.
pub(crate) fn entries(roster: &[Rostered]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (index, handler) in roster.iter().enumerate() {
        for prefix in &handler.prefixes {
            entries.push(Entry {
                prefix: Arc::from(prefix.as_str()),
                handler: index,
                queues: handler.queues.clone(),
                incumbent: false,
            });
        }
    }
    entries
}

fn timeout(limits: &Limits, plugin: Option<&Manifest>) -> Duration {
    limits.timeout.or(plugin.and_then(|plugin| plugin.timeout)).unwrap_or(Limits::DEFAULT_TIMEOUT)
}
