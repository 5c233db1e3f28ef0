//! What the journal gets.

use super::*;

/// What the journal's layer is given: level, target and fields of each event.
#[derive(Clone, Default)]
struct Entries(Arc<Mutex<Vec<Entry>>>);

type Entry = (Level, String, BTreeMap<String, String>);

impl<S: Subscriber> Layer<S> for Entries {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Fields(BTreeMap<String, String>);
        impl Visit for Fields {
            fn record_debug(&mut self, field: &Field, _: &dyn Debug) {
                panic!("{field} is not text");
            }

            fn record_str(&mut self, field: &Field, value: &str) {
                assert_eq!(
                    self.0.insert(field.to_string(), value.to_owned()),
                    None,
                    "{field} is there twice"
                );
            }
        }
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        let (level, target) = (*event.metadata().level(), event.metadata().target().to_owned());
        self.0.lock().expect("not poisoned").push((level, target, fields.0));
    }
}

impl Entries {
    fn log(&self, level: &str) -> (Guard, impl tracing::Subscriber + Send + Sync + use<>) {
        log_at(level, Sink::Journal(Journal::through(self.clone())))
    }

    fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }
}

fn entry(level: Level, target: &str, fields: &[(&str, &str)]) -> Entry {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    (level, target.to_owned(), fields.collect())
}

#[test]
fn the_journal_gets_every_field_of_a_task_and_none_that_it_does_not_have() {
    let entries = Entries::default();
    let (guard, _) = entries.log("debug");
    let (log, queue, generation) = (guard.task_log(), "task_queue".into(), generation());
    let headers = traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let task = TaskRef {
        id: "t-1",
        queue: Some(&queue),
        generation: Some(&generation),
        attempt: 1,
        headers: Some(&headers),
    };
    log.finished(task, done());
    let error = TaskError { code: "busy".to_owned(), message: "later".to_owned(), retry_after: None };
    let retry = Settlement::Retry { delay: Duration::from_secs(5), next_attempt: 2 };
    let bare = TaskRef::default();
    log.finished(
        bare,
        Finished { outcome: Outcome::Retry, error: Some(&error), settlement: retry, ..done() },
    );
    log.received(bare, 30, true);
    log.refused(bare, DeadReason::Unroutable);
    guard.flush();
    let message = "task done  handler=backup task_id=t-1 queue=task_queue outcome=done attempt=1 duration_ms=1234 \
                   generation=7 trace_id=4bf92f3577b34da6a3ce929d0e0e4736";
    let of_the_task = [
        ("message", message),
        ("task_id", "t-1"),
        ("handler", "backup"),
        ("queue", "task_queue"),
        ("attempt", "1"),
        ("outcome", "done"),
        ("duration_ms", "1234"),
        ("generation", "7"),
        ("plugin_sha256", "ab12"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ];
    let of_the_retry = [
        (
            "message",
            "task failed, to be retried  outcome=retry duration_ms=1234 retry_in_ms=5000 code=busy error=later",
        ),
        ("outcome", "retry"),
        ("duration_ms", "1234"),
        ("retry_in_ms", "5000"),
        ("code", "busy"),
        ("error", "later"),
    ];
    let received =
        [("message", "task received  bytes=30 redelivered=true"), ("bytes", "30"), ("redelivered", "true")];
    let refused = [("message", "task is dead before it ran  reason=unroutable"), ("reason", "unroutable")];
    let expected = [
        entry(Level::INFO, "task", &of_the_task),
        entry(Level::WARN, "task", &of_the_retry),
        entry(Level::DEBUG, "task", &received),
        entry(Level::WARN, "task", &refused),
    ];
    assert_eq!(entries.take(), expected);
}

#[test]
fn what_a_handler_names_stays_in_one_field_of_the_journal() {
    let entries = Entries::default();
    let (guard, _) = entries.log("trace");
    let task = TaskRef { id: "t-1", ..TaskRef::default() };
    let own = [("task_id", "forged"), ("PRIORITY", "0"), ("a\nb", "\"")];
    let own: Vec<_> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    guard.task_log().handler_log(task, 1, "two\nlines", &own);
    guard.task_log().handler_log(task, 5, "fine", &[]);
    guard.task_log().handler_output(task, true, "printed");
    guard.flush();
    let forged = "two\nlines  task_id=t-1 task_id=forged PRIORITY=0 a\\nb=\"\\\"\"";
    let json = r#"{"PRIORITY":"0","a\nb":"\"","task_id":"forged"}"#;
    let expected = [
        entry(Level::ERROR, "handler", &[("message", forged), ("task_id", "t-1"), ("handler_fields", json)]),
        entry(Level::TRACE, "handler", &[("message", "fine  task_id=t-1"), ("task_id", "t-1")]),
        entry(
            Level::INFO,
            "handler",
            &[("message", "printed  task_id=t-1 stream=stderr"), ("task_id", "t-1"), ("stream", "stderr")],
        ),
    ];
    assert_eq!(entries.take(), expected);
}

#[test]
fn the_journal_gets_events_under_their_own_names_and_places() {
    let entries = Entries::default();
    let (guard, subscriber) = entries.log("info");
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(path = "/a b", count = 3, "snapshot {}", "taken");
        tracing::warn!(target: "hyper::proto", "trouble");
    });
    guard.flush();
    let fields = [("message", "snapshot taken  path=\"/a b\" count=3"), ("path", "/a b"), ("count", "3")];
    let expected = [
        entry(Level::INFO, module_path!(), &fields),
        entry(Level::WARN, "hyper::proto", &[("message", "trouble  target=hyper::proto")]),
    ];
    assert_eq!(entries.take(), expected);
}
