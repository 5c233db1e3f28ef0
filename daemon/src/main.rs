//! `warrend`: the daemon (and, re-executed, the plugin host).

use std::process::ExitCode;

use clap::Parser;
use warren::daemon::Arguments;

fn main() -> ExitCode {
    warren::host::run_if_host();
    let arguments = Arguments::parse();
    warren::failpoint::arm();
    warren::daemon::run(&arguments.config)
}
