//! A task with `reply_to` is answered when it has ended for good, and whoever asked cannot hold it up.

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use warren_tests::{Daemon, wait};

use super::stage::{Stage, correlation};

const TWO_ATTEMPTS: &str = "retry = { attempts = 2, delay = \"250ms\", jitter = 0.0 }\ntimeout = \"500ms\"";

#[test]
fn a_task_that_is_done_is_answered_with_the_handlers_result() {
    let stage = Stage::new("replies_done", TWO_ATTEMPTS);
    stage.broker.declare(&stage.replies, &[]);
    let daemon = Daemon::start(&stage.home);
    stage.ask("o-1", "Scenario result 5");
    let reply = stage.broker.take(&stage.replies);
    assert_eq!((reply.text.as_str(), correlation(&reply)), ("rrrrr", "c-o-1"));
    let content_type = reply.properties.content_type().as_ref().map(ToString::to_string);
    assert!(content_type.is_some_and(|found| found.starts_with("text/plain")), "{reply:?}");
    let header = |name: &str| reply.header(&format!("x-warren-{name}")).unwrap_or_default();
    let found = ["outcome", "task", "handler", "attempts"].map(header);
    assert_eq!(found, ["done", "o-1", "scenario", "1"]);
    assert_eq!(*reply.properties.delivery_mode(), Some(2));
    // Without an id of the sender's own, the task's.
    let properties =
        BasicProperties::default().with_message_id("o-2".into()).with_reply_to(stage.replies.as_str().into());
    stage.broker.publish_with(stage.home.queue(), properties, b"Scenario ok");
    let reply = stage.broker.take(&stage.replies);
    assert_eq!((reply.text.as_str(), correlation(&reply)), ("", "o-2"));
    daemon.wait_count("done", 2);
}

#[test]
fn only_the_last_attempt_answers_and_follow_ups_do_not() {
    let stage = Stage::new("replies_last", TWO_ATTEMPTS);
    stage.broker.declare(&stage.replies, &[]);
    let daemon = Daemon::start(&stage.home);
    stage.ask("again", "Scenario until 2");
    stage.ask("parent", "Scenario emit Scenario ok");
    daemon.wait_count("done", 3);
    stage.broker.wait_depth(&stage.replies, 2);
    let mut replies: Vec<_> = stage
        .broker
        .take_all(&stage.replies)
        .iter()
        .map(|reply| (correlation(reply).to_owned(), reply.header("x-warren-attempts").unwrap_or_default()))
        .collect();
    replies.sort();
    let expected = [("c-again", "2"), ("c-parent", "1")];
    assert_eq!(replies, expected.map(|(id, attempts)| (id.to_owned(), attempts.to_owned())));
    stage.home.wait_run("end", "parent/1", 1);
    assert_eq!(stage.broker.depth(&stage.replies), Some(0));
}

#[test]
fn a_task_that_is_dead_is_answered_with_the_reason() {
    let stage = Stage::new("replies_dead", TWO_ATTEMPTS);
    stage.broker.declare(&stage.replies, &[]);
    let daemon = Daemon::start(&stage.home);
    let table = [
        ("reject", "Scenario reject", "rejected", "no-such-thing", 1),
        ("retry", "Scenario retry", "attempts", "busy", 2),
        ("late", "Scenario sleep 600000", "timeout", "timeout", 2),
        ("crash", "Scenario abort", "poison", "crash", 2),
        ("stray", "Water the plants", "unroutable", "unroutable", 1),
    ];
    for (id, text, ..) in table {
        stage.ask(id, text);
    }
    daemon.wait_count("dead", table.len() as u64);
    stage.broker.wait_depth(&stage.replies, table.len() as u32);
    let replies = stage.broker.take_all(&stage.replies);
    for (id, _, outcome, code, attempts) in table {
        let reply = replies.iter().find(|reply| correlation(reply) == format!("c-{id}")).expect(id);
        let header = |name: &str| reply.header(&format!("x-warren-{name}")).unwrap_or_default();
        assert_eq!(["outcome", "error-code", "task"].map(header), [outcome, code, id]);
        let mut body: serde_json::Value = serde_json::from_str(&reply.text).expect("JSON");
        let message = body["message"].take();
        assert_eq!(message, header("error"), "{id}");
        let handler = if id == "stray" { "" } else { "scenario" };
        let expected = json!({"outcome": outcome, "code": code, "task": id, "handler": handler,
            "attempts": attempts, "message": null});
        assert_eq!(body, expected);
    }
    stage.broker.wait_depth(&stage.home.dead(), table.len() as u32);
}

