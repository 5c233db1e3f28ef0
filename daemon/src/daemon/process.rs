//! What the daemon asks of the kernel for its own process before anything else.

use anyhow::bail;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// What the daemon has open with a broker, a handler and one host of it, and some for who asks on the control socket.
const FEWEST_FILES: u64 = 64;

/// Keeps the memory, the environment and the descriptors of this process from others of its user, which plugin hosts
/// are: they hold the broker's password and everybody's tasks. Nor does it leave a core.
pub(super) fn seal() -> std::io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Makes use of all the open files that this process may have: each host takes some, and the soft limit is for programs
/// that use select(2). Hosts get what their handler's `max_files` says.
///
/// # Errors
/// The limit is too low for anything to work.
pub(super) fn raise_open_files() -> anyhow::Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    if let Some(most) = hard.filter(|most| *most < FEWEST_FILES) {
        bail!(
            "the limit on open files is {most}: warrend needs {FEWEST_FILES}, and some 7 for each plugin host; raise \
             LimitNOFILE= in its unit, or `ulimit -Hn`"
        );
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }) {
        tracing::warn!(%error, "the soft limit on open files cannot be raised to the hard one");
    }
    Ok(())
}
