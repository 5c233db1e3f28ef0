//! Logging from end to end, but for the process-wide subscriber: what is logged arrives, in the form promised.

mod journal;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::journald::Journal;
use super::writer::{OF_HANDLERS, QUEUE, Sink, Writer};
use super::{Finished, Guard, TaskRef, assemble};
use crate::config::{Limits, Log, LogTarget};
use crate::model::{DeadReason, FaultCause, Outcome, TaskError};
use crate::plugin::Snapshot;
use crate::registry::Generation;
use crate::settlement::Settlement;

/// Text that was logged.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl Write for Pages {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Pages {
    /// The lines without their times.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text");
        text.lines().map(|line| line.split_once(' ').map_or(line, |(_, rest)| rest).to_owned()).collect()
    }
}

fn log_at(level: &str, sink: Sink) -> (Guard, impl tracing::Subscriber + Send + Sync + use<>) {
    let log = Log { level: level.to_owned(), target: LogTarget::Auto };
    assemble(&log, Writer::start(sink).expect("a thread")).expect("a level")
}

fn text_log(level: &str) -> (Pages, Guard, impl tracing::Subscriber + Send + Sync) {
    let pages = Pages::default();
    let (guard, subscriber) = log_at(level, Sink::Text { color: false, out: Box::new(pages.clone()) });
    (pages, guard, subscriber)
}

fn generation() -> Arc<Generation> {
    Arc::new(Generation {
        number: 7,
        handler: "backup".into(),
        prefixes: Vec::new(),
        queues: None,
        plugin: Arc::new(Snapshot::stub("backup-database")),
        settings_json: "{}".into(),
        limits: Limits::default(),
        timeout: Duration::from_secs(1),
    })
}

fn traceparent(text: &str) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(text.into()));
    headers
}

fn done() -> Finished<'static> {
    let duration = Duration::from_millis(1234);
    Finished { outcome: Outcome::Done, error: None, settlement: Settlement::Ack, duration }
}

#[test]
fn the_life_of_a_task_is_told_with_its_fields() {
    let (pages, guard, _) = text_log("debug");
    let (log, queue, generation) = (guard.task_log(), "task_queue".into(), generation());
    let task =
        TaskRef { id: "t-1", queue: Some(&queue), generation: Some(&generation), attempt: 2, headers: None };
    log.received(TaskRef { generation: None, ..task }, 30, true);
    log.started(task);
    log.handler_log(task, 2, "slow\nERROR forged", &[("step".to_owned(), "3 of 4".to_owned())]);
    log.handler_output(task, true, "pg_dump: done");
    log.finished(task, done());
    let error = TaskError { code: "busy".to_owned(), message: "try later".to_owned(), retry_after: None };
    let retry = Settlement::Retry { delay: Duration::from_secs(5), next_attempt: 3 };
    log.finished(
        task,
        Finished { outcome: Outcome::Retry, error: Some(&error), settlement: retry, ..done() },
    );
    let dead = Settlement::Dead { reason: DeadReason::Attempts };
    log.finished(
        task,
        Finished { outcome: Outcome::Fault(FaultCause::HostDied), settlement: dead, ..done() },
    );
    log.refused(TaskRef { id: "t-2", ..TaskRef::default() }, DeadReason::Unroutable);
    for text in ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "not a trace"] {
        let headers = traceparent(text);
        log.refused(
            TaskRef { id: "t-3", headers: Some(&headers), ..TaskRef::default() },
            DeadReason::Unroutable,
        );
    }
    guard.flush();
    let about = "handler=backup task_id=t-1 queue=task_queue";
    let with = "attempt=2 generation=7 plugin_sha256=ab12";
    let ended = "attempt=2 duration_ms=1234 generation=7 plugin_sha256=ab12";
    let expected = [
        "DEBUG task received  task_id=t-1 queue=task_queue attempt=2 bytes=30 redelivered=true".to_owned(),
        format!("DEBUG task started  {about} {with}"),
        format!("WARN  slow\\nERROR forged  {about} {with} step=\"3 of 4\""),
        format!("INFO  pg_dump: done  {about} {with} stream=stderr"),
        format!("INFO  task done  {about} outcome=done {ended}"),
        format!(
            "WARN  task failed, to be retried  {about} outcome=retry {ended} retry_in_ms=5000 code=busy error=\"try later\""
        ),
        format!("WARN  task failed, now a dead letter  {about} outcome=fault {ended} reason=attempts"),
        "WARN  task is dead before it ran  task_id=t-2 reason=unroutable".to_owned(),
        "WARN  task is dead before it ran  task_id=t-3 trace_id=4bf92f3577b34da6a3ce929d0e0e4736 reason=unroutable"
            .to_owned(),
        "WARN  task is dead before it ran  task_id=t-3 reason=unroutable".to_owned(),
    ];
    assert_eq!(pages.lines(), expected);
}

