//! `warrenctl status`.

use std::fmt::Write;

use warren::model::status::{Counts, HandlerStatus, QueueStatus, RecentError, Status, Unsettled};

use crate::exit::VerbError;
use crate::output::{TextTable, clean, print, print_json, short_digest, since, span};
use crate::{Global, place};

pub(crate) const EXAMPLES: &str = "\
Examples:
  warrenctl status
  warrenctl status --json | jq '.queues[] | {name, waiting}'
  warrenctl --socket /run/warren/control.sock status";

pub(crate) fn run(global: &Global) -> Result<(), VerbError> {
    let status = place::client(global).status()?;
    if global.json { print_json(&status) } else { print(&text(&status)) }
}

fn text(status: &Status) -> String {
    let mut text = head(status);
    text.push_str(&queues(&status.queues));
    text.push_str(&handlers(&status.handlers));
    text.push_str(&errors(&status.last_errors));
    text
}

/// The daemon, its broker link and its last reload.
pub(crate) fn head(status: &Status) -> String {
    let mut text = format!(
        "warrend {}  {}, {}, pid {}, up {}\n",
        clean(&status.version),
        status.state,
        if status.ready { "ready" } else { "NOT READY" },
        status.pid,
        span(since(status.started_ms)),
    );
    let broker = &status.broker;
    let _ = write!(text, "broker  {}", broker.state);
    if !broker.address.is_empty() {
        let _ = write!(text, ", {}", clean(&broker.address));
    }
    if !broker.server.is_empty() {
        let _ = write!(text, " ({})", clean(&broker.server));
    }
    if broker.connects > 1 {
        let _ = write!(text, ", {} links since start", broker.connects);
    }
    if let Some(error) = &broker.last_error {
        let _ = write!(text, "\n        last error: {}", clean(error));
    }
    if let Some(fault) = &status.machine_fault {
        let _ = write!(text, "\nmachine {}", clean(fault));
    }
    if let Some(reload) = &status.last_reload {
        let ago = span(since(reload.at_ms));
        let result = if reload.ok { "ok" } else { "FAILED" };
        let _ = write!(text, "\nreload  {result}, {ago} ago");
        if let Some(error) = &reload.error {
            let _ = write!(text, ": {}", clean(error));
        }
        for row in &reload.handlers {
            if let Some(error) = &row.error {
                let _ = write!(text, "\n        {} {}: {}", clean(&row.handler), row.change, clean(error));
            }
        }
    }
    text.push('\n');
    text
}

fn queues(queues: &[QueueStatus]) -> String {
    let mut table = TextTable::new(&[
        "QUEUE",
        "STATE",
        "PREFETCH",
        "WORKERS",
        "RUNNING",
        "WAITING",
        "SETTLING",
        "DELIVERED",
        "DONE",
        "RETRIED",
        "DEAD",
        "REQUEUED",
        "FAULTS",
        "PARKED",
        "DUPLICATES",
        "EXPIRED",
    ]);
    for queue in queues {
        let Counts { delivered, done, retried, dead, expired, requeued, faults, parked, deduplicated } =
            queue.counts;
        let numbers = [queue.running, queue.waiting, queue.settling].map(|n| n.to_string());
        let counts = [delivered, done, retried, dead, requeued, faults, parked, deduplicated, expired];
        let setup = [
            queue.name.clone(),
            queue.state.to_string(),
            queue.prefetch.to_string(),
            queue.workers.to_string(),
        ];
        table.row(setup.into_iter().chain(numbers).chain(counts.map(|n| n.to_string())));
    }
    let mut text = section(&table, queues.len());
    for queue in queues {
        let name = clean(&queue.name);
        if let Some(Unsettled { tasks, why }) = &queue.unsettled {
            let _ = writeln!(text, "  {name}: {tasks} tasks cannot be settled: {}", clean(why));
        }
        if let Some(delays) = &queue.delays {
            let _ = writeln!(text, "  {name}: {}", clean(delays));
        }
        if let Some(why) = &queue.held {
            let _ = writeln!(text, "  {name}: {}", clean(why));
        }
        if let Some(fault) = queue.deduplication.as_ref().and_then(|memory| memory.fault.as_ref()) {
            let fault = clean(fault);
            let _ = writeln!(text, "  {name}: finished tasks are remembered in memory only: {fault}");
        }
    }
    text
}

