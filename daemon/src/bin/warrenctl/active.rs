//! `warrenctl active`.

use std::time::Duration;

use warren::model::status::ActiveTask;

use crate::exit::VerbError;
use crate::output::{TextTable, print, print_json, span};
use crate::{Global, place};

pub(crate) const EXAMPLES: &str = "\
Examples:
  warrenctl active
  watch -n1 warrenctl active
  warrenctl active --json | jq 'map(select(.running_ms > 60000))'";

pub(crate) fn run(global: &Global) -> Result<(), VerbError> {
    let tasks = place::client(global).active()?;
    if global.json { print_json(&tasks) } else { print(&text(&tasks)) }
}

fn text(tasks: &[ActiveTask]) -> String {
    if tasks.is_empty() {
        return "no task is running\n".to_owned();
    }
    let mut table = TextTable::new(&[
        "TASK", "QUEUE", "HANDLER", "GEN", "ATTEMPT", "RUNNING", "LIMIT", "PID", "PROGRESS", "TEXT",
    ]);
    for task in tasks {
        table.row([
            task.id.clone(),
            task.queue.clone(),
            task.handler.clone(),
            task.generation.to_string(),
            task.attempt.to_string(),
            span(Duration::from_millis(task.running_ms)),
            span(Duration::from_millis(task.timeout_ms)),
            task.pid.to_string(),
            progress(task),
            task.text.clone(),
        ]);
    }
    table.text()
}

/// How far a task is, in percent and in its handler's words.
pub(crate) fn progress(task: &ActiveTask) -> String {
    let share = task.permille.map(|permille| format!("{}.{}%", permille / 10, permille % 10));
    let note = task.note.clone().filter(|note| !note.is_empty());
    match (share, note) {
        (None, None) => "-".to_owned(),
        (Some(text), None) | (None, Some(text)) => text,
        (Some(share), Some(note)) => format!("{share} {note}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_task_shows_how_far_it_is() {
        let task = ActiveTask {
            id: "t-1".into(),
            running_ms: 61_000,
            permille: Some(425),
            note: Some("page 3".into()),
            text: "Backup database".into(),
            ..ActiveTask::default()
        };
        let text = text(&[task]);
        for part in ["t-1", "1m 1s", "42.5% page 3", "Backup database"] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }
}
