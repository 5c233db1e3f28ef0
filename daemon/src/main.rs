//! `warrend`: the daemon (and, re-executed, the plugin host).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Runs tasks from RabbitMQ queues in plugin handlers.
///
/// SIGHUP reloads, SIGTERM and SIGINT drain and stop (a second one gives everything back at once), SIGUSR1 logs a
/// status. Exit codes: 0 stopped as asked, 69 no broker although required, 70 internal error, 75 another warrend
/// holds the control socket, 78 configuration.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  warrend --config /etc/warren/warren.toml")]
struct Arguments {
    /// The configuration file; `conf.d/*.toml` beside it is merged into it.
    #[arg(long, value_name = "FILE", default_value = "/etc/warren/warren.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    warren::host::run_if_host();
    let arguments = Arguments::parse();
    warren::daemon::run(&arguments.config)
}
