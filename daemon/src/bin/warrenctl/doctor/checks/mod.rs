//! Pure checks: facts in, findings out.

mod broker;
mod config;
mod daemon;
mod files;
mod handlers;
mod machine;
mod plugins;
mod queues;
mod sharing;

use warren::plugin::{WantedHandler, wanted_handlers};

use super::facts::Facts;
use super::finding::{Area, Finding, Severity};

/// Everything that there is to say, in the order in which one would look.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings = config::check(&facts.config_file, &facts.config);
    findings.extend(files::check(&facts.files, &facts.who));
    let handlers = handlers_of(facts);
    if let (Ok(loaded), Some(plugin_dirs)) = (&facts.config, &facts.plugin_dirs) {
        findings.extend(plugins::check(plugin_dirs, &handlers, &facts.who));
        if let Some(broker) = &facts.broker {
            findings.extend(broker::check(broker));
            if let Some(Ok(survey)) = &broker.survey {
                findings.extend(queues::check(survey, &loaded.config));
            }
        }
        findings.extend(handlers::targets(&loaded.config, &plugin_dirs.manifests()));
        findings.extend(sharing::check(&loaded.config, &handlers));
        findings.extend(handlers::check(&loaded.config, &handlers, facts.daemon.unit.as_ref()));
    }
    let config = facts.config.as_ref().ok().map(|loaded| &loaded.config);
    findings.extend(daemon::check(&facts.daemon, config));
    findings.extend(machine::check(&facts.machine, config, &handlers, facts.daemon.limits));
    if config.is_none() {
        let what = "plugins, broker, queues and handlers were not looked at";
        let remedy = "correct the configuration and ask again";
        findings.push(Finding::new(Severity::Note, Area::Config, "the rest", what, remedy));
    }
    findings
}

fn handlers_of(facts: &Facts) -> Vec<WantedHandler> {
    let (Ok(loaded), Some(plugin_dirs)) = (&facts.config, &facts.plugin_dirs) else { return Vec::new() };
    wanted_handlers(&loaded.config.handlers, &plugin_dirs.manifests())
}
