//! `warrenctl config check` and `warrenctl config show`.

use std::fmt::Write;
use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};
use warren::config::{Config, Diagnostic, Environment, Place};
use warren::plugin::{discover, target_conflicts};

use crate::exit::VerbError;
use crate::output::{print, print_json};
use crate::{Global, place};

pub(crate) const EXAMPLES: &str = "\
Examples:
  warrenctl config check
  warrenctl config check --config ./warren.toml && warrenctl reload
  warrenctl config show --json | jq .queues";

const CHECK_EXAMPLES: &str = "\
All errors are shown at once, each with file, line, key and remedy. Exit status: 0 usable; 78 not.

Examples:
  warrenctl config check
  warrenctl config check --config ./warren.toml
  warrenctl config check --json | jq -r '.errors[] | \"\\(.file):\\(.line) \\(.message)\"'";

const SHOW_EXAMPLES: &str = "\
What is shown is what warrend would use: files merged, environment applied, defaults filled in; secrets are hidden.

Examples:
  warrenctl config show
  warrenctl config show --json | jq .handlers";

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Read and check it: every error, then the warnings
    #[command(after_help = CHECK_EXAMPLES)]
    Check,
    /// Print the effective configuration, without its secrets
    #[command(after_help = SHOW_EXAMPLES)]
    Show,
}

pub(crate) fn run(global: &Global, verb: &ConfigVerb) -> Result<(), VerbError> {
    match verb {
        ConfigVerb::Check => check(global),
        ConfigVerb::Show => show(global),
    }
}

fn check(global: &Global) -> Result<(), VerbError> {
    let loaded = Config::load(&place::config_file(global), &Environment::of_process());
    let rows =
        |diagnostics: &[Diagnostic]| diagnostics.iter().map(Diagnostic::to_json).collect::<Vec<Value>>();
    // The plugins on disk say which settings matter. Where they cannot be read, that is for doctor to tell.
    let loaded = loaded.map(|mut loaded| {
        loaded.warnings.extend(targets(&loaded.config));
        loaded
    });
    match loaded {
        Ok(loaded) if global.json => {
            print_json(&json!({"ok": true, "errors": [], "warnings": rows(&loaded.warnings)}))
        }
        Ok(loaded) => {
            let mut text = String::new();
            for warning in &loaded.warnings {
                let _ = writeln!(text, "warning: {warning}");
            }
            for file in &loaded.config.files {
                let _ = writeln!(text, "read {}", file.display());
            }
            let (queues, handlers) = (loaded.config.queues.len(), loaded.config.handlers.len());
            let _ = writeln!(
                text,
                "the configuration is usable: {queues} queues, {handlers} configured handlers"
            );
            print(&text)
        }
        Err(errors) => {
            if global.json {
                print_json(&json!({"ok": false, "errors": rows(&errors.0), "warnings": []}))?;
            }
            Err(place::bad_config(&errors))
        }
    }
}

/// Handlers of which one replaces or deletes what another made.
fn targets(config: &Config) -> Vec<Diagnostic> {
    let plugins: Vec<_> = discover(&config.plugins.dirs).unwrap_or_default().into_iter().flatten().collect();
    let manifests: Vec<_> = plugins.iter().map(|plugin| &plugin.manifest).collect();
    target_conflicts(&config.handlers, &manifests)
        .into_iter()
        .map(|conflict| {
            let (path, line) = conflict.origin.rsplit_once(':').unwrap_or((&conflict.origin, "0"));
            Diagnostic {
                place: Place::File {
                    path: Path::new(path).into(),
                    line: line.parse().unwrap_or(0),
                    column: 0,
                },
                key: format!("handlers.{}.settings", conflict.handler),
                message: conflict.what,
                remedy: conflict.remedy.to_owned(),
            }
        })
        .collect()
}

fn show(global: &Global) -> Result<(), VerbError> {
    let config = place::config(global)?;
    if global.json { print_json(&config.to_json()) } else { print(&config.render_toml()) }
}
