//! `warrenctl plugin inspect`, `check` and `run`: from looking at a file to running one task, without a daemon.

mod check;
mod inspect;
mod run;
mod show;
mod trial;

use std::path::PathBuf;

use clap::Subcommand;

use crate::Global;
use crate::exit::VerbError;

pub(crate) const EXAMPLES: &str = "\
Examples:
  warrenctl plugin inspect target/release/libmine.so
  warrenctl plugin check target/release/libmine.so --settings '{\"directory\": \"/tmp\"}'
  warrenctl plugin run target/release/libmine.so 'Do the thing now'";

/// What to do with a plugin.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginVerb {
    /// Show what a plugin file says of itself; runs nothing of it
    #[command(after_help = inspect::EXAMPLES)]
    Inspect {
        /// The plugin's file
        file: PathBuf,
    },
    /// Inspect it, then start it in a plugin host with its settings
    #[command(after_help = check::EXAMPLES)]
    Check(trial::TrialArgs),
    /// Run one task through it in a plugin host, without a broker
    #[command(after_help = run::EXAMPLES)]
    Run(run::RunArgs),
}

pub(crate) fn run(global: &Global, verb: &PluginVerb) -> Result<(), VerbError> {
    match verb {
        PluginVerb::Inspect { file } => inspect::run(global, file),
        PluginVerb::Check(args) => check::run(global, args),
        PluginVerb::Run(args) => run::run(global, args),
    }
}
