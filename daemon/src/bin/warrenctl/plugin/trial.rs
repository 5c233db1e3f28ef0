//! What `plugin check` and `plugin run` share: a plugin host for a file, with settings from the command line or of
//! a configured handler.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use warren::config::Plugins;
use warren::host::{HostSpec, Spawner, become_subreaper};
use warren::model::TaskError;
use warren::plugin::{Manifest, Snapshot, WantedHandler};
use warren::registry::Generation;

use super::inspect;
use crate::exit::{Code, VerbError};
use crate::output::note;
use crate::{Global, place};

/// Which plugin, with which settings.
#[derive(Debug, Args)]
pub(crate) struct TrialArgs {
    /// The plugin's file
    pub(super) file: PathBuf,
    /// The settings, a JSON object, or @FILE that holds one
    #[arg(long, value_name = "JSON|@FILE")]
    settings: Option<String>,
    /// Take settings and limits of this handler of the configuration
    #[arg(long, value_name = "NAME", conflicts_with = "settings")]
    handler: Option<String>,
}

/// A plugin that passed inspection, ready to be started.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) spec: HostSpec,
    pub(super) handler: WantedHandler,
}

impl Trial {
    /// Inspects the file, takes a snapshot and collects the settings.
    pub(super) fn prepare(global: &Global, args: &TrialArgs) -> Result<Self, VerbError> {
        inspect::verdict(&inspect::facts(&args.file)?)?;
        let plugin = Snapshot::take(&args.file).map_err(|e| {
            VerbError::text(Code::Data, format!("{} cannot be loaded: {e}", args.file.display()))
        })?;
        let (wanted, create_timeout) = if let Some(name) = &args.handler {
            configured(global, name, &plugin.manifest)?
        } else {
            let settings_json = Arc::from(settings(args.settings.as_deref())?);
            let wanted = WantedHandler { settings_json, ..WantedHandler::implicit(&plugin.manifest) };
            (wanted, Plugins::default().probe_timeout)
        };
        let generation = Generation::new(1, &wanted, Arc::new(plugin));
        Ok(Self { spec: generation.host_spec(create_timeout), handler: wanted })
    }
}

/// The handler of this name as the configuration has it, on this plugin; and how long its probe may take.
fn configured(
    global: &Global,
    name: &str,
    manifest: &Manifest,
) -> Result<(WantedHandler, Duration), VerbError> {
    let config = place::config(global)?;
    let Some(handler) = config.handlers.iter().find(|handler| &*handler.name == name) else {
        let names: Vec<_> = config.handlers.iter().map(|handler| &*handler.name).collect();
        let text = format!("no handler `{name}` is configured; there is {}", names.join(", "));
        return Err(VerbError::text(Code::Usage, text));
    };
    if handler.plugin != manifest.name {
        note(&format!(
            "warning: {}: handler `{name}` is for plugin `{}`, this file is `{}`",
            handler.origin, handler.plugin, manifest.name
        ));
    }
    Ok((WantedHandler::configured(handler, Some(manifest)), config.plugins.probe_timeout))
}

/// What starts the host; whatever its handler leaves behind dies with it.
pub(super) fn spawner() -> Result<Spawner, VerbError> {
    become_subreaper().and_then(|()| Spawner::start()).map_err(|e| {
        let error = anyhow::Error::new(e).context("cannot start plugin hosts");
        VerbError::new(Code::Software, error)
    })
}

/// The failure that a plugin's refusal to start is: its own words are about its settings, the host's about a fault.
pub(super) fn not_created(spec: &HostSpec, error: &TaskError) -> VerbError {
    let is_fault = ["abi", "crash", "load", "panic", "spawn", "timeout"].contains(&&*error.code);
    let code = if is_fault { Code::Software } else { Code::Config };
    let path = spec.plugin.path.display();
    VerbError::text(code, format!("{path} does not start: {}", describe_error(error)))
}

/// An error in one line.
pub(super) fn describe_error(error: &TaskError) -> String {
    match (&*error.code, &*error.message) {
        ("", message) => message.to_owned(),
        (code, "") => code.to_owned(),
        (code, message) => format!("{code}: {message}"),
    }
}

fn settings(argument: Option<&str>) -> Result<String, VerbError> {
    let Some(argument) = argument else { return Ok("{}".to_owned()) };
    let text = match argument.strip_prefix('@') {
        None => argument.to_owned(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| VerbError::text(Code::Data, format!("cannot read the settings from {path}: {e}")))?,
    };
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(serde_json::Value::Object(_)) => Ok(text),
        Ok(_) => {
            Err(VerbError::text(Code::Usage, "the settings are JSON, but no object: write {\"key\": value}"))
        }
        Err(e) => Err(VerbError::text(Code::Usage, format!("the settings are no JSON: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_an_object_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.json");
        std::fs::write(&file, "{\"a\": 1}\n").unwrap();
        assert_eq!(settings(None).unwrap(), "{}");
        assert_eq!(settings(Some(&format!("@{}", file.display()))).unwrap(), "{\"a\": 1}\n");
        for bad in ["[1]", "{", "", "@/nonexistent"] {
            assert!(settings(Some(bad)).is_err(), "{bad}");
        }
    }
}
