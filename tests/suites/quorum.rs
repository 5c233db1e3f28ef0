//! Quorum queues count what comes back to them, each version in its own way: a task that is given back often stays.

use warren_tests::{Broker, Daemon, Home, Keys, Node};

/// More than the 20 returns after which RabbitMQ 4.0 drops a task.
const RETURNS: usize = 22;

#[test]
fn a_task_given_back_by_many_drains_is_still_there() {
    let node = Node::shared();
    let home = Home::new(&node.uri(), "quorum_drains");
    home.install("fixture-scenario");
    home.configure(Keys {
        queue: "type = \"quorum\"\nworkers = 1",
        daemon: "drain_timeout = \"0s\"\nstart_wait = \"0s\"",
        rest: &home.scenario("scenario", "scenario", ""),
        ..Keys::default()
    });
    let broker = Broker::connect(&node.uri());
    for times in 1..=RETURNS {
        let mut daemon = Daemon::start(&home);
        if times == 1 {
            broker.publish(home.queue(), "held", "Scenario hold gate");
        }
        home.wait_run("start", "held", times);
        assert!(daemon.terminate().success());
        broker.wait_depth(home.queue(), 1);
    }
    home.release("gate");
    let mut daemon = Daemon::start(&home);
    let runs = home.wait_run("start", "held", RETURNS + 1);
    assert!(runs.iter().all(|run| run.attempt == 1), "what is given back is not counted: {runs:?}");
    daemon.wait_count("done", 1);
    assert!(daemon.terminate().success());
    assert_eq!(broker.depth(home.queue()), Some(0));
    assert_eq!(broker.depth(&home.dead()).unwrap_or(0), 0);
}
