//! `warrend`: the daemon (and, re-executed, the plugin host).
#![deny(clippy::print_stdout, clippy::print_stderr)] // see `warren::stderr`

use std::process::ExitCode;

use clap::Parser;
use warren::daemon::Arguments;

fn main() -> ExitCode {
    warren::host::run_if_host();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return Arguments::usage(&error),
    };
    warren::failpoint::arm();
    warren::daemon::run(&arguments.config)
}
