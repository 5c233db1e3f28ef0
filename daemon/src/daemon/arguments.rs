//! The command line of `warrend`. Here and not in `main`, because `warrenctl` makes its manual page.

use std::path::PathBuf;

use clap::Parser;

/// Runs tasks from RabbitMQ queues in plugin handlers.
///
/// SIGHUP reloads, SIGTERM and SIGINT drain and stop (a second one gives everything back at once), SIGUSR1 logs a
/// status. Exit codes: 0 stopped as asked, 69 no broker although required, 70 internal error, 75 another warrend
/// holds the control socket, 78 configuration.
#[derive(Debug, Parser)]
#[command(name = "warrend", version, after_help = "Example:\n  warrend --config /etc/warren/warren.toml")]
pub struct Arguments {
    /// The configuration file; `conf.d/*.toml` beside it is merged into it.
    #[arg(long, value_name = "FILE", default_value = "/etc/warren/warren.toml")]
    pub config: PathBuf,
}
