//! `warrenctl plugin run`: one task through a real plugin host, without a broker.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use warren::host::{Exit, HostTask, Report, run_one};
use warren::model::{Outcome, TaskError};
use warren::plugin::{WantedHandler, route_entries};
use warren::router::Router;

use super::show;
use super::trial::{Trial, TrialArgs, describe_error, not_created, spawner};
use crate::Global;
use crate::exit::{Code, VerbError};
use crate::interrupt::Interrupt;
use crate::output::{note, print, print_json};

pub(super) const EXAMPLES: &str = "\
The text is matched against the plugin's prefixes (or those of --handler) as the daemon does it; one that no prefix
takes is given whole as the argument. Logs, progress and output appear on stderr as they come; follow-up tasks are
shown and not sent.

Exit status: 0 done; 75 retry; 65 reject, or no plugin; 70 fault (panic, crash, time limit); 78 it refuses the settings;
130 interrupted.

Examples:
  warrenctl plugin run target/release/libmine.so 'Do the thing now'
  warrenctl plugin run exec.so 'photo.jpg' --settings '{\"command\": [\"/usr/bin/file\", \"{argument}\"]}'
  warrenctl plugin run orders.so 'Process order #1001' --handler orders --id o-1001 --attempt 2
  warrenctl plugin run mine.so --type order.created '{\"order\": 1001}' --header tenant=acme --json";

/// Which plugin, which task.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    trial: TrialArgs,
    /// The task's text
    text: String,
    /// The task's id; without it the task has a generated one, as a message without `message_id` has
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The attempt, from 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
    /// The broker delivered it before
    #[arg(long)]
    redelivered: bool,
    /// The queue that the task says it came from
    #[arg(long, value_name = "QUEUE", default_value = "task_queue")]
    queue: String,
    /// A header, as NAME=VALUE; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = crate::publish::header)]
    headers: Vec<(String, String)>,
    /// The AMQP property `type`: routes the task instead of its text
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// The AMQP content type
    #[arg(long, value_name = "TYPE", default_value = "")]
    content_type: String,
    /// The time limit, instead of the handler's or the plugin's
    #[arg(long, value_name = "DURATION", value_parser = crate::publish::duration)]
    timeout: Option<Duration>,
}

pub(super) fn run(global: &Global, args: &RunArgs) -> Result<(), VerbError> {
    let trial = Trial::prepare(global, &args.trial)?;
    let (prefix, argument) = routed(&trial.handler, args);
    let id = args.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let task = HostTask {
        seq: 1,
        attempt: args.attempt,
        redelivered: args.redelivered,
        id_generated: args.id.is_none(),
        id: &id,
        queue: &args.queue,
        prefix: &prefix,
        argument: &argument,
        content_type: &args.content_type,
        headers: &args.headers,
        body: args.text.as_bytes(),
        timeout: args.timeout.unwrap_or(trial.handler.timeout),
        wants_result: true,
    };
    let spawner = spawner()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| VerbError::new(Code::Software, e))?;
    let mut events = Vec::new();
    let ended = runtime.block_on(async {
        let interrupt = Interrupt::listen().map_err(|e| VerbError::new(Code::Software, e))?;
        let running = run_one(&trial.spec, &spawner, &task, |event| {
            if global.json {
                events.extend(show::event_json(&event));
            } else {
                show::emit(&event);
            }
        });
        tokio::select! {
            // Dropping the run kills the host.
            () = interrupt.wait() => Err(VerbError::text(Code::Interrupted, "interrupted; the plugin host was killed")),
            ended = running => Ok(ended),
        }
    })?;
    match ended {
        Ok(report) => conclude(global, &report, &events),
        Err(exit) => match &exit.create_error {
            Some(error) => Err(not_created(&trial.spec, error)),
            None => conclude(global, &died(&exit), &events),
        },
    }
}

/// Prefix and argument, by the daemon's rules.
fn routed(handler: &WantedHandler, args: &RunArgs) -> (String, String) {
    // On whatever queue: this is the handler that the task is for.
    let anywhere = WantedHandler { queues: None, ..handler.clone() };
    let (router, _) = Router::build(route_entries(&[anywhere]));
    let text = args.text.as_bytes();
    if let Some(found) = router.route(&args.queue, args.message_type.as_deref(), text) {
        let argument = text.get(found.argument).map(String::from_utf8_lossy).unwrap_or_default();
        return (found.prefix.to_string(), argument.into_owned());
    }
    if !handler.prefixes.is_empty() {
        note(&format!(
            "warning: no prefix of the plugin takes this text ({}); all of it is the argument",
            handler.prefixes.join(", ")
        ));
    }
    (String::new(), args.text.trim().to_owned())
}

/// A host that died under the task is a fault of the task.
fn died(exit: &Exit) -> Report {
    let error = TaskError { code: "crash".into(), message: exit.why.clone(), retry_after: None };
    Report {
        seq: 1,
        outcome: Outcome::Fault(exit.cause()),
        error: Some(error),
        result: None,
        follow_ups: Vec::new(),
        duration: Duration::ZERO,
    }
}

fn conclude(global: &Global, report: &Report, events: &[Value]) -> Result<(), VerbError> {
    if global.json {
        print_json(&show::report_json(report, events))?;
    } else {
        print(&show::report_text(report))?;
    }
    let why = report.error.as_ref().map(describe_error).unwrap_or_default();
    let (code, what) = match report.outcome {
        Outcome::Done => return Ok(()),
        Outcome::Retry => (Code::TryAgain, "the handler asks for another attempt"),
        Outcome::Cancelled | Outcome::TimedOut => (Code::Software, "the task was stopped at its time limit"),
        Outcome::Reject => (Code::Data, "the handler rejects the task"),
        Outcome::Fault(_) => (Code::Software, "the handler failed"),
    };
    Err(VerbError::text(code, if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") }))
}
