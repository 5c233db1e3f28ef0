//! `warrend`: the daemon (and, re-executed, the plugin host).

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;
use warren::daemon::Arguments;

/// lapin reads message headers recursively, without a limit, on a thread whose stack size only this variable decides.
/// Tables and arrays can be nested about 1,600 deep in one frame of 8,192 bytes, the `frame_max` of the consuming
/// connection; 2 MiB, the default, hold 1,400 in a release build, and 16 MiB too few in a debug build. Only address
/// space: pages that are not touched cost nothing.
const STACK: (&str, &str) = ("RUST_MIN_STACK", "67108864");

fn main() -> ExitCode {
    warren::host::run_if_host();
    let arguments = Arguments::parse();
    if std::env::var_os(STACK.0).is_none() {
        // Read once, at the first thread, and not to be set in a running process: so the daemon starts itself again.
        let error = Command::new("/proc/self/exe")
            .args(std::env::args_os().skip(1))
            .env(STACK.0, STACK.1)
            .arg0("warrend")
            .exec();
        eprintln!("warrend: cannot start again with larger stacks, going on without: {error}");
    }
    // Started again, it would show as `exe`. Only a name: an error costs nothing.
    let _ = rustix::thread::set_name(c"warrend");
    warren::failpoint::arm();
    warren::daemon::run(&arguments.config)
}
