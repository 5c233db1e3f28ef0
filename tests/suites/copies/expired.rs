//! A task's `expiration` in its copies: it counts from the delivery, and a task whose time is up does not vanish.

use lapin::BasicProperties;
use warren_tests::{Daemon, Node};

use super::stage::{Stage, now_ms};

#[test]
fn a_task_that_describes_an_event_of_an_hour_ago_is_retried_within_its_expiration() {
    let retry = "retry = { attempts = 3, delay = \"250ms\", factor = 1.0, jitter = 0.0 }";
    let stage = Stage::new(Node::shared(), "expired_timestamp", "", retry);
    let daemon = Daemon::start(&stage.home);
    for (id, timestamp) in [("past", now_ms() / 1000 - 3_600), ("future", now_ms() / 1000 + 3_600)] {
        let properties =
            BasicProperties::default().with_timestamp(timestamp).with_expiration("600000".into());
        stage.publish_as(properties, id, &[], "Scenario until 2");
    }
    daemon.wait_count("done", 2);
    daemon.wait_count("retried", 2);
    let counts = daemon.counts();
    assert_eq!((&counts["dead"], &counts["expired"]), (&0.into(), &0.into()));
}

#[test]
fn a_task_that_expires_before_its_retry_is_a_dead_letter_counted_and_answered() {
    let retry = "retry = { attempts = 3, delay = \"8s\", factor = 1.0, jitter = 0.0 }";
    let stage = Stage::new(Node::shared(), "expired_retry", "", retry);
    stage.broker.declare("expired_retry.replies", &[]);
    let daemon = Daemon::start(&stage.home);
    let properties = BasicProperties::default()
        .with_expiration("4000".into())
        .with_reply_to("expired_retry.replies".into())
        .with_correlation_id("c-1".into());
    stage.publish_as(properties, "late", &[], "Scenario retry");
    daemon.wait_count("expired", 1);
    let reply = stage.broker.take("expired_retry.replies");
    let header = |name: &str| reply.header(&format!("x-warren-{name}")).unwrap_or_default();
    assert_eq!(["outcome", "task", "attempts"].map(header), ["expired", "late", "1"]);
    let letter = stage.letter("late");
    assert_eq!((&letter["reason"], &letter["attempts"]), (&"expired".into(), &1.into()));
    let error = letter["error"].as_str().expect("an error");
    assert!(error.contains("time was up") && error.contains("busy: come back later"), "{error}");
    daemon.wait_log(0, &["task has expired", "task_id=late"]);
    let counts = daemon.counts();
    assert_eq!((&counts["dead"], &counts["retried"], &counts["done"]), (&1.into(), &1.into(), &0.into()));
    // A replay runs: whoever replays it wants that.
    assert_eq!(stage.dead(&["replay", "--id", "late"])["replayed"], 1);
    stage.home.wait_run("end", "late", 2);
}
