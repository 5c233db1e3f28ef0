//! `warrenctl cancel`.

use std::fmt::Write;

use clap::Args;
use warren::model::status::{CancelReply, CancelledWhile};

use crate::exit::VerbError;
use crate::output::{clean, print, print_json};
use crate::{Global, place};

pub(crate) const EXAMPLES: &str = "\
A running task is asked to stop, and killed with everything it started after its handler's `grace`; one that waits in
the daemon is not started. Either becomes a dead letter with the reason `cancelled`, unless it is done first. Tasks in
the queue or in a delay queue are not looked for. Exit status: 0 cancelled; 65 no such task here; 69 no daemon.

Examples:
  warrenctl cancel 0190b0f2-7c1e-7000-8000-3c5d2a9e4b11
  warrenctl active --json | jq -r '.[] | select(.running_ms > 600000).id' | xargs -n1 warrenctl cancel";

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The task's id, as `warrenctl active` and the log show it
    #[arg(value_name = "TASK_ID")]
    task: String,
}

pub(crate) fn run(global: &Global, args: &CancelArgs) -> Result<(), VerbError> {
    let reply = place::client(global).cancel(&args.task)?;
    if global.json { print_json(&reply) } else { print(&text(&reply)) }
}

fn text(reply: &CancelReply) -> String {
    let mut text = String::new();
    for task in &reply.cancelled {
        let what = if task.was == CancelledWhile::Running { "asked to stop" } else { "not started" };
        let (id, queue, handler) = (clean(&task.id), clean(&task.queue), clean(&task.handler));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{id}: {what} (queue {queue}, handler {handler})");
    }
    text
}
