//! Where a copy is to go is missing, full, or forbidden: the task stays unacknowledged until the cause is gone.

use std::time::{Duration, Instant};

use lapin::types::AMQPValue;
use warren_tests::{Broker, Daemon, Node, wait};

use super::stage::{home, queue, wait_error, wait_settled};

const RETRY: &str = "retry = { attempts = 3, delay = \"250ms\", jitter = 0.0 }";

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[test]
fn delay_and_dead_queues_that_were_deleted_are_declared_again() {
    let node = Node::shared();
    let home = home(&node.uri(), "copies_deleted", ["", "", RETRY]);
    let daemon = Daemon::start(&home);
    let broker = Broker::connect(&node.uri());
    for round in 1..=2 {
        broker.publish(home.queue(), &format!("retried-{round}"), "Scenario until 2");
        broker.publish(home.queue(), &format!("rejected-{round}"), "Scenario reject");
        daemon.wait_count("done", round);
        assert_eq!(broker.take(&home.dead()).id(), format!("rejected-{round}"));
        wait_settled(node, &broker, &daemon, &home);
        broker.delete(&home.dead());
        broker.delete(&format!("{}.retry.250", home.queue()));
    }
}

#[test]
fn a_full_dead_queue_keeps_the_task_unacknowledged_until_there_is_room() {
    let node = Node::shared();
    let home = home(&node.uri(), "copies_full", ["", "", ""]);
    let broker = Broker::connect(&node.uri());
    broker.declare(&home.dead(), &[("x-max-length", 1.into()), ("x-overflow", text("reject-publish"))]);
    broker.publish(&home.dead(), "first", "fills it");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "second", "Scenario reject");
    wait_error(&daemon, &[&home.dead(), "full", "x-max-length"]);
    assert_eq!((node.unacknowledged(home.queue()), queue(&daemon)["settling"].as_u64()), (Some(1), Some(1)));
    // Other tasks go on, and it does not try again and again without a pause.
    broker.publish(home.queue(), "other", "Scenario ok");
    daemon.wait_count("done", 1);
    let tries =
        daemon.log().since(0).iter().filter(|line| line.contains("the broker rejected a copy")).count();
    assert!(tries < 50, "{tries} tries");

    broker.purge(&home.dead());
    let begin = Instant::now();
    let letter = broker.take(&home.dead());
    assert_eq!((letter.id(), &*letter.text), ("second", "Scenario reject"));
    eprintln!("the dead letter came {:?} after there was room", begin.elapsed());
    wait_settled(node, &broker, &daemon, &home);
}

