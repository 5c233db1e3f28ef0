//! `make simulate`: the engine's core against models of everything around it. For developers; not installed.

use std::process::ExitCode;

fn main() -> ExitCode {
    warren::sim::main()
}
