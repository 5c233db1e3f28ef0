//! Routing without a daemon: by the configuration and the plugins on disk, of which nothing is run.

use std::sync::Arc;

use warren::config::Config;
use warren::control::api::RouteReply;
use warren::plugin::{Snapshot, discover};
use warren::router::{Entry, Router};

use super::RouteArgs;
use crate::exit::{Code, Failure};
use crate::output::note;

/// A handler as the daemon would have it if all of them could be started.
struct Handler {
    name: String,
    prefixes: Vec<String>,
    queues: Option<Vec<String>>,
}

/// Answers as a daemon would that starts now.
pub(super) fn route(config: &Config, args: &RouteArgs) -> Result<RouteReply, Failure> {
    let found = discover(&config.plugins.dirs).map_err(|e| Failure::new(Code::Config, e))?;
    let mut plugins = Vec::new();
    for plugin in found {
        match plugin {
            Ok(snapshot) => plugins.push(snapshot),
            Err((path, error)) => note(&format!("warning: {} is passed over: {error}", path.display())),
        }
    }
    let handlers = handlers(config, &plugins);
    let (router, conflicts) = Router::build(entries(&handlers));
    let name = |index: usize| handlers[index].name.as_str();
    for conflict in conflicts {
        note(&format!("warning: {}", conflict.message(name)));
    }
    // A configuration has at least one queue; the first one stands for all, as in the daemon.
    let first = config.queues.first().map_or("", |queue| &queue.name);
    let queue = args.queue.as_deref().unwrap_or(first);
    let text = args.text.as_bytes();
    let explained = router.explain(queue, args.message_type.as_deref(), text, name);
    Ok(RouteReply {
        handler: explained.found.as_ref().map(|found| name(found.handler).to_owned()),
        prefix: explained.found.as_ref().map(|found| found.prefix.to_string()),
        argument: explained
            .found
            .and_then(|found| text.get(found.argument))
            .map(|argument| String::from_utf8_lossy(argument).into_owned()),
        why: format!("{} (No daemon was asked: this is what the files say.)", explained.why),
    })
}

/// The configured handlers, then every plugin that none of them names.
fn handlers(config: &Config, plugins: &[Snapshot]) -> Vec<Handler> {
    let own = |name: &str| {
        let plugin = plugins.iter().find(|plugin| plugin.manifest.name == name);
        plugin.map(|plugin| plugin.manifest.prefixes.clone())
    };
    let mut handlers = Vec::new();
    for handler in &config.handlers {
        let own = own(&handler.plugin);
        if own.is_none() {
            note(&format!(
                "warning: {}: no plugin `{}` in the plugins directories",
                handler.origin, handler.plugin
            ));
        }
        handlers.push(Handler {
            name: handler.name.to_string(),
            prefixes: handler.prefixes.clone().or(own).unwrap_or_default(),
            queues: handler.queues.clone(),
        });
    }
    for plugin in plugins {
        let name = &plugin.manifest.name;
        if !config.handlers.iter().any(|handler| handler.plugin == *name) {
            let prefixes = plugin.manifest.prefixes.clone();
            handlers.push(Handler { name: name.clone(), prefixes, queues: None });
        }
    }
    handlers
}

fn entries(handlers: &[Handler]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (index, handler) in handlers.iter().enumerate() {
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
