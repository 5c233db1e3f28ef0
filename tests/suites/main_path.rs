//! The main path: a task is published, delivered, routed, run in a plugin host and settled.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

/// A home with the scenario fixture installed and configured.
fn stage(queue: &str, keys: &str) -> (Home, Broker) {
    let node = Node::shared();
    let home = Home::new(&node.uri(), queue);
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", keys);
    home.configure(Keys { rest: &rest, ..Keys::default() });
    (home, Broker::connect(&node.uri()))
}

/// Three attempts, a quarter of a second apart.
const THREE_ATTEMPTS: &str = "retry = { attempts = 3, delay = \"250ms\", factor = 1.0, jitter = 0.0 }";

#[test]
fn tasks_from_before_and_after_the_start_are_done_once_each() {
    let (home, broker) = stage("main_once", "");
    broker.declare(home.queue(), &[]);
    broker.publish_all(home.queue(), "before", (1..=25).map(|n| format!("Task {n}: Scenario ok")));
    let mut daemon = Daemon::start(&home);
    broker.publish_all(home.queue(), "after", (1..=25).map(|n| format!("Task {n}: Scenario ok\n")));
    daemon.wait_count("done", 50);
    let runs = home.wait_ends(50);
    let ids: BTreeSet<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    assert_eq!((ids.len(), runs.len()), (50, 50));
    assert!(daemon.terminate().success());
    assert_eq!(broker.depth(home.queue()), Some(0), "nothing was left unacknowledged");
    assert_eq!(broker.depth(&home.dead()).unwrap_or(0), 0);
}

#[test]
fn short_tasks_do_not_wait_behind_a_long_one_of_their_handler() {
    let (home, broker) = stage("main_mixed", "");
    let rest = home.scenario("scenario", "scenario", "");
    home.configure(Keys { queue: "workers = 2\nprefetch = 8", rest: &rest, ..Keys::default() });
    let _daemon = Daemon::start(&home);
    // After these the handler counts as a quick one, whose tasks are queued behind each other in one host.
    broker.publish_all(home.queue(), "quick", (1..=50).map(|_| "Scenario ok".to_owned()));
    home.wait_ends(50);
    let mixed = ["Scenario hold gate"; 1].into_iter().chain(["Scenario ok"; 8]);
    broker.publish_all(home.queue(), "mixed", mixed.map(str::to_owned));
    home.wait_ends(58);
    home.release("gate");
    home.wait_run("end", "mixed-1", 1);
}

#[test]
fn a_retry_comes_back_as_the_next_attempt_with_the_same_id() {
    let (home, broker) = stage("main_retry", THREE_ATTEMPTS);
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "given", "Scenario until 2");
    broker.publish(home.queue(), "", "Scenario until 3");
    daemon.wait_count("done", 2);
    let runs: Vec<_> = home.record().into_iter().filter(|run| run.what == "start").collect();
    let attempts = |of_given: bool| -> Vec<u32> {
        runs.iter().filter(|run| (run.id == "given") == of_given).map(|run| run.attempt).collect()
    };
    assert_eq!(attempts(true), [1, 2]);
    assert_eq!(attempts(false), [1, 2, 3]);
    let ids: BTreeSet<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(ids.len(), 2, "the id that the daemon gave is kept: {ids:?}");
    daemon.wait_count("retried", 3);
}

#[test]
fn a_task_that_used_its_attempts_is_a_dead_letter_that_says_why() {
    let (home, broker) = stage("main_attempts", THREE_ATTEMPTS);
    let _daemon = Daemon::start(&home);
    broker.publish(home.queue(), "hopeless", "Task 7: Scenario retry");
    let letter = broker.take(&home.dead());
    let header = |name: &str| letter.header(&format!("x-warren-{name}")).unwrap_or_default();
    assert_eq!((letter.id(), letter.text.as_str()), ("hopeless", "Task 7: Scenario retry"));
    assert_eq!(header("reason"), "attempts");
    assert_eq!(header("attempt"), "3");
    assert_eq!(header("handler"), "scenario");
    assert_eq!(header("error-code"), "busy");
    assert_eq!(header("error"), "come back later");
    assert_eq!(header("queue"), home.queue());
    assert_eq!(home.wait_run("end", "hopeless", 3).len(), 3);
}

