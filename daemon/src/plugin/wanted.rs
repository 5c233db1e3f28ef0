//! Which handlers the configuration and the plugins on disk ask for: one answer for a reload, `warrenctl route`, `doctor`
//! and `plugin run`. Nothing is run for it. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::Manifest;
use crate::config::{Handler, Limits};
use crate::router::RouteEntry;

/// One handler that is asked for.
#[derive(Debug, Clone)]
pub struct WantedHandler {
    pub name: Arc<str>,
    pub plugin: String,
    /// Where its table stands, `file:line`; `None`: no table names the plugin, which is a handler with its own defaults.
    pub origin: Option<String>,
    /// No such plugin is there.
    pub is_missing: bool,
    /// The configured prefixes, else the plugin's own. Empty if neither is known.
    pub prefixes: Vec<Arc<str>>,
    /// The queues it is narrowed to; `None`: all.
    pub queues: Option<Vec<String>>,
    /// The settings, JSON text of an object.
    pub settings_json: Arc<str>,
    pub limits: Limits,
    /// The limit on a task's time: the configured one, else the plugin's, else the default.
    pub timeout: Duration,
}

impl WantedHandler {
    fn claims(&self, index: usize) -> impl Iterator<Item = RouteEntry> {
        self.prefixes.iter().map(move |prefix| RouteEntry {
            prefix: prefix.clone(),
            handler: index,
            queues: self.queues.clone(),
            incumbent: false,
        })
    }

    /// A handler with a table of its own.
    pub fn configured(handler: &Handler, plugin: Option<&Manifest>) -> Self {
        let own = || plugin.map(|plugin| plugin.prefixes.clone()).unwrap_or_default();
        Self {
            name: handler.name.clone(),
            plugin: handler.plugin.clone(),
            origin: Some(handler.origin.clone()),
            is_missing: plugin.is_none(),
            prefixes: texts(&handler.prefixes.clone().unwrap_or_else(own)),
            queues: handler.queues.clone(),
            settings_json: Arc::from(handler.settings_json.as_str()),
            timeout: timeout(&handler.limits, plugin),
            limits: handler.limits.clone(),
        }
    }

    /// A plugin that no table names.
    pub fn implicit(plugin: &Manifest) -> Self {
        let limits = Limits::default();
        Self {
            name: Arc::from(plugin.name.as_str()),
            plugin: plugin.name.clone(),
            origin: None,
            is_missing: false,
            prefixes: texts(&plugin.prefixes),
            queues: None,
            settings_json: Arc::from("{}"),
            timeout: timeout(&limits, Some(plugin)),
            limits,
        }
    }
}

/// The configured handlers, then every plugin that none of them names.
pub fn wanted_handlers(handlers: &[Handler], plugins: &[&Manifest]) -> Vec<WantedHandler> {
    let named = |name: &str| plugins.iter().copied().find(|plugin| plugin.name == name);
    let configured =
        handlers.iter().map(|handler| WantedHandler::configured(handler, named(&handler.plugin)));
    let is_free = |plugin: &&&Manifest| !handlers.iter().any(|handler| handler.plugin == plugin.name);
    let implicit = plugins.iter().filter(is_free).map(|plugin| WantedHandler::implicit(plugin));
    configured.chain(implicit).collect()
}

/// The routes of handlers of which none runs yet; indexes are those of the list.
pub fn route_entries(handlers: &[WantedHandler]) -> Vec<RouteEntry> {
    handlers.iter().enumerate().flat_map(|(index, handler)| handler.claims(index)).collect()
}

pub(crate) fn texts(prefixes: &[String]) -> Vec<Arc<str>> {
    prefixes.iter().map(|prefix| Arc::from(prefix.as_str())).collect()
}

fn timeout(limits: &Limits, plugin: Option<&Manifest>) -> Duration {
    limits.timeout.or(plugin.and_then(|plugin| plugin.timeout)).unwrap_or(Limits::DEFAULT_TIMEOUT)
}
