//! `warrenctl route`.

mod offline;

use std::fmt::Write;

use clap::Args;
use warren::control::client::ClientError;
use warren::model::status::RouteReply;

use crate::exit::{Code, VerbError};
use crate::output::{clean, print, print_json};
use crate::{Global, place};

pub(crate) const EXAMPLES: &str = "\
The daemon is asked if it runs; else, or with --offline, the configuration and the plugins on disk are, and nothing of a
plugin is run. Exit status: 0 a handler takes it; 65 it would be dead-lettered as unroutable.

Examples:
  warrenctl route 'Task 1: Process order #1001'
  warrenctl route --offline --config ./warren.toml 'Backup database now'
  warrenctl route --queue mail --type order.created '{\"order\": 1001}'";

#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    /// The task's text, as a producer would publish it
    text: String,
    /// The queue it would come from: handlers can be narrowed to queues
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// The AMQP property `type` it would have: it is tried before the text
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// Do not ask the daemon: go by the configuration and the plugins on disk
    #[arg(long)]
    offline: bool,
}

pub(crate) fn run(global: &Global, args: &RouteArgs) -> Result<(), VerbError> {
    let reply =
        if args.offline { offline::route(&place::config(global)?, args)? } else { ask(global, args)? };
    if global.json {
        print_json(&reply)?;
    } else {
        print(&text(&reply))?;
    }
    match reply.handler {
        Some(_) => Ok(()),
        None => Err(VerbError::text(
            Code::Data,
            "no handler takes this task: it would be dead-lettered as unroutable",
        )),
    }
}

/// Asks the daemon; without one, the files.
fn ask(global: &Global, args: &RouteArgs) -> Result<RouteReply, VerbError> {
    let client = place::client(global);
    match client.route(args.text.as_bytes(), args.queue.as_deref(), args.message_type.as_deref()) {
        Err(ClientError::NoDaemon { .. }) => offline::route(&place::config(global)?, args),
        reply => Ok(reply?),
    }
}

fn text(reply: &RouteReply) -> String {
    let mut text = String::new();
    let why = Some(reply.why.clone());
    for (name, value) in [
        ("handler ", &reply.handler),
        ("prefix  ", &reply.prefix),
        ("argument", &reply.argument),
        ("why     ", &why),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "{name}  {}", clean(value));
        }
    }
    text
}
