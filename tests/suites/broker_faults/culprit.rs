//! A message that ends every connection it is delivered on: its queue is found and left alone, the others go on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use warren_tests::ledger;
use warren_tests::{Broker, Daemon, Home, Keys, Node, Proxy, wait};

/// What the proxy makes unreadable.
const BAD: &str = "cannot be read";

/// Queues beside the one that the home names.
const OTHERS: [&str; 3] = ["culprit_b", "culprit_c", "culprit_d"];

fn queue(daemon: &Daemon, name: &str) -> Value {
    let status = daemon.status();
    let queues = status["queues"].as_array().expect("queues");
    queues.iter().find(|queue| queue["name"] == name).cloned().unwrap_or(Value::Null)
}

fn wait_state(daemon: &Daemon, name: &str, state: &str) {
    wait::until(&format!("{name} is {state}"), || (queue(daemon, name)["state"] == state).then_some(()));
}

struct Stage {
    proxy: Proxy,
    home: Home,
    broker: Broker,
}

impl Stage {
    fn new(first: &str, others: &[&str]) -> Self {
        let node = Node::shared();
        let proxy = Proxy::start(node.port());
        let home = Home::new(&proxy.uri(), first);
        home.install("fixture-ledger");
        let mut rest = home.scenario("ledger", "ledger", "");
        for name in others {
            writeln!(rest, "[queues.{name}]\nprefetch = 2").expect("a String");
        }
        home.configure(Keys { rest: &rest, ..Keys::default() });
        proxy.spoil(BAD.as_bytes());
        Self { proxy, home, broker: Broker::connect(&node.uri()) }
    }

    fn starts(&self) -> BTreeMap<String, usize> {
        let mut starts = BTreeMap::new();
        for entry in ledger::read(&self.home.path("record")).into_iter().filter(|entry| entry.what == "start")
        {
            *starts.entry(entry.id).or_default() += 1;
        }
        starts
    }
}

/// Keeps tasks coming into the other queues until told otherwise; how many there were.
fn produce(queues: &[&str], running: &AtomicBool) -> usize {
    let broker = Broker::connect(&Node::shared().uri());
    let mut published = 0;
    while running.load(Ordering::Relaxed) {
        for queue in queues {
            if broker.depth(queue).is_some_and(|depth| depth < 20) {
                broker.publish(queue, &format!("t-{published}"), "Ledger slow 5");
                published += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    published
}

#[test]
fn a_queue_that_ends_every_connection_is_named_and_left_alone_and_the_tasks_of_the_others_run_once_each() {
    let stage = Stage::new("culprit_a", &OTHERS);
    let daemon = Daemon::start(&stage.home);
    let bad = OTHERS[1];
    let good = [stage.home.queue(), OTHERS[0], OTHERS[2]];
    for name in good.iter().chain([&bad]) {
        wait_state(&daemon, name, "consuming");
    }
    let running = AtomicBool::new(true);
    let (published, connections) = std::thread::scope(|scope| {
        let producing = scope.spawn(|| produce(&good, &running));
        let ending = Ending(&running);
        stage.broker.publish(bad, "bad", &format!("Ledger ok, but it {BAD}"));
        wait_state(&daemon, bad, "quarantined");
        for name in good {
            wait_state(&daemon, name, "consuming");
        }
        let connections = stage.proxy.accepted();
        let before = stage.starts().len();
        wait::until("many more tasks", || (stage.starts().len() > before + 100).then_some(()));
        drop(ending);
        (producing.join().expect("no panic"), connections)
    });
    assert_eq!(stage.proxy.accepted(), connections, "no connection is lost any more");
    for name in good {
        wait::until("all settled", || {
            let queue = queue(&daemon, name);
            let idle = ["running", "waiting", "settling"].iter().all(|key| queue[*key] == 0);
            (idle && stage.broker.depth(name) == Some(0)).then_some(())
        });
        assert_eq!(stage.broker.depth(&format!("{name}.dead")).unwrap_or(0), 0, "{name}");
    }
    let starts = stage.starts();
    let more: Vec<_> = starts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(more.is_empty() && starts.len() == published, "{} of {published}: {more:?}", starts.len());

    // It is told everywhere, with its cause and what to do.
    let status = daemon.status();
    let held = queue(&daemon, bad)["held"].as_str().unwrap_or_default().to_owned();
    for part in [bad, "cannot be read as AMQP", "rabbitmqadmin get", "warrenctl reload"] {
        assert!(held.contains(part), "{part}: {held}");
    }
    assert_eq!(status["ready"], false);
    daemon.wait_log(0, &["ERROR", "queue quarantined", bad, "cannot be read as AMQP"]);
    let errors: Vec<_> = status["last_errors"].as_array().expect("errors").iter().collect();
    assert!(errors.iter().any(|error| error["message"].as_str().is_some_and(|text| text.contains(bad))));
    wait::until("the service manager is told", || {
        let told = daemon.notified().since(0);
        told.iter().any(|line| line.starts_with("STATUS=") && line.contains(bad)).then_some(())
    });

    // Somebody removes the message, and has it tried again.
    assert_eq!(stage.broker.take(bad).id(), "bad");
    daemon.reload();
    wait_state(&daemon, bad, "consuming");
    assert_eq!(daemon.status()["ready"], true);
    assert_eq!(queue(&daemon, bad)["held"], Value::Null);
    stage.broker.publish(bad, "after", "Ledger ok");
    wait::until("it is consumed", || stage.starts().contains_key("after").then_some(()));
}

#[test]
fn a_sole_queue_with_such_a_message_is_named_as_well_and_two_of_them_are() {
    for others in [&[][..], &["culprit_two"]] {
        let stage = Stage::new(if others.is_empty() { "culprit_sole" } else { "culprit_one" }, others);
        let names: Vec<&str> = [stage.home.queue()].into_iter().chain(others.iter().copied()).collect();
        let daemon = Daemon::start(&stage.home);
        for name in &names {
            wait_state(&daemon, name, "consuming");
        }
        for name in &names {
            stage.broker.publish(name, "bad", &format!("Ledger ok, but it {BAD}"));
        }
        for name in &names {
            wait_state(&daemon, name, "quarantined");
        }
        // Whatever made it unreadable is mended: the message is a task like any other.
        stage.proxy.spoil(b"");
        daemon.reload();
        for name in &names {
            wait_state(&daemon, name, "consuming");
        }
        wait::until("they run", || (stage.starts().get("bad") == Some(&names.len())).then_some(()));
    }
}

#[test]
fn connections_that_are_cut_or_closed_again_and_again_are_held_against_no_queue() {
    let stage = Stage::new("culprit_none", &["culprit_none_b"]);
    let daemon = Daemon::start(&stage.home);
    for round in 0..10 {
        for name in [stage.home.queue(), "culprit_none_b"] {
            wait_state(&daemon, name, "consuming");
        }
        let from = daemon.log().next();
        assert!(stage.proxy.cut() > 0, "round {round}");
        daemon.wait_log(from, &["subscription lost"]);
    }
    for name in [stage.home.queue(), "culprit_none_b"] {
        wait_state(&daemon, name, "consuming");
    }
    let told = daemon.log().since(0).into_iter().find(|line| line.contains("quarantine"));
    assert_eq!(told, None);
}

/// Ends the producer, also when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
