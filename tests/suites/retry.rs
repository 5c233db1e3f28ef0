//! Retries wait in delay queues, not here: nothing is unacknowledged meanwhile, and nothing is lost by a restart.

use std::collections::BTreeSet;

use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

fn stage(node: &Node, queue: &str, keys: &str) -> (Home, Broker) {
    let home = Home::new(&node.uri(), queue);
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", keys);
    home.configure(Keys { queue: "prefetch = 10\nworkers = 4", rest: &rest, ..Keys::default() });
    (home, Broker::connect(&node.uri()))
}

#[test]
fn nothing_is_unacknowledged_while_a_thousand_tasks_wait_for_their_retry() {
    const TASKS: u64 = 1000;
    let node = Node::shared();
    let (home, broker) = stage(node, "retry_thousand", "");
    let daemon = Daemon::start(&home);
    broker.publish_all(home.queue(), "t", (0..TASKS).map(|_| "Scenario after 3600000".to_owned()));
    daemon.wait_count("retried", TASKS);
    let delayed = format!("{}.retry.3600000", home.queue());
    broker.wait_depth(&delayed, TASKS as u32);
    wait::until("all is settled", || (daemon.status()["queues"][0]["settling"] == 0).then_some(()));
    wait::until("no message of the queue is unacknowledged", || {
        // The broker's own figures lag behind a little.
        [home.queue(), &delayed].iter().all(|name| node.unacknowledged(name) == Some(0)).then_some(())
    });
    assert_eq!(daemon.status()["queues"][0]["waiting"], 0);
    broker.delete(&delayed);
}

#[test]
fn a_restart_of_the_daemon_and_of_the_broker_in_mid_wait_loses_nothing() {
    const TASKS: usize = 40;
    let mut node = Node::own();
    let retry = "retry = { attempts = 3, delay = \"5s\", factor = 1.0, jitter = 0.0 }";
    let (home, broker) = stage(&node, "retry_restart", retry);
    let mut daemon = Daemon::start(&home);
    broker.publish_all(home.queue(), "t", (0..TASKS).map(|_| "Scenario until 2".to_owned()));
    daemon.wait_count("retried", TASKS as u64);
    broker.wait_depth(&format!("{}.retry.5000", home.queue()), TASKS as u32);
    assert!(daemon.terminate().success());
    node.restart().expect("restart");
    let daemon = Daemon::start(&home);
    daemon.wait_count("done", TASKS as u64);
    // A killed classic queue forgets its last acknowledgements: first attempts may run again, second ones must.
    let second: BTreeSet<String> = home
        .record()
        .into_iter()
        .filter(|run| run.what == "end" && run.attempt == 2)
        .map(|run| run.id)
        .collect();
    assert_eq!(second.len(), TASKS, "each came back");
    let broker = Broker::connect(&node.uri());
    wait::until("everything is settled", || {
        let queue = daemon.status()["queues"][0].clone();
        let idle = ["running", "waiting", "settling"].iter().all(|key| queue[*key] == 0);
        (idle && broker.depth(home.queue()) == Some(0)).then_some(())
    });
}
