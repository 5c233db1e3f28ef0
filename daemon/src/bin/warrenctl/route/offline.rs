//! Routing without a daemon: by the configuration and the plugins on disk, of which nothing is run.

use warren::config::Config;
use warren::model::status::RouteReply;
use warren::plugin::{discover, route_entries, wanted_handlers};
use warren::router::Router;

use super::RouteArgs;
use crate::exit::{Code, VerbError};
use crate::output::note;

/// Answers as a daemon would that starts now.
pub(super) fn route(config: &Config, args: &RouteArgs) -> Result<RouteReply, VerbError> {
    let found = discover(&config.plugins.dirs).map_err(|e| VerbError::new(Code::Config, e))?;
    let mut plugins = Vec::new();
    for plugin in found {
        match plugin {
            Ok(snapshot) => plugins.push(snapshot),
            Err(file) => {
                note(&format!("warning: {} is passed over: {}", file.path.display(), file.error));
            }
        }
    }
    let manifests: Vec<_> = plugins.iter().map(|plugin| &plugin.manifest).collect();
    let handlers = wanted_handlers(&config.handlers, &manifests);
    for handler in handlers.iter().filter(|handler| handler.is_missing) {
        let origin = handler.origin.as_deref().unwrap_or_default();
        note(&format!("warning: {origin}: no plugin `{}` in the plugins directories", handler.plugin));
    }
    let (router, conflicts) = Router::build(route_entries(&handlers));
    let name = |index: usize| &*handlers[index].name;
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
