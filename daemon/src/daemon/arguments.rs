//! The command line of `warrend`. Here and not in `main`, because `warrenctl` makes its manual page.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::exit;

/// Runs tasks from RabbitMQ queues in plugin handlers.
///
/// SIGHUP reloads, SIGTERM and SIGINT drain and stop (a second one gives everything back at once), SIGUSR1 logs a
/// status. Exit codes: 0 stopped as asked, 69 no broker although required, 70 internal error, 75 another warrend
/// holds the control socket, 78 configuration or command line.
#[derive(Debug, Parser)]
#[command(name = "warrend", version, after_help = "Example:\n  warrend --config /etc/warren/warren.toml")]
pub struct Arguments {
    /// The configuration file; `conf.d/*.toml` beside it is merged into it.
    #[arg(long, value_name = "FILE", default_value = "/etc/warren/warren.toml")]
    pub config: PathBuf,
}

impl Arguments {
    /// Ends the program for what the command line parser said. A wrong command line is as final as a wrong
    /// configuration: a service manager need not try again.
    pub fn usage(error: &clap::Error) -> ExitCode {
        // A reader that left is no reason to fail.
        let _ = error.print();
        if error.exit_code() == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::CONFIG) }
    }
}
