//! The W3C trace context of a task.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use warren_tests::Daemon;

use super::stage::Stage;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn a_trace_goes_through_retries_follow_ups_replies_dead_letters_and_the_log() {
    let stage = Stage::new("traces", "retry = { attempts = 2, delay = \"250ms\", jitter = 0.0 }");
    stage.broker.declare(&stage.replies, &[]);
    let daemon = Daemon::start(&stage.home);
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let header = format!("traceparent={traceparent}");
    let options = ["--header", &header, "--header", "tracestate=shop=1", "--header", "tenant=acme"];
    stage.published(&[&options[..], &["--id", "again", "Scenario retry"]].concat());
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.as_str().into()));
    let properties = BasicProperties::default()
        .with_message_id("parent".into())
        .with_reply_to(stage.replies.as_str().into())
        .with_headers(headers);
    // Its follow-up is a dead letter, so that its headers can be seen.
    stage.broker.publish_with(stage.home.queue(), properties, b"Scenario emit Water the plants");
    daemon.wait_count("dead", 2);
    stage.broker.wait_depth(&stage.home.dead(), 2);
    let letters = stage.broker.take_all(&stage.home.dead());
    for (id, tracestate, tenant) in [("again", Some("shop=1"), Some("acme")), ("parent/1", None, None)] {
        let letter = letters.iter().find(|letter| letter.id() == id).expect(id);
        assert_eq!(letter.header("traceparent").as_deref(), Some(&*traceparent), "{id}");
        assert_eq!(letter.header("tracestate").as_deref(), tracestate, "{id}");
        assert_eq!(letter.header("tenant").as_deref(), tenant, "{id}");
    }
    assert_eq!(stage.broker.take(&stage.replies).header("traceparent"), Some(traceparent));
    let trace = format!("trace_id={TRACE}");
    for parts in [
        ["task received", "task_id=again"],
        ["task failed, to be retried", "task_id=again"],
        ["task failed, now a dead letter", "task_id=again"],
        ["task done", "task_id=parent "],
        ["task is dead before it ran", "task_id=parent/1"],
    ] {
        daemon.wait_log(0, &[parts[0], parts[1], &trace]);
    }
}

#[test]
fn what_is_no_trace_is_not_in_the_log_and_changes_nothing() {
    let stage = Stage::new("traces_bad", "");
    let daemon = Daemon::start(&stage.home);
    stage.published(&["--id", "bad", "--header", "traceparent=my-trace", "Scenario ok"]);
    let line = daemon.wait_log(0, &["task done", "task_id=bad"]);
    assert!(!line.contains("trace_id"), "{line}");
}