#[test]
fn tracing_events_arrive_with_their_fields_and_libraries_are_quiet() {
    let (pages, guard, subscriber) = text_log("info");
    tracing::subscriber::with_default(subscriber, || {
        let cause = std::io::Error::other("disk full");
        tracing::info!(path = "/a b", count = 3, "snapshot {}", "taken");
        tracing::error!(error = &cause as &dyn std::error::Error, "it failed");
        tracing::debug!("not at this level");
        tracing::info!(target: "hyper::proto", "chatter");
        tracing::warn!(target: "hyper::proto", "trouble");
        tracing::error!(target: "lapin::channel", "what the supervisor says in its own words");
    });
    guard.flush();
    let expected = [
        "INFO  snapshot taken  path=\"/a b\" count=3",
        "ERROR it failed  error=\"disk full\"",
        "WARN  trouble  target=hyper::proto",
    ];
    assert_eq!(pages.lines(), expected);
}

#[test]
fn a_new_level_is_in_force_at_once_and_a_bad_one_changes_nothing() {
    let (pages, guard, subscriber) = text_log("warn");
    let log = guard.task_log();
    let info = || {
        log.finished(TaskRef::default(), done());
        tracing::info!("an event");
    };
    tracing::subscriber::with_default(subscriber, || {
        info();
        assert!(guard.set_level("nonsense").is_err());
        info();
        guard.set_level("info").expect("a level");
        info();
        guard.set_level("info,task=off").expect("a level");
        info();
    });
    guard.flush();
    assert_eq!(
        pages.lines(),
        ["INFO  task done  outcome=done duration_ms=1234", "INFO  an event", "INFO  an event"]
    );
}

/// A terminal that stands still until it is told to go on.
struct Stuck {
    pages: Pages,
    reached: Sender<()>,
    go_on: Receiver<()>,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Both ends go away when the test is over.
        let _ = self.reached.send(());
        let _ = self.go_on.recv();
        self.pages.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_terminal_costs_lines_but_never_blocks_and_the_loss_is_told() {
    let pages = Pages::default();
    let (reached, at_the_terminal) = channel();
    let (release, go_on) = sync_channel::<()>(0);
    // `go_on` answers each write; dropping `release` lets all of them pass.
    let (forward, go) = channel();
    std::thread::spawn(move || {
        while go_on.recv().is_ok() {
            let _ = forward.send(());
        }
    });
    let stuck = Stuck { pages: pages.clone(), reached, go_on: go };
    let (guard, _) = log_at("info", Sink::Text { color: false, out: Box::new(stuck) });
    let log = guard.task_log();
    log.handler_output(TaskRef::default(), false, "first");
    at_the_terminal.recv_timeout(Duration::from_secs(10)).expect("the log thread writes");
    for _ in 0..OF_HANDLERS + 100 {
        log.handler_output(TaskRef::default(), false, "more");
    }
    // A flood of handlers' lines leaves room for what Warren has to say.
    for _ in 0..QUEUE - OF_HANDLERS + 7 {
        log.recounted(TaskRef::default(), 1);
    }
    drop(release);
    guard.flush();
    let lines = pages.lines();
    assert_eq!(lines.len(), 1 + QUEUE + 2, "the queue's worth, and two lines about the loss");
    assert_eq!(
        lines[lines.len() - 2..],
        [
            "WARN  log lines were lost: the log is too slow  lost=7",
            "WARN  lines of handlers were lost: they log and print more than the log takes  lost=100"
        ]
    );
    let own = lines.iter().filter(|line| line.contains("started before")).count();
    assert_eq!(own, QUEUE - OF_HANDLERS);
    assert_eq!(guard.lost_lines(), 107);
}

#[test]
fn long_lines_are_cut_at_a_character() {
    let (pages, guard, _) = text_log("info");
    guard.task_log().handler_output(TaskRef::default(), false, &"é".repeat(10_000));
    guard.flush();
    let line = pages.lines().remove(0);
    assert_eq!(line, format!("INFO  {}…  stream=stdout", "é".repeat(2048)));
}

#[test]
fn a_log_that_is_off_is_never_enabled() {
    let log = super::TaskLog::off();
    assert!(!log.enabled(tracing::Level::ERROR) && !log.handler_enabled(tracing::Level::ERROR));
    log.finished(TaskRef::default(), done());
}
