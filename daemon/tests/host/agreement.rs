//! The plugin host and the test kit make the same of what a plugin says: the same plugin is run in both.
#![allow(unsafe_code)] // The plugin is loaded into the test, as the kit has it.

use std::time::Duration;

use warren::host::{HostEvent, HostSpec, HostTask, OutputBounds, Report, Spawner};
use warren::model::{FollowUp, Outcome};
use warren::router::{RouteEntry, Router};
use warren_plugin::testing::{AnyPlugin, Ran, TaskSpec, TestKit};
use warren_plugin::{Call, Done, Failure, Handler, Message, NoSettings, Task, abi};

use crate::bed::{BOUND, Watched, run, spawner, spec, task, torture_in};

/// All that is known of one task afterwards.
#[derive(Debug, Default, PartialEq)]
struct Told {
    outcome: &'static str,
    code: String,
    message: String,
    retry_after: Option<Duration>,
    content_type: String,
    body: Vec<u8>,
    follow_ups: Vec<FollowUp>,
    logs: Vec<Line>,
    progress: Vec<(u32, String)>,
}

#[derive(Debug, PartialEq)]
struct Line {
    level: i32,
    message: String,
    fields: Vec<(String, String)>,
}

impl Told {
    fn take(&mut self, event: HostEvent) -> Option<Report> {
        match event {
            HostEvent::Log { level, message, fields, .. } => self.logs.push(Line { level, message, fields }),
            HostEvent::Progress { permille, note, .. } => self.progress.push((permille, note)),
            HostEvent::Report(report) => return Some(*report),
            HostEvent::Exited(exit) => panic!("no report, but {exit:?}"),
            _ => {}
        }
        None
    }

    fn reported(self, report: Report) -> Self {
        let error = report.error.unwrap_or_default();
        let result = report.result.unwrap_or_default();
        Self {
            outcome: match report.outcome {
                Outcome::Done => "done",
                Outcome::Retry => "retry",
                Outcome::Reject => "reject",
                Outcome::Cancelled | Outcome::TimedOut => "cancelled",
                Outcome::Fault(_) => "fault",
            },
            code: error.code,
            message: error.message,
            retry_after: error.retry_after,
            content_type: result.content_type,
            body: result.body,
            follow_ups: report.follow_ups,
            ..self
        }
    }
}

impl From<Ran> for Told {
    fn from(ran: Ran) -> Self {
        let logs = ran.logs.into_iter().map(|line| Line {
            level: line.level as i32 + abi::LOG_ERROR,
            message: line.message,
            fields: line.fields,
        });
        let told = Self {
            follow_ups: ran.published.into_iter().map(follow_up).collect(),
            logs: logs.collect(),
            progress: ran.progress,
            ..Self::default()
        };
        match ran.outcome {
            Ok(done) => Self {
                outcome: "done",
                content_type: done.content_type().to_owned(),
                body: done.bytes().to_vec(),
                ..told
            },
            Err(failure) => Self {
                outcome: match () {
                    () if failure.is_retry() => "retry",
                    () if failure.is_reject() => "reject",
                    () if failure.is_cancelled() => "cancelled",
                    () => "fault",
                },
                code: failure.code().to_owned(),
                message: failure.message().to_owned(),
                retry_after: failure.retry_after(),
                ..told
            },
        }
    }
}

fn follow_up(message: Message) -> FollowUp {
    FollowUp {
        id: message.id.unwrap_or_default(),
        queue: message.queue.unwrap_or_default(),
        message_type: message.message_type.unwrap_or_default(),
        content_type: message.content_type.unwrap_or_default(),
        body: message.body,
        headers: message.headers,
        delay: message.delay.unwrap_or_default(),
        expires: message.expires.unwrap_or_default(),
        priority: message.priority.map_or(-1, i32::from),
    }
}

async fn in_a_host(spawner: &Spawner, argument: &str, timeout: Duration) -> Told {
    let output = OutputBounds { bytes: 1 << 20, lines: 1_000 };
    let mut host = Watched::with(spawner, &HostSpec { output, ..spec("{}") });
    host.send_task(&HostTask { argument, timeout, ..task() });
    let mut told = Told::default();
    loop {
        if let Some(report) = told.take(host.next().await) {
            return told.reported(report);
        }
    }
}

