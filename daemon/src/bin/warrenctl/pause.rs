//! `warrenctl handler pause|resume` and `warrenctl queue pause|resume`.

use clap::Subcommand;
use warren::engine::PauseTarget;

use crate::exit::VerbError;
use crate::output::{clean, print, print_json};
use crate::{Global, place};

pub(crate) const HANDLER_EXAMPLES: &str = "\
A paused handler is given no tasks: what runs finishes, what waits and what arrives is parked in a delay queue with
its attempt unchanged and comes back at most 30 s after `resume`. `resume` also lifts a suspension (its hosts kept
dying) and a rest (its tasks failed almost always). A pause outlasts reloads and ends with the daemon.
Exit status: 0 done; 65 no such handler; 69 no daemon.

Examples:
  warrenctl handler pause send-email
  warrenctl handler resume send-email";

pub(crate) const QUEUE_EXAMPLES: &str = "\
A paused queue is not consumed: what runs finishes, what waits here goes back. A pause outlasts reloads and ends with
the daemon. Exit status: 0 done; 65 no such queue; 69 no daemon.

Examples:
  warrenctl queue pause task_queue
  warrenctl queue resume task_queue";

/// What to do to a handler or queue.
#[derive(Debug, Subcommand)]
pub(crate) enum PauseVerb {
    /// Give it no tasks until `resume`
    Pause {
        /// Its name
        name: String,
    },
    /// Let it go on
    Resume {
        /// Its name
        name: String,
    },
}

pub(crate) fn run(
    global: &Global,
    verb: &PauseVerb,
    held: fn(String) -> PauseTarget,
) -> Result<(), VerbError> {
    let (name, paused) = match verb {
        PauseVerb::Pause { name } => (name, true),
        PauseVerb::Resume { name } => (name, false),
    };
    let reply = place::client(global).hold(&held(name.clone()), paused)?;
    if global.json {
        return print_json(&reply);
    }
    print(&format!("{}: {}\n", clean(&reply.name), clean(&reply.state)))
}
