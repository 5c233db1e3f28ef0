//! `warrenctl plugin inspect`.

mod inspect;

use std::path::PathBuf;

use clap::Subcommand;

use crate::Global;
use crate::exit::Failure;

pub(crate) const EXAMPLES: &str = "\
Examples:
  warrenctl plugin inspect /usr/lib/warren/plugins/orders.so";

/// What to do with a plugin.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginVerb {
    /// Show what a plugin file says of itself; runs nothing of it
    #[command(after_help = inspect::EXAMPLES)]
    Inspect {
        /// The plugin's file
        file: PathBuf,
    },
}

pub(crate) fn run(global: &Global, verb: &PluginVerb) -> Result<(), Failure> {
    match verb {
        PluginVerb::Inspect { file } => inspect::run(global, file),
    }
}