#[test]
fn a_host_and_the_test_kit_make_the_same_of_what_a_plugin_says() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // SAFETY: the plugin has no initialisers, and its entry point is of this type.
    let library =
        unsafe { libloading::Library::new(torture_in(directory.path())) }.expect("it can be loaded");
    // SAFETY: as above.
    let entry = *unsafe { library.get::<abi::EntryPoint>(abi::ENTRY_SYMBOL) }.expect("the entry point");
    // SAFETY: the plugin keeps the contract, and is dropped after the kit.
    let kit = unsafe { TestKit::<AnyPlugin>::of_plugin(entry, serde_json::json!({})) };
    let mut kit = kit.expect("the handler is made").prefixes(["Torture"]);

    let tasks = [
        "done",
        "retry",
        "reject",
        "cancelled",
        "long error",
        "log",
        "late",
        "fields 255",
        "fields 256",
        "fields -256",
        "type 255",
        "type 416",
        "type -20",
        "result 262144",
        "result 262145",
        "publish 2",
        "publish 1000",
        "publish 1001",
        "publish-large 1048576",
        "publish-large 1048577",
        "words 255",
        "words 256",
        "words 1000",
        "status 4",
        "status 5",
        "status -1",
    ];
    run(async {
        let spawner = spawner();
        for argument in tasks {
            let in_the_kit = Told::from(kit.run(format!("Torture {argument}").as_str()));
            assert_eq!(in_a_host(&spawner, argument, BOUND).await, in_the_kit, "{argument}");
        }
        let short = Duration::from_millis(50);
        kit.deadline(short);
        let in_the_kit = Told::from(kit.run("Torture wait"));
        assert_eq!((in_the_kit.outcome, &*in_the_kit.code), ("cancelled", "timeout"));
        assert_eq!(in_a_host(&spawner, "wait", short).await, in_the_kit);
    });
}

/// Says which prefix and argument it was given.
struct Echo;

impl Handler for Echo {
    type Settings = NoSettings;

    fn new(_: NoSettings, _: &warren_plugin::Host) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn handle(&mut self, task: &Task<'_>, _: &Call<'_>) -> warren_plugin::Outcome {
        Ok(Done::text(format!("{}|{}", task.prefix(), task.argument())))
    }
}

#[test]
fn the_router_and_the_test_kit_find_the_same_prefix_and_argument() {
    let prefixes = ["Process order", "Process", "Task 7: Special", "Send #", "Überprüfe"];
    let entries = prefixes.iter().map(|&prefix| RouteEntry {
        prefix: prefix.into(),
        handler: 0,
        queues: None,
        incumbent: false,
    });
    let (router, conflicts) = Router::build(entries);
    assert!(conflicts.is_empty(), "{conflicts:?}");
    let kit = TestKit::<Echo>::without_manifest(serde_json::json!({}));
    let mut kit = kit.expect("it needs no settings").prefixes(prefixes);
    for (text, message_type) in [
        ("Task 1: Process order #1001\r\n", None),
        ("Task \t12 :Process order", None),
        ("Process orders now", None),
        ("Task 7: Special delivery", None),
        ("Send #1", None),
        ("Process\n\n", None),
        ("Task 3: Überprüfe alles", None),
        ("{}", Some("Process")),
        ("Process it", Some("Unknown")),
    ] {
        let found = router.route("tasks", message_type, text.as_bytes()).expect("a prefix takes it");
        let spec = match message_type {
            Some(name) => TaskSpec::typed(name, text),
            None => TaskSpec::text(text),
        };
        let expected = format!("{}|{}", found.prefix, &text[found.argument]);
        assert_eq!(kit.run(spec).done().as_text(), expected, "{text:?} {message_type:?}");
    }
}

#[test]
fn the_key_of_a_field_is_cut_at_255_bytes_and_all_fields_of_a_line_at_their_bound() {
    run(async {
        let spawner = spawner();
        for argument in ["fields 256", "fields -256"] {
            let told = in_a_host(&spawner, argument, BOUND).await;
            let [line] = &told.logs[..] else { panic!("one line, not {:?}", told.logs) };
            assert_eq!((line.level, line.fields.len()), (abi::LOG_TRACE, abi::MAX_LOG_FIELDS), "{argument}");
            assert_eq!(line.fields[0].0.len(), abi::MAX_WORD_BYTES, "{argument}");
        }
    });
}
