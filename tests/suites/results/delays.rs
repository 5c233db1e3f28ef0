//! `warrenctl publish --delay` and `--at`, and what becomes of a task between two hops.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use warren_tests::{Daemon, Node, wait};

use super::stage::{Stage, assert_ends, said};

/// Later than a delay and its resolution by this much is not "soon after", on a machine that does several things at
/// once.
const SLACK: Duration = Duration::from_secs(10);

/// How long it takes from the start of `send` until the task `id` runs; gives what `send` gave, too.
fn time_to_run<T>(stage: &Stage, id: &str, send: impl FnOnce() -> T) -> (Duration, T) {
    let sent = Instant::now();
    let sent_by = send();
    stage.home.wait_run("start", id, 1);
    (sent.elapsed(), sent_by)
}

#[test]
fn a_delay_with_a_queue_of_its_own_takes_one_wait_and_another_takes_hops() {
    let stage = Stage::new("delays_hops", "");
    let daemon = Daemon::start(&stage.home);
    for (delay, ms) in [("1s", 1_000), ("750ms", 750), ("1250ms", 1_250)] {
        // Not waited for: a delay queue that is new takes a while.
        let (took, publishing) = time_to_run(&stage, delay, || {
            stage.command(&["--delay", delay, "--id", delay, "Scenario ok"]).spawn().expect("warrenctl")
        });
        assert_ends(&publishing.wait_with_output().expect("it ends"), 0);
        let asked = Duration::from_millis(ms);
        assert!(took >= asked && took < asked + SLACK, "{delay}: {took:?}");
    }
    daemon.wait_count("done", 3);
    assert_eq!(daemon.counts()["retried"], 0, "a hop is no retry");
    assert!(stage.home.record().iter().all(|run| run.attempt == 1), "nor an attempt");
    // Each once or twice: a hop that comes back so late that its task is due is the last one.
    let delivered = daemon.counts()["delivered"].as_u64();
    assert!(delivered.is_some_and(|count| (3..=5).contains(&count)), "{delivered:?}");
    let waited_in = |ms: u32| stage.broker.depth(&format!("{}.retry.{ms}", stage.home.queue()));
    assert_eq!([500, 1_000, 2_000].map(waited_in), [Some(0), Some(0), None], "in hops, not rounded up");
}

#[test]
fn a_thousand_tasks_wait_at_the_broker_and_in_nobodys_hands() {
    const TASKS: u32 = 1_000;
    let stage = Stage::new("delays_many", "");
    let daemon = Daemon::start(&stage.home);
    let file = stage.home.path("tasks");
    let lines: String = (0..TASKS).map(|_| "Scenario ok\n").collect();
    std::fs::write(&file, lines).expect("write");
    stage.published(&["--delay", "45m", "--file", file.to_str().expect("text")]);
    let queue = stage.home.queue();
    // A quorum queue is counted every few seconds.
    let expected = [(queue.to_owned(), vec![0, 0]), (format!("{queue}.retry.1800000"), vec![0, TASKS])];
    wait::until("nothing unacknowledged, and all of them there", || {
        let listed = Node::shared().queues(queue, &["messages_unacknowledged", "messages"]);
        expected.iter().all(|row| listed.contains(row)).then_some(())
    });
    assert_eq!(daemon.counts()["delivered"], 0);
}

#[test]
fn a_time_is_waited_for_and_one_in_the_past_is_now() {
    let stage = Stage::new("delays_at", "");
    let daemon = Daemon::start(&stage.home);
    stage.published(&["--at", "2001-01-01T00:00:00Z", "--id", "past", "Scenario ok"]);
    daemon.wait_count("done", 1);
    assert_eq!(stage.broker.family_depth(stage.home.queue()), 0);
    let far = ["--at", "2026-12-01T08:00:00+01:00", "--delay", "1s", "Scenario ok"];
    assert_ends(&stage.publish(&far), 64);
    let output = stage.publish(&["--at", "2026-12-01T08:00:00", "Scenario ok"]);
    assert_ends(&output, 64);
    assert!(said(&output).contains("zone"), "{}", said(&output));
    // In a second or two: whole seconds are all that the date program gives everywhere.
    let at =
        std::process::Command::new("date").args(["-u", "-d", "2 seconds", "+%Y-%m-%dT%H:%M:%SZ"]).output();
    let at = String::from_utf8(at.expect("date").stdout).expect("text");
    stage.published(&["--at", at.trim(), "--id", "soon", "Scenario ok"]);
    stage.home.wait_run("start", "soon", 1);
    let now = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output();
    let now = String::from_utf8(now.expect("date").stdout).expect("text");
    assert!(now >= at, "{now} is before {at}");
}

#[test]
fn any_producer_can_say_when_a_task_is_due() {
    let stage = Stage::new("delays_header", "");
    let daemon = Daemon::start(&stage.home);
    let (took, ()) = time_to_run(&stage, "later", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let due = i64::try_from(now.as_millis()).expect("not yet") + 600;
        let mut headers = FieldTable::default();
        headers.insert("x-warren-due".into(), AMQPValue::LongLongInt(due));
        let properties = BasicProperties::default().with_message_id("later".into()).with_headers(headers);
        stage.broker.publish_with(stage.home.queue(), properties, b"Scenario ok");
    });
    // What the header says is cut to whole milliseconds.
    assert!(took >= Duration::from_millis(599), "{took:?}");
    daemon.wait_count("done", 1);
    let delivered = daemon.counts()["delivered"].as_u64();
    assert!(delivered.is_some_and(|count| count >= 2), "at once, and when it was due: {delivered:?}");
}

