//! Tasks that cannot be settled: nothing is lost, nothing is tried without a pause, and the queue that they fill is not
//! ready, with its name and the reason.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lapin::types::AMQPValue;
use serde_json::Value;
use warren_tests::{Daemon, Node, wait};

use super::stage::{Stage, queue, text};

/// The default.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until the queue is told to be stuck, everywhere, with this in the reason.
fn wait_stuck(stage: &Stage, daemon: &Daemon, part: &str) {
    wait::until("the queue is stuck", || (queue(daemon)["state"] == "stuck").then_some(()));
    let why = queue(daemon)["unsettled"]["why"].as_str().expect("a reason").to_owned();
    assert!(why.contains(part), "{part} in {why}");
    wait::until("not ready", || (daemon.status()["ready"] == false).then_some(()));
    let answer = readyz(stage);
    let named = format!("queue `{}` is stuck", stage.home.queue());
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(&named), "{answer}");
    daemon.wait_log(0, &["the queue is stuck", stage.home.queue()]);
    let report = stage.doctor();
    let findings = report["findings"].as_array().expect("findings");
    let is_told = |finding: &Value| {
        finding["severity"] == "error"
            && finding["where"] == format!("queue {}", stage.home.queue())
            && finding["what"].as_str().is_some_and(|what| what.contains(part))
    };
    assert!(findings.iter().any(is_told), "{report:#}");
}

fn readyz(stage: &Stage) -> String {
    let mut socket = UnixStream::connect(stage.home.socket()).expect("the daemon");
    socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("answered");
    answer
}

#[test]
fn a_body_that_the_broker_does_not_take_any_more_is_kept_and_told_until_it_does() {
    // Of its own: the limit is the whole broker's.
    let node = Node::own();
    let limit = |bytes: u32| {
        let set = format!(
            "application:set_env(rabbit, max_message_size, {bytes}), persistent_term:put(max_message_size, {bytes})"
        );
        node.eval(&set).expect("set");
    };
    let retry = "retry = { attempts = 3, delay = \"250ms\", factor = 1.0, jitter = 0.0 }";
    let stage = Stage::new(&node, "stuck_size", "prefetch = 1\nworkers = 2", retry);
    let body = format!("Scenario retry {}", "x".repeat(10_000));
    stage.publish("retried", &[], &body);
    stage.publish("unroutable", &[], &"y".repeat(10_000));
    limit(5_000);
    let daemon = Daemon::start(&stage.home);
    wait_stuck(&stage, &daemon, "max_message_size");
    assert_eq!(queue(&daemon)["unsettled"]["tasks"], 2);
    let output = daemon.warrenctl(&["cancel", "retried"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("has ended") && said.contains("max_message_size"),
        "{said}"
    );
    let tries =
        daemon.log().since(0).iter().filter(|line| line.contains("a copy cannot be published")).count();
    assert!(tries < 10, "{tries} tries");

    limit(1_000_000);
    let letter = stage.letter("retried");
    assert_eq!((&letter["reason"], &letter["body"]), (&"refused".into(), &body.into()));
    assert_eq!(stage.letter("unroutable")["reason"], "unroutable");
    wait::until("ready again", || (daemon.status()["ready"] == true).then_some(()));
    assert_eq!(queue(&daemon)["state"], "consuming");
    let counts = daemon.counts();
    assert_eq!((&counts["dead"], &counts["retried"]), (&2.into(), &0.into()));
    stage.broker.publish(stage.home.queue(), "next", "Scenario ok");
    daemon.wait_count("done", 1);
}

#[test]
fn a_dead_queue_that_can_never_take_a_letter_makes_its_queue_stuck() {
    let stage = Stage::new(Node::shared(), "stuck_room", "prefetch = 1\nworkers = 1", "");
    let arguments: [(&str, AMQPValue); 2] =
        [("x-max-length-bytes", 10.into()), ("x-overflow", text("reject-publish"))];
    stage.broker.declare(&stage.home.dead(), &arguments);
    let mut daemon = Daemon::start(&stage.home);
    stage.broker.publish(stage.home.queue(), "second", "Scenario reject");
    wait_stuck(&stage, &daemon, &stage.home.dead());
    // Nothing is to be gained by waiting for `drain_timeout`; the task goes back.
    let begin = Instant::now();
    assert!(daemon.terminate().success());
    assert!(begin.elapsed() < DRAIN_TIMEOUT, "{:?}", begin.elapsed());
    stage.broker.wait_depth(stage.home.queue(), 1);
    let daemon = Daemon::start(&stage.home);
    wait_stuck(&stage, &daemon, &stage.home.dead());
    stage.broker.delete(&stage.home.dead());
    assert_eq!(stage.letter("second")["reason"], "rejected");
    wait::until("ready again", || (daemon.status()["ready"] == true).then_some(()));
}
