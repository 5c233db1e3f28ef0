//! What a task does in `plugin run`, as text and as JSON.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};
use warren::host::{HostEvent, Report};

use crate::output::{clean, clean_lines, span};

/// Writes what a host reports while the task runs to stderr.
pub(super) fn emit(event: &HostEvent) {
    let line = match event {
        HostEvent::Progress { permille, note, .. } => {
            format!("progress  {}.{}%  {note}", permille / 10, permille % 10)
        }
        HostEvent::Log { level, message, fields, .. } => {
            let mut line = format!("{:<8}  {message}", level_name(*level));
            for (name, value) in fields {
                let _ = write!(line, " {name}={value}");
            }
            line
        }
        HostEvent::Output { stderr, line, .. } => {
            format!("{:<8}  {line}", if *stderr { "stderr" } else { "stdout" })
        }
        HostEvent::Ready | HostEvent::Withdrawn { .. } | HostEvent::Report(_) | HostEvent::Exited(_) => {
            return;
        }
    };
    // There is nowhere to say that stderr is gone.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{}\n", clean(&line)).as_bytes());
}

/// The same as a JSON object.
pub(super) fn event_json(event: &HostEvent) -> Option<Value> {
    match event {
        HostEvent::Progress { permille, note, .. } => {
            Some(json!({"kind": "progress", "permille": permille, "note": note}))
        }
        HostEvent::Log { level, message, fields, .. } => {
            let fields: Map<_, _> =
                fields.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
            Some(json!({"kind": "log", "level": level_name(*level), "message": message, "fields": fields}))
        }
        HostEvent::Output { stderr, line, .. } => {
            Some(json!({"kind": if *stderr { "stderr" } else { "stdout" }, "line": line}))
        }
        HostEvent::Ready | HostEvent::Withdrawn { .. } | HostEvent::Report(_) | HostEvent::Exited(_) => None,
    }
}

fn level_name(level: i32) -> &'static str {
    match level {
        ..=1 => "error",
        2 => "warn",
        3 => "info",
        4 => "debug",
        _ => "trace",
    }
}

/// The end of a task in words.
pub(super) fn report_text(report: &Report) -> String {
    let mut text = format!("outcome   {} in {}\n", report.outcome.as_str(), span(report.duration));
    if let Some(after) = report.error.as_ref().and_then(|error| error.retry_after) {
        let _ = writeln!(text, "retry     after {}", span(after));
    }
    if let Some(result) = &report.result {
        let body = String::from_utf8_lossy(&result.body);
        let _ = writeln!(text, "result    {}, {} bytes", clean(&result.content_type), result.body.len());
        let _ = writeln!(text, "{}", clean_lines(body.trim_end_matches('\n')));
    }
    for follow_up in &report.follow_ups {
        let queue = if follow_up.queue.is_empty() { "the same queue" } else { &follow_up.queue };
        let delay = match follow_up.delay {
            Duration::ZERO => String::new(),
            delay => format!(" after {}", span(delay)),
        };
        let body = String::from_utf8_lossy(&follow_up.body);
        let _ = writeln!(text, "follow-up to {}{delay}: {}", clean(queue), clean(&body));
    }
    text
}

/// The same as a JSON object, with what was told before.
pub(super) fn report_json(report: &Report, events: &[Value]) -> Value {
    let follow_ups: Vec<Value> = report
        .follow_ups
        .iter()
        .map(|follow_up| {
            let headers: Map<_, _> = follow_up
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
                .collect();
            json!({
                "id": follow_up.id,
                "queue": follow_up.queue,
                "type": follow_up.message_type,
                "content_type": follow_up.content_type,
                "body": String::from_utf8_lossy(&follow_up.body),
                "headers": headers,
                "delay_ms": follow_up.delay.as_millis() as u64,
                "expires_ms": follow_up.expires.as_millis() as u64,
                "priority": follow_up.priority,
            })
        })
        .collect();
    json!({
        "outcome": report.outcome.as_str(),
        "duration_ms": report.duration.as_millis() as u64,
        "error": report.error.as_ref().map(|error| json!({
            "code": error.code,
            "message": error.message,
            "retry_after_ms": error.retry_after.map(|after| after.as_millis() as u64),
        })),
        "result": report.result.as_ref().map(|result| json!({
            "content_type": result.content_type,
            "body": String::from_utf8_lossy(&result.body),
            "bytes": result.body.len(),
        })),
        "follow_ups": follow_ups,
        "events": events,
    })
}
