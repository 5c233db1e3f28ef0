//! `warrenctl config check` and `warrenctl config show`.

use std::fmt::Write;

use clap::Subcommand;
use serde_json::{Value, json};
use warren::config::{Config, Diagnostic};

use crate::exit::Failure;
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

pub(crate) fn run(global: &Global, verb: &ConfigVerb) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Check => check(global),
        ConfigVerb::Show => show(global),
    }
}

fn check(global: &Global) -> Result<(), Failure> {
    let loaded = Config::load(&place::config_file(global), &place::environment());
    let rows =
        |diagnostics: &[Diagnostic]| diagnostics.iter().map(Diagnostic::to_json).collect::<Vec<Value>>();
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

fn show(global: &Global) -> Result<(), Failure> {
    let config = place::config(global)?;
    if global.json { print_json(&config.to_json()) } else { print(&config.render_toml()) }
}
