//! The SDK as a handler and its author see it, run in the kit.

mod puppet;

use serde_json::json;
use std::cell::RefCell;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use warren_plugin::testing::{LogLine, TaskSpec, TestKit};
use warren_plugin::{Call, Done, Failure, Handler, Host, Level, Logger, Message, Outcome, Task, abi};

use puppet::{Puppet, STARTED, full_message, puppet};

thread_local! {
    static LEAKED: RefCell<Option<Logger>> = const { RefCell::new(None) };
}

#[test]
fn each_answer_of_a_handler_arrives_as_it_was_given() {
    let mut kit = puppet();
    assert_eq!(kit.run("empty").outcome, Ok(Done::empty()));
    let json = kit.run("json");
    assert_eq!(
        (json.done().content_type(), json.done().bytes()),
        ("application/json", &br#"{"answer":42}"#[..])
    );

    let busy = kit.run("retry").outcome.unwrap_err();
    assert_eq!((busy.code(), busy.message()), ("busy", "the server is busy"));
    assert!(busy.is_retry() && busy.retry_after() == Some(Duration::from_secs(7)));
    assert!(kit.run("reject").failure().is_reject());
}

#[test]
fn an_error_through_the_question_mark_means_retry() {
    let failure = puppet().run("io").outcome.unwrap_err();
    assert!(failure.is_retry());
    assert_eq!((failure.code(), failure.message()), ("error", "no disk"));
}

#[test]
fn a_panic_is_a_fault_with_its_text_and_place_and_the_next_task_runs() {
    let mut kit = puppet();
    let failure = kit.run("panic").outcome.unwrap_err();
    assert!(failure.is_fault());
    assert_eq!(failure.code(), abi::fault::PANIC);
    assert!(failure.message().starts_with("the answer is 41, at "), "{failure}");
    assert!(failure.message().contains("tests/kit/puppet.rs:"), "{failure}");
    assert!(kit.run("odd panic").failure().message().starts_with("a panic whose payload is no text, at "));
    assert!(kit.run("empty").outcome.is_ok());
}

#[test]
fn a_handler_that_cannot_be_made_says_why() {
    let refused = |settings| TestKit::<Puppet>::without_manifest(settings).err().expect("it is refused");
    assert_eq!(refused(json!({"mood": "bad"})).code(), "bad-mood");
    assert!(refused(json!({"mood": 7})).message().starts_with("settings.mood: invalid type"));
    assert!(refused(json!({"moot": ""})).message().contains("unknown field `moot`"));
    let panicked = refused(json!({"mood": "panicking"}));
    assert!(panicked.is_fault() && panicked.message().starts_with("in new, at "), "{panicked}");
}

#[test]
fn a_task_shows_all_that_the_daemon_knows_of_it() {
    let mut kit = puppet().prefixes(["Do", "Do please"]);
    let plain = kit.run("Task 12: Do please describe\n");
    let expected = r#"id kit-1 generated true attempt 1 redelivered false queue tasks prefix "Do please" type "" headers  x None none None body "Task 12: Do please describe\n""#;
    assert_eq!(plain.done().as_text(), expected);

    let spec = TaskSpec::text("Do describe")
        .id("o-1")
        .attempt(2)
        .redelivered()
        .queue("q")
        .content_type("text/plain");
    let full = kit.run(spec.header("x", "1").header("y", "é").header("x", "2"));
    let expected = r#"id o-1 generated false attempt 2 redelivered true queue q prefix "Do" type "text/plain" headers x=1 y=é x=2 x Some("1") none None body "Do describe""#;
    assert_eq!(full.done().as_text(), expected);
}

#[test]
fn a_task_routed_by_type_has_the_type_as_prefix_and_no_argument() {
    let ran = puppet().run(TaskSpec::typed("Do", br#"{"n":1}"#));
    assert_eq!((ran.failure().code(), ran.failure().message()), ("unknown", ""));
}

#[test]
#[should_panic(expected = "no prefix of")]
fn a_task_that_no_prefix_takes_is_a_mistake_of_the_test() {
    puppet().prefixes(["Do"]).run("Document this");
}

#[test]
fn oversize_follow_ups_are_faults_whatever_the_handler_says() {
    let mut kit = puppet();
    for task in ["swarm", "large follow-up, ignored"] {
        let ran = kit.run(task);
        assert!(ran.failure().is_fault(), "{task}: {}", ran.failure());
        assert_eq!(ran.failure().code(), abi::fault::OVERSIZE, "{task}");
        assert!(ran.published.is_empty(), "{task}");
    }
}

#[test]
fn an_answer_that_is_too_long_or_has_no_json_form_does_not_undo_what_was_done() {
    let mut kit = puppet();
    assert_eq!(kit.run("largest").done().bytes().len(), abi::MAX_RESULT_BYTES);
    for (task, content_type, part) in [
        ("large", "text/plain", "262145 bytes is left out"),
        ("long type", "text/html", "content type of 416 bytes"),
    ] {
        let ran = kit.run(task);
        assert_eq!(ran.done().content_type(), content_type, "{task}");
        let warned: Vec<_> = ran.logs.iter().filter(|line| line.level == Level::Warn).collect();
        assert!(warned.len() == 1 && warned[0].message.contains(part), "{task}: {:?}", ran.logs);
    }
    assert!(kit.run("large").done().as_text().contains("left out"));
    assert_eq!(kit.run("no json").done().as_text(), "the result has no JSON form: key must be a string");
}

#[test]
fn a_long_error_is_cut_at_a_character_boundary() {
    let failure = puppet().run("long error").outcome.unwrap_err();
    assert_eq!(failure.code().len(), abi::MAX_WORD_BYTES);
    assert_eq!(failure.message().len(), abi::MAX_ERROR_BYTES);
    assert!(failure.message().chars().all(|c| c == 'é'));
}

#[test]
fn follow_ups_keep_every_property_and_are_sent_only_when_the_task_is_done() {
    let mut kit = puppet();
    let published = kit.run("follow-ups").published;
    assert_eq!(published[0], Message::new("Process payment #1001"));
    assert_eq!(published[1], full_message().delay(Duration::from_millis(2)), "rounded up to milliseconds");
    assert_eq!(published.len(), 2);
    assert!(kit.run("follow-up, then retry").published.is_empty());
}

#[test]
fn publishing_outside_of_a_task_is_refused_and_a_fault() {
    let ran = puppet().quiesce();
    assert_eq!(ran.failure().code(), abi::fault::NOT_ALLOWED);
    assert_eq!(ran.logs[0].message, "a follow-up can be published only while a task is handled");
}

#[test]
fn a_handler_is_cancelled_after_as_many_looks_as_the_test_says() {
    let mut kit = puppet();
    kit.cancel_after(2);
    let ran = kit.run("steps");
    assert!(ran.failure().is_cancelled());
    assert_eq!(ran.failure().code(), "cancelled");
    assert_eq!(ran.progress, [(250, "step 1".to_owned()), (500, "step 2".to_owned())]);

    assert_eq!(kit.run("steps").done().as_text(), "all steps", "only the next task is cancelled");
    kit.cancelled();
    assert!(kit.run("steps").progress.is_empty());
}

#[test]
fn saying_cancelled_without_having_been_asked_is_a_fault() {
    let ran = puppet().run("pretend cancelled");
    assert!(ran.failure().is_fault());
    assert_eq!(ran.failure().code(), abi::fault::NOT_CANCELLED);
}

#[test]
fn the_fake_clock_moves_by_sleeping_and_by_hand() {
    let mut kit = puppet();
    let began = Instant::now();
    assert_eq!(kit.run("sleep").done().as_text(), "slept");
    kit.deadline(Duration::from_secs(61));
    assert_eq!(kit.run("sleep").done().as_text(), "slept");
    kit.deadline(Duration::from_secs(59));
    let late = kit.run("sleep");
    assert!(late.failure().is_cancelled());
    assert_eq!(late.failure().code(), "timeout");
    assert!(began.elapsed() < Duration::from_secs(50), "no time really passed");

    let clock = kit.clock();
    clock.advance(Duration::from_secs(600));
    assert_eq!(kit.run("steps").done().as_text(), "all steps", "a deadline counts from the task's start");
}

#[test]
fn a_real_sleep_ends_early_when_the_task_is_cancelled() {
    let mut kit = puppet().real_clock();
    kit.cancel_after(1);
    let began = Instant::now();
    assert!(kit.run("sleep").failure().is_cancelled());
    assert!(began.elapsed() < Duration::from_secs(50));

    kit.deadline(Duration::from_millis(20));
    assert_eq!(kit.run("sleep").failure().code(), "timeout");
}

#[test]
fn past_its_deadline_a_task_is_told_to_stop_in_every_way_there_is() {
    let mut kit = puppet().real_clock();
    kit.deadline(Duration::from_millis(5));
    assert_eq!(kit.run("wait for the descriptor").done().as_text(), "cancelled true, left Some(0ns)");

    let mut kit = puppet();
    kit.deadline(Duration::from_secs(1));
    kit.clock().advance(Duration::from_secs(5));
    assert_eq!(kit.run("oversleep").done().as_text(), "cancelled true, left Some(0ns)");
}

#[test]
fn a_canceller_wakes_a_handler_that_waits() {
    let mut kit = puppet().real_clock();
    let canceller = kit.canceller();
    canceller.cancel();
    assert_eq!(kit.run("steps").done().as_text(), "all steps", "no task ran when it was cancelled");

    let (started, starts) = mpsc::channel();
    STARTED.set(Some(started));
    let thread = thread::spawn(move || {
        starts.recv().unwrap();
        canceller.cancel();
    });
    let began = Instant::now();
    assert_eq!(kit.run("say so and sleep").failure().code(), "cancelled");
    assert!(began.elapsed() < Duration::from_secs(50));
    thread.join().unwrap();
}

#[test]
fn logs_are_kept_with_the_call_they_were_written_in() {
    let mut kit = TestKit::<Puppet>::without_manifest(json!({"mood": "fine"})).unwrap();
    let line = |level, message: &str, fields: &[(&str, &str)]| LogLine {
        level,
        message: message.to_owned(),
        fields: fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    };
    assert_eq!(kit.logs(), [line(Level::Info, "made", &[("mood", "fine")])]);
    let expected =
        [line(Level::Debug, "looked", &[("a", "1"), ("b", "2")]), line(Level::Warn, "careful", &[])];
    assert_eq!(kit.run("log").logs, expected);
    assert!(kit.logs().is_empty());
}

#[test]
fn a_call_can_be_lent_to_threads() {
    assert_eq!(puppet().run("lend to threads").progress, [(1, "from a thread".to_owned())]);
}

#[test]
fn a_logger_kept_by_a_thread_falls_silent_when_the_handler_is_gone() {
    struct Keeps(Logger);
    impl Handler for Keeps {
        type Settings = warren_plugin::NoSettings;
        fn new(_: Self::Settings, host: &Host) -> Result<Self, Failure> {
            Ok(Self(host.logger()))
        }
        fn handle(&mut self, _: &Task<'_>, _: &Call<'_>) -> Outcome {
            LEAKED.set(Some(self.0.clone()));
            Ok(Done::empty())
        }
    }
    let mut kit = TestKit::<Keeps>::without_manifest(json!({})).unwrap();
    assert!(kit.run("").outcome.is_ok());
    let leaked = LEAKED.take().unwrap();
    leaked.info("while it lives");
    assert_eq!(kit.logs().len(), 1);
    drop(kit);
    leaked.info("to nobody");
}

#[test]
fn a_panic_while_the_handler_is_dropped_stays_inside() {
    let mut kit = puppet();
    assert!(kit.run("panic when dropped").outcome.is_ok());
    drop(kit);
}
