//! Policies of the broker that match our delay queues: a task is never early, and the operator is told.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use warren_tests::{Daemon, Node, artefacts, wait};

use super::stage::{Stage, queue};

#[test]
fn a_policy_that_shortens_the_delays_makes_nothing_early_and_is_told() {
    let node = Node::shared();
    // Only the delay queues: on a busy machine a work queue would lose what waits for a second.
    let policy =
        ["set_policy", "ttl", "^policies_ttl\\.retry\\.", r#"{"message-ttl":1000}"#, "--apply-to", "queues"];
    node.ctl(&policy).expect("a policy");
    let retry = "retry = { attempts = 2, delay = \"5s\", factor = 1.0, jitter = 0.0 }";
    let stage = Stage::new(node, "policies_ttl", "workers = 2", retry);
    let daemon = Daemon::start(&stage.home);

    let mut publish = Command::new(artefacts::program("warrenctl"));
    publish.arg("publish").arg("--config").arg(stage.home.config());
    publish.args(["--delay", "5s", "--id", "delayed", "Scenario ok"]);
    let sent = Instant::now();
    assert!(publish.status().expect("warrenctl").success());
    stage.home.wait_run("start", "delayed", 1);
    assert!(sent.elapsed() >= Duration::from_secs(5), "{:?}", sent.elapsed());

    let sent = Instant::now();
    stage.broker.publish(stage.home.queue(), "retried", "Scenario until 2");
    stage.home.wait_run("start", "retried", 2);
    // A twentieth may be missing: clocks and timers differ.
    assert!(sent.elapsed() >= Duration::from_millis(4_750), "{:?}", sent.elapsed());

    daemon.wait_count("done", 2);
    let delays = queue(&daemon)["delays"].as_str().expect("told").to_owned();
    for part in ["policies_ttl.retry.", "instead of", "message-ttl", "list_policies"] {
        assert!(delays.contains(part), "{part} in {delays}");
    }
    daemon.wait_log(0, &["kept a task for", "policies_ttl"]);
    let report = stage.doctor();
    let findings = report["findings"].as_array().expect("findings");
    let is_told = |finding: &Value| {
        let what = finding["what"].as_str().unwrap_or_default();
        finding["severity"] == "warning"
            && what.contains("policies_ttl.retry.")
            && what.contains("message-ttl")
    };
    assert!(findings.iter().any(is_told), "{report:#}");
}

#[test]
fn a_delay_queue_that_a_policy_deleted_is_told_when_it_is_missed() {
    let node = Node::shared();
    let retry = "retry = { attempts = 2, delay = \"250ms\", factor = 1.0, jitter = 0.0 }";
    let stage = Stage::new(node, "policies_expires", "", retry);
    let daemon = Daemon::start(&stage.home);
    stage.broker.publish(stage.home.queue(), "first", "Scenario until 2");
    daemon.wait_count("done", 1);
    // From now on: the first one was not to be lost in it.
    let policy = [
        "set_policy",
        "expires",
        "^policies_expires\\.retry\\.",
        r#"{"expires":1000}"#,
        "--apply-to",
        "queues",
    ];
    node.ctl(&policy).expect("a policy");
    let delay = "policies_expires.retry.250";
    wait::until("the delay queue is gone", || node.queues(delay, &[]).is_empty().then_some(()));
    node.ctl(&["clear_policy", "expires"]).expect("no policy");
    stage.broker.publish(stage.home.queue(), "second", "Scenario until 2");
    daemon.wait_count("done", 2);
    daemon.wait_log(0, &[delay, "was deleted", "expires"]);
    let errors = daemon.status()["last_errors"].to_string();
    assert!(errors.contains(delay) && errors.contains("was deleted"), "{errors}");
}
