//! The daemon.

fn main() {
    warren::host::run_if_host();
}
