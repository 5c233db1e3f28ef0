//! Hosts that end before they start a task, after they have reported it, or while they are freed.

use warren_tests::{Broker, Daemon, Home, Keys, Node};

/// Larger than the memory of the handler leaves room for, which is 16 MiB; and what RabbitMQ 4.3 still takes.
const LARGE: usize = (16 << 20) - 1024;

fn stage(queue: &str, keys: &str) -> (Home, Broker) {
    let node = Node::shared();
    let home = Home::new(&node.uri(), queue);
    home.install_c("evil", "evil.c", &[]);
    let rest = format!("[handlers.evil]\n{keys}\n");
    let daemon = "max_task_bytes = \"32MiB\"";
    home.configure(Keys { queue: "workers = 1", daemon, rest: &rest, ..Keys::default() });
    (home, Broker::connect(&node.uri()))
}

/// How often a host ended in this stage, by the log.
fn ends(daemon: &Daemon, stage: &str) -> usize {
    let stage = format!("stage={stage}");
    daemon
        .log()
        .since(0)
        .iter()
        .filter(|line| line.contains("plugin host died") && line.contains(&stage))
        .count()
}

#[test]
fn a_task_that_its_host_cannot_read_fails_after_three_hosts_and_others_are_done() {
    let (home, broker) = stage("hosts_reading", "memory = \"16MiB\"\nretry = { attempts = 1 }");
    let daemon = Daemon::start(&home);
    daemon.wait_log(0, &["WARN", "memory", "max_task_bytes"]);
    broker.publish(home.queue(), "large", &format!("Evil ok {}", "x".repeat(LARGE)));
    broker.publish(home.queue(), "small", "Evil ok");
    let letter = broker.take(&home.dead());
    let header = |name: &str| letter.header(name).unwrap_or_default();
    assert_eq!((letter.id(), header("x-warren-reason")), ("large", "poison".to_owned()));
    let error = header("x-warren-error");
    assert!(error.contains("while it read the task") && error.contains("`memory` of 16MiB"), "{error}");
    daemon.wait_count("done", 1);
    daemon.wait_count("dead", 1);
    assert_eq!(ends(&daemon, "Reading"), 3, "{:#?}", daemon.log().since(0));
    let counts = daemon.counts();
    assert_eq!((&counts["faults"], &counts["dead"], &counts["parked"]), (&1.into(), &1.into(), &0.into()));
}

#[test]
fn tasks_that_no_host_can_read_suspend_their_handler_and_still_become_dead_letters() {
    const TASKS: usize = 4;
    let (home, broker) = stage("hosts_unreadable", "memory = \"16MiB\"\nretry = { attempts = 1 }");
    let daemon = Daemon::start(&home);
    let large = "x".repeat(LARGE);
    broker.publish_all(home.queue(), "t", (0..TASKS).map(|_| format!("Evil ok {large}")));
    daemon.wait_log(0, &["WARN", "handler held", "suspended", "before it could run"]);
    daemon.wait_count("dead", TASKS as u64);
    assert!(ends(&daemon, "Reading") <= 3 * TASKS);
}

#[test]
fn a_host_that_dies_without_a_task_is_its_handlers_and_not_the_next_tasks() {
    let (home, broker) = stage("hosts_idle", "retry = { attempts = 1 }");
    let daemon = Daemon::start(&home);
    for round in 1..=3 {
        let from = daemon.log().next();
        broker.publish(home.queue(), "leaves", "Evil leave 200");
        daemon.wait_count("done", round);
        daemon.wait_log(from, &["ERROR", "evil", "while it had no task: exit status 7"]);
    }
    broker.publish(home.queue(), "next", "Evil ok");
    daemon.wait_count("done", 4);
    assert_eq!(daemon.counts()["dead"], 0);
    let handler = daemon.handler("evil");
    assert!(handler["last_error"].as_str().is_some_and(|text| text.contains("exit status 7")), "{handler}");
}

#[test]
fn a_host_that_dies_while_its_handler_is_freed_is_told_of_and_suspends_nobody() {
    let (home, broker) = stage("hosts_freed", "max_tasks = 1\nretry = { attempts = 1 }");
    let daemon = Daemon::start(&home);
    for round in 1..=5 {
        broker.publish(home.queue(), "crashes", "Evil destroy");
        daemon.wait_count("done", round);
    }
    daemon.wait_log(0, &["WARN", "evil", "plugin host died", "Quitting", "SIGABRT"]);
    assert_eq!((&daemon.handler("evil")["state"], &daemon.counts()["faults"]), (&"active".into(), &0.into()));
}