#[test]
fn a_rejected_task_is_dead_at_once_with_its_properties_kept() {
    let (home, broker) = stage("main_reject", THREE_ATTEMPTS);
    let _daemon = Daemon::start(&home);
    let mut headers = FieldTable::default();
    headers.insert("tenant".into(), AMQPValue::LongString("acme".into()));
    let properties = BasicProperties::default()
        .with_message_id("never".into())
        .with_content_type("text/plain".into())
        .with_priority(3)
        .with_correlation_id("c-1".into())
        .with_headers(headers);
    broker.publish_with(home.queue(), properties, b"Scenario reject");
    let letter = broker.take(&home.dead());
    assert_eq!(letter.header("x-warren-reason").as_deref(), Some("rejected"));
    assert_eq!(letter.header("x-warren-error-code").as_deref(), Some("no-such-thing"));
    assert_eq!(letter.header("tenant").as_deref(), Some("acme"));
    assert_eq!(*letter.properties.priority(), Some(3));
    assert_eq!(
        letter.properties.correlation_id().as_ref().map(lapin::types::ShortString::as_str),
        Some("c-1")
    );
    assert_eq!(*letter.properties.delivery_mode(), Some(2), "a dead letter survives the broker");
    assert_eq!(home.wait_run("end", "never", 1).len(), 1, "tried once only");
}

#[test]
fn what_no_handler_can_take_is_dead_with_the_reason_and_disturbs_nothing() {
    let (home, broker) = stage("main_dead", "");
    let daemon = Daemon::start(&home);
    let table: [(&str, Vec<u8>, &str); 8] = [
        ("empty", Vec::new(), "unroutable"),
        ("newline", b"\n".to_vec(), "unroutable"),
        ("label", b"Task 4:".to_vec(), "unroutable"),
        ("unknown", b"Task 4: Water the plants".to_vec(), "unroutable"),
        ("boundary", b"Scenarios ok".to_vec(), "unroutable"),
        ("case", b"scenario ok".to_vec(), "unroutable"),
        ("bytes", b"Scenario \xff\xfe".to_vec(), "malformed"),
        ("large", vec![b'x'; 16 << 20], "too_large"),
    ];
    for (id, body, _) in &table {
        let properties = BasicProperties::default().with_message_id((*id).into());
        broker.publish_with(home.queue(), properties, body);
    }
    broker.publish(home.queue(), "good", "Scenario ok");
    daemon.wait_count("dead", table.len() as u64);
    daemon.wait_count("done", 1);
    broker.wait_depth(&home.dead(), table.len() as u32);
    let letters = broker.take_all(&home.dead());
    for (id, body, reason) in &table {
        let letter = letters.iter().find(|letter| letter.id() == *id).expect(id);
        assert_eq!(letter.header("x-warren-reason").as_deref(), Some(*reason), "{id}");
        assert!(letter.header("x-warren-error").is_some_and(|text| !text.is_empty()), "{id} says why");
        assert_eq!(letter.text, String::from_utf8_lossy(body), "{id} keeps its body");
    }
    assert_eq!(daemon.status()["broker"]["connects"], 1, "the link was never lost");
}

#[test]
fn follow_ups_are_sent_only_when_the_task_is_done() {
    let (home, broker) = stage("main_follow_up", "retry = { attempts = 1 }");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "parent", "Scenario emit Scenario ok");
    assert_eq!(home.wait_run("end", "parent/1", 1)[0].attempt, 1);
    broker.publish(home.queue(), "failing", "Scenario emit-retry Scenario ok");
    daemon.wait_count("dead", 1);
    broker.publish(home.queue(), "last", "Scenario ok");
    daemon.wait_count("done", 3);
    assert!(home.record().iter().all(|run| run.id != "failing/1"));
    assert_eq!(broker.depth(home.queue()), Some(0));
}