#[test]
fn a_follow_up_is_delayed_as_exactly() {
    let stage = Stage::new("delays_follow_up", "");
    let daemon = Daemon::start(&stage.home);
    // From before the parent runs: who looks when it does may look late. A twentieth may be missing: clocks and timers
    // differ.
    let since = Instant::now();
    stage.broker.publish(stage.home.queue(), "parent", "Scenario emit-after 1250 Scenario ok");
    stage.home.wait_run("start", "parent/1", 1);
    assert!(since.elapsed() >= Duration::from_millis(1_187), "{:?}", since.elapsed());
    daemon.wait_count("done", 2);
    let waited_in = |ms: u32| stage.broker.depth(&format!("{}.retry.{ms}", stage.home.queue()));
    assert_eq!([1_000, 2_000].map(waited_in), [Some(0), None], "in hops, not rounded up");
}

#[test]
fn a_delayed_task_expires_from_when_it_is_due() {
    let stage = Stage::new("delays_expires", "");
    stage.published(&["--delay", "500ms", "--expires", "250ms", "--id", "stale", "Scenario ok"]);
    let published = Instant::now();
    stage.published(&["--delay", "500ms", "--expires", "1h", "--id", "fresh", "Scenario ok"]);
    stage.broker.wait_depth(stage.home.queue(), 2);
    wait::until("the deadline", || (published.elapsed() > Duration::from_millis(750)).then_some(()));
    let daemon = Daemon::start(&stage.home);
    daemon.wait_count("expired", 1);
    assert_eq!(stage.broker.take(&stage.home.dead()).header("x-warren-reason").as_deref(), Some("expired"));
    daemon.wait_count("done", 1);
    stage.home.wait_run("end", "fresh", 1);
    assert!(stage.home.record().iter().all(|run| run.id != "stale"));
}

#[test]
fn a_daemon_that_dies_between_two_hops_loses_nothing() {
    let before = "settle::before-copy=1*return(kill)";
    let after = "settle::after-copy=1*return(kill)";
    // Once a copy is confirmed there are two, and the task runs twice at least: later hops may be on their way by then.
    for (queue, place, runs) in [("delays_before_copy", before, 1), ("delays_after_copy", after, 2)] {
        let stage = Stage::new(queue, "");
        let mut doomed = Daemon::spawn(&stage.home, &[("FAILPOINTS", place)]);
        // After the first hop, of three seconds, it is nearly two seconds early: also on a busy machine it waits again.
        stage.published(&["--delay", "4900ms", "--id", "hop", "Scenario ok"]);
        doomed.wait_end();
        let daemon = Daemon::start(&stage.home);
        stage.home.wait_run("end", "hop", runs);
        assert!(stage.home.record().iter().all(|run| run.attempt == 1));
        wait::until("nothing is left", || {
            let held = ["running", "waiting", "settling"].map(|name| daemon.status()["queues"][0][name] != 0);
            (held == [false; 3] && stage.broker.family_depth(stage.home.queue()) == 0).then_some(())
        });
        let ends = stage.home.wait_run("end", "hop", runs).len();
        assert!(if runs == 1 { ends == 1 } else { ends >= runs }, "{queue}: {ends}");
    }
}

#[test]
fn a_restart_of_daemon_and_broker_loses_no_delayed_task_and_ends_a_wait_for_results() {
    const TASKS: usize = 20;
    let mut node = Node::own();
    let stage = Stage::on(&node, "delays_restart", "");
    let mut daemon = Daemon::start(&stage.home);
    let file = stage.home.path("tasks");
    let lines: String = (0..TASKS).map(|_| "Scenario ok\n").collect();
    std::fs::write(&file, lines).expect("write");
    stage.published(&["--delay", "8750ms", "--file", file.to_str().expect("text")]);
    let published = Instant::now();
    let waiting = stage
        .command(&["--wait", "--id", "asked", "--delay", "8750ms", "Scenario ok"])
        .spawn()
        .expect("warrenctl");
    stage.broker.wait_depth("delays_restart.retry.8000", TASKS as u32 + 1);
    daemon.kill();
    node.restart().expect("restart");
    let output = waiting.wait_with_output().expect("it ends");
    assert_ends(&output, 75);
    assert!(said(&output).contains("task 1 (asked)"), "{}", said(&output));
    let daemon = Daemon::start(&stage.home);
    daemon.wait_count("done", TASKS as u64 + 1);
    assert!(published.elapsed() >= Duration::from_millis(8_750));
    let mut runs = stage.home.wait_ends(TASKS + 1);
    runs.sort_by(|a, b| a.id.cmp(&b.id));
    runs.dedup_by(|a, b| a.id == b.id);
    assert_eq!(runs.len(), TASKS + 1, "each once");
}