#[test]
fn a_full_delay_queue_keeps_its_retries_unacknowledged_until_there_is_room() {
    let node = Node::shared();
    let home =
        home(&node.uri(), "copies_delay", ["", "prefetch = 4", "retry = { attempts = 2, delay = \"8s\" }"]);
    let broker = Broker::connect(&node.uri());
    let policy = format!("^{}\\.retry\\.", home.queue());
    let arguments = ["set_policy", "copies_delay", &policy, r#"{"max-length":1}"#, "--apply-to", "queues"];
    node.ctl(&arguments).expect("a policy");
    let daemon = Daemon::start(&home);
    // One after the other: a quorum queue tells its publishers afterwards that it is full, and takes what came until then.
    let id = |n: u64| format!("t-{n}");
    let taken = |n: &u64| {
        broker.publish(home.queue(), &id(*n), "Scenario until 2");
        wait::until("a copy that was taken or refused", || {
            let (queue, log) = (queue(&daemon), daemon.log().since(0));
            let is_refused = log.iter().any(|line| line.contains("the broker rejected a copy"));
            let is_taken = queue["counts"]["retried"] == *n && queue["settling"] == 0;
            (is_refused || is_taken).then_some(!is_refused)
        })
    };
    let first = (1..8).find(|n| !taken(n)).expect("a copy that was not taken");
    wait_error(&daemon, &[&format!("{}.retry.", home.queue()), "full"]);
    assert!(queue(&daemon)["settling"].as_u64() > Some(0));
    (first + 1..=8).for_each(|n| broker.publish(home.queue(), &id(n), "Scenario until 2"));
    node.ctl(&["clear_policy", "copies_delay"]).expect("no policy");
    daemon.wait_count("done", 8);
    wait_settled(node, &broker, &daemon, &home);
    assert_eq!(home.record().iter().filter(|run| run.what == "end").count(), 16, "each attempt ran once");
}

#[test]
fn a_missing_permission_is_named_and_the_task_settles_when_it_is_granted() {
    let node = Node::shared();
    let broker = Broker::connect(&node.uri());
    node.add_user("copies", "secret-word", ["^$"; 3]);
    let grant = |configure: &str, write: &str| node.permit("copies", [configure, write, ".*"]);
    // It may not declare the dead queue, not the delay queue, not publish. What the error says it needs is enough.
    let uri = format!("amqp://copies:secret-word@127.0.0.1:{}/%2f", node.port());
    let table = [
        ("copies_declare", "^copies_declare$", ".*", "copies_declare.dead"),
        ("copies_again", "^copies_again(\\.dead)?$", ".*", "copies_again.retry.250"),
        ("copies_write", ".*", "^$", "amq\\.default"),
    ];
    for (name, configure, write, named) in table {
        grant(configure, write);
        let home = home(&uri, name, ["", "", "retry = { attempts = 2, delay = \"250ms\" }"]);
        let daemon = Daemon::start(&home);
        let text = if name == "copies_again" { "Scenario until 9" } else { "Scenario reject" };
        broker.publish(name, "rejected", text);
        wait_error(&daemon, &["ACCESS_REFUSED", named, "set_permissions"]);
        let pattern = format!("^{name}(\\..*)?$");
        if configure != ".*" {
            wait_error(&daemon, &[named, &pattern, "amq\\.default"]);
        }
        assert_eq!(node.unacknowledged(name), Some(1), "{name}");
        grant(&pattern, &format!("{pattern}|^amq\\.default$"));
        let begin = Instant::now();
        assert_eq!(broker.take(&home.dead()).id(), "rejected");
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(30), "{name}: {took:?}");
        eprintln!("{name}: the dead letter came {took:?} after the permission");
        wait_settled(node, &broker, &daemon, &home);
        let log = daemon.log().since(0);
        assert!(!log.iter().any(|line| line.contains("secret-word")), "no credential in the log");
    }
}

#[test]
fn a_work_queue_that_is_deleted_with_its_retries_under_way_is_declared_again_for_them() {
    let node = Node::shared();
    let home =
        home(&node.uri(), "copies_work", ["", "", "retry = { attempts = 2, delay = \"1s\", jitter = 0.0 }"]);
    let daemon = Daemon::start(&home);
    let broker = Broker::connect(&node.uri());
    broker.publish(home.queue(), "waits", "Scenario until 2");
    // The original is acknowledged: deleted before that, it would be waited for.
    wait::until("the copy alone to be there", || {
        let queue = queue(&daemon);
        (queue["counts"]["retried"] == 1 && queue["settling"] == 0).then_some(())
    });
    broker.delete(home.queue());
    home.wait_run("end", "waits", 2);
    wait_settled(node, &broker, &daemon, &home);
    broker.wait_one_consumer(home.queue());
}

#[test]
fn a_delay_queue_that_says_nothing_does_not_hold_up_the_others() {
    // Of its own: what becomes of a queue that does not answer is not the other tests' concern.
    let node = Node::own();
    let retry = "retry = { attempts = 3, delay = \"500ms\", factor = 1.0, jitter = 0.0 }";
    let home = home(&node.uri(), "copies_silent", ["", "workers = 2", retry]);
    let daemon = Daemon::start(&home);
    let broker = Broker::connect(&node.uri());
    broker.publish(home.queue(), "declares", "Scenario until 2");
    daemon.wait_count("done", 1);
    wait_settled(&node, &broker, &daemon, &home);
    // As after a kill of the broker within a second of the declaration, with 3.10.8: the queue is there, and runs.
    let process = format!("'%2F_{}.retry.500'", home.queue());
    let suspend = |what: &str| node.eval(&format!("sys:{what}({process})")).expect("its process");
    suspend("suspend");
    // More than the window takes.
    broker.publish_all(home.queue(), "t", std::iter::repeat_n("Scenario until 3".to_owned(), 6));
    daemon.wait_count("done", 7);
    wait_error(&daemon, &[&format!("{}.retry.500", home.queue()), "not confirmed", "delete_queue"]);
    assert!(broker.depth(&format!("{}.retry.1000", home.queue())).is_some(), "the next longer delay");
    suspend("resume");
}