#[test]
fn a_consumer_beside_the_daemon_shares_the_queue_each_task_once() {
    const TASKS: usize = 200;
    let (home, broker) = stage("main_competing", "");
    let daemon = Daemon::start(&home);
    let (channel, runtime) = broker.channel();
    let (sender, seen) = std::sync::mpsc::channel();
    runtime.block_on(async {
        channel.basic_qos(1, BasicQosOptions::default()).await.expect("qos");
        let options = BasicConsumeOptions::default();
        let table = FieldTable::default();
        let mut consumer = channel
            .basic_consume(home.queue().into(), "beside".into(), options, table)
            .await
            .expect("consume");
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                let id = delivery.properties.message_id().as_ref().map(ToString::to_string);
                delivery.ack(BasicAckOptions::default()).await.expect("ack");
                sender.send(id.unwrap_or_default()).expect("the test waits");
            }
        });
    });
    broker.publish_all(home.queue(), "shared", (0..TASKS).map(|_| "Scenario sleep 1".to_owned()));
    let mut theirs: Vec<String> = Vec::new();
    wait::until("all tasks by the one or the other", || {
        theirs.extend(seen.try_iter());
        let ours = daemon.counts()["done"].as_u64().unwrap_or(0) as usize;
        (ours + theirs.len() >= TASKS).then_some(())
    });
    let ours: Vec<String> = home.wait_ends(TASKS - theirs.len()).into_iter().map(|run| run.id).collect();
    assert!(!theirs.is_empty() && !ours.is_empty(), "{} here, {} there", ours.len(), theirs.len());
    let all: BTreeSet<&String> = ours.iter().chain(&theirs).collect();
    assert_eq!((all.len(), ours.len() + theirs.len()), (TASKS, TASKS));
}

#[test]
fn a_handler_at_its_limit_lets_the_tasks_of_others_pass() {
    let (home, broker) = stage("main_limit", "");
    let slow = home.scenario("slow", "scenario", "workers = 1");
    let quick = home.scenario("quick", "scenario", "prefixes = [\"Quick\"]");
    home.configure(Keys { queue: "workers = 4", rest: &(slow + &quick), ..Keys::default() });
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "slow-1", "Scenario hold gate");
    broker.publish(home.queue(), "slow-2", "Scenario hold gate");
    home.wait_run("start", "slow-1", 1);
    broker.publish(home.queue(), "quick-1", "Quick ok");
    home.wait_run("end", "quick-1", 1);
    assert!(home.record().iter().all(|run| run.id != "slow-2"), "one at a time");
    home.release("gate");
    daemon.wait_count("done", 3);
}

#[test]
fn a_killed_daemon_loses_no_task() {
    let (home, broker) = stage("main_killed", "");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "held", "Scenario hold gate");
    home.wait_run("start", "held", 1);
    drop(daemon); // SIGKILL
    home.release("gate");
    let daemon = Daemon::start(&home);
    daemon.wait_count("done", 1);
    let runs = home.wait_run("end", "held", 1);
    assert_eq!(runs.len(), 1, "the first run ended with its daemon");
}

#[test]
fn active_and_progress_show_while_a_task_runs() {
    let (home, broker) = stage("main_active", "");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "shown", "Task 9: Scenario progress gate");
    let task = wait::until("progress in `warrenctl active`", || {
        let active = daemon.ask(&["active"]);
        active.as_array()?.iter().find(|task| task["permille"] == 500).cloned()
    });
    assert_eq!((&task["id"], &task["note"]), (&"shown".into(), &"half of it".into()));
    assert_eq!((&task["handler"], &task["attempt"]), (&"scenario".into(), &1.into()));
    home.release("gate");
    daemon.wait_count("done", 1);
}