fn handlers(handlers: &[HandlerStatus]) -> String {
    let mut table = TextTable::new(&[
        "HANDLER", "PLUGIN", "VERSION", "GEN", "SHA256", "STATE", "RUNNING", "WAITING", "DONE", "RETRIED",
        "DEAD", "FAULTS", "PARKED",
    ]);
    for handler in handlers {
        let names = [
            handler.name.clone(),
            handler.plugin.clone(),
            handler.plugin_version.clone(),
            handler.generation.to_string(),
            short_digest(&handler.sha256),
            handler.state.to_string(),
        ];
        let Counts { done, retried, dead, faults, parked, .. } = handler.counts;
        let counts = [handler.running as u64, handler.waiting as u64, done, retried, dead, faults, parked];
        table.row(names.into_iter().chain(counts.map(|n| n.to_string())));
    }
    let mut text = section(&table, handlers.len());
    for handler in handlers {
        for why in handler.held.iter().chain(&handler.last_error) {
            let _ = writeln!(text, "  {}: {}", clean(&handler.name), clean(why));
        }
    }
    text
}

fn errors(errors: &[RecentError]) -> String {
    let mut text = String::new();
    for error in errors {
        if text.is_empty() {
            text.push_str("\nlast errors\n");
        }
        let _ = write!(text, "  {} ago", span(since(error.at_ms)));
        if let Some(handler) = &error.handler {
            let _ = write!(text, "  {}", clean(handler));
        }
        if let Some(task) = &error.task_id {
            let _ = write!(text, "  task {}", clean(task));
        }
        let _ = writeln!(text, "  {}", clean(&error.message));
    }
    text
}

fn section(table: &TextTable, rows: usize) -> String {
    if rows == 0 { String::new() } else { format!("\n{}", table.text()) }
}

#[cfg(test)]
mod tests {
    use warren::model::status::{
        BrokerState, BrokerStatus, DaemonState, Deduplication, HandlerChange, ReloadReply, ReloadRow,
    };

    use super::*;

    #[test]
    fn status_names_what_an_operator_looks_for() {
        let status = Status {
            version: "0.1.0".into(),
            pid: 4711,
            state: DaemonState::Running,
            broker: BrokerStatus {
                state: BrokerState::Connecting,
                address: "127.0.0.1:5672/".into(),
                last_error: Some("connection refused".into()),
                ..BrokerStatus::default()
            },
            queues: vec![QueueStatus {
                name: "task_queue".into(),
                waiting: 3,
                unsettled: Some(Unsettled { tasks: 4, why: "its body is too large".into() }),
                delays: Some("`task_queue.retry.250` is short".into()),
                deduplication: Some(Deduplication {
                    fault: Some("read-only file system".into()),
                    ..Deduplication::default()
                }),
                ..QueueStatus::default()
            }],
            handlers: vec![HandlerStatus {
                name: "backup".into(),
                generation: 7,
                sha256: "0123456789abcdef0123456789abcdef".into(),
                last_error: Some("disk\x1b[2J full".into()),
                ..HandlerStatus::default()
            }],
            last_reload: Some(ReloadReply {
                handlers: vec![ReloadRow {
                    handler: "orders".into(),
                    change: HandlerChange::Kept,
                    error: Some("create failed".into()),
                    ..ReloadRow::default()
                }],
                ..ReloadReply::default()
            }),
            ..Status::default()
        };
        let text = text(&status);
        for part in [
            "NOT READY",
            "pid 4711",
            "last error: connection refused",
            "task_queue",
            "task_queue: finished tasks are remembered in memory only: read-only file system",
            "task_queue: 4 tasks cannot be settled: its body is too large",
            "task_queue: `task_queue.retry.250` is short",
            "0123456789ab ",
            "backup: disk\u{fffd}[2J full",
            "reload  FAILED",
            "orders kept: create failed",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(!text.contains("0123456789abc"), "{text}");
    }
}