#[test]
fn a_queue_that_is_missing_or_full_holds_no_task_up() {
    let stage = Stage::new("replies_nobody", "retry = { attempts = 1 }");
    let daemon = Daemon::start(&stage.home);
    stage.ask("missing", "Scenario result 9");
    stage.ask("missing-dead", "Scenario reject");
    daemon.wait_log(0, &["INFO", "the reply was not deliverable", "task_id=missing ", "NO_ROUTE"]);
    daemon.wait_log(0, &["INFO", "the reply was not deliverable", "task_id=missing-dead "]);
    let full = [
        ("x-max-length", AMQPValue::LongInt(0)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    stage.broker.declare(&stage.replies, &full);
    stage.ask("full", "Scenario result 9");
    daemon.wait_log(0, &["INFO", "the reply was not deliverable", "task_id=full "]);
    daemon.wait_count("done", 2);
    wait::until("nothing is held", || (daemon.status()["queues"][0]["settling"] == 0).then_some(()));
    stage.broker.wait_depth(&stage.home.dead(), 1);
    assert_eq!(daemon.counts()["retried"], 0);
    assert_eq!(daemon.status()["broker"]["connects"], 1, "the link was never lost");
}

#[test]
fn a_client_without_a_queue_is_answered_directly_and_one_that_left_is_not_missed() {
    let stage = Stage::new("replies_direct", "retry = { attempts = 1 }");
    let daemon = Daemon::start(&stage.home);
    let (channel, runtime) = stage.broker.channel();
    let ask = async |id: &str, text: &str| {
        let properties = BasicProperties::default()
            .with_message_id(id.into())
            .with_reply_to("amq.rabbitmq.reply-to".into());
        let options = BasicPublishOptions::default();
        channel
            .basic_publish("".into(), stage.home.queue().into(), options, text.as_bytes(), properties)
            .await
            .expect("published");
    };
    runtime.block_on(async {
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut replies = channel
            .basic_consume("amq.rabbitmq.reply-to".into(), "".into(), options, FieldTable::default())
            .await
            .expect("consume");
        for (id, text, body) in [("o-1", "Scenario result 3", "rrr"), ("o-2", "Scenario reject", "rejected")]
        {
            ask(id, text).await;
            let reply = tokio::time::timeout(wait::BOUND, replies.next()).await.expect("a reply in time");
            let reply = reply.expect("a reply").expect("the link is up");
            let correlation = reply.properties.correlation_id().as_ref().map(ToString::to_string);
            assert_eq!(correlation.as_deref(), Some(id));
            assert!(String::from_utf8_lossy(&reply.data).contains(body), "{reply:?}");
        }
        ask("left", "Scenario hold gate").await;
    });
    stage.home.wait_run("start", "left", 1);
    runtime.block_on(channel.close(200, "left".into())).expect("closed");
    stage.home.release("gate");
    daemon.wait_count("done", 2);
    wait::until("nothing is held", || (daemon.status()["queues"][0]["settling"] == 0).then_some(()));
}

#[test]
fn a_reply_is_confirmed_before_its_task_is_acknowledged() {
    for (queue, text, dead) in
        [("replies_ack_done", "Scenario result 3", 0), ("replies_ack_dead", "Scenario reject", 2)]
    {
        let stage = Stage::new(queue, "retry = { attempts = 1 }");
        stage.broker.declare(&stage.replies, &[]);
        let mut doomed = Daemon::spawn(&stage.home, &[("FAILPOINTS", "settle::before-ack=1*return(kill)")]);
        stage.broker.declare(stage.home.queue(), &[]);
        stage.ask("o-1", text);
        doomed.wait_end();
        stage.broker.wait_depth(&stage.replies, 1);
        let _daemon = Daemon::start(&stage.home);
        // The task came back, and so does its answer: at least once.
        stage.broker.wait_depth(&stage.replies, 2);
        let replies = stage.broker.take_all(&stage.replies);
        assert!(replies.iter().all(|reply| correlation(reply) == "c-o-1"));
        assert_eq!(replies[0].text, replies[1].text);
        stage.broker.wait_depth_or_none(&stage.home.dead(), dead);
    }
}
