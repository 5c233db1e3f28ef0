//! A memory alarm: the broker takes nothing that is published.

use warren_tests::{Broker, Daemon, Node, wait};

use super::stage::{home, queue, wait_settled};

const FINE: usize = 30;
const RETRIED: usize = 10;

#[test]
fn during_an_alarm_succeeding_tasks_are_acknowledged_and_retries_wait_for_its_end() {
    let node = Node::own();
    let handler = "retry = { attempts = 3, delay = \"250ms\" }";
    // Room for all that waits, and more.
    let home = home(&node.uri(), "alarm", ["", "prefetch = 5\nworkers = 4", handler]);
    let broker = Broker::connect(&node.uri());
    broker.declare(home.queue(), &[]);
    broker.publish_all(home.queue(), "retried", (0..RETRIED).map(|_| "Scenario until 2".to_owned()));
    broker.publish_all(home.queue(), "fine", (0..FINE).map(|_| "Scenario ok".to_owned()));
    node.alarm(true);

    let daemon = Daemon::start(&home);
    daemon.wait_count("done", FINE as u64);
    wait::until("all retries to wait", || (queue(&daemon)["settling"] == RETRIED).then_some(()));
    // The broker says it to who publishes: with the first retry, and some time after that is here.
    wait::until("the alarm in the status", || {
        let status = daemon.status();
        (status["ready"] == true && status["broker"]["state"] == "blocked").then_some(())
    });
    daemon.wait_notified(0, "STATUS=consuming, retries and dead letters wait (the broker blocks publishing");
    assert_eq!(broker.depth(home.queue()), Some(0));
    let starts =
        |attempt| home.record().iter().filter(|run| run.what == "start" && run.attempt == attempt).count();
    assert_eq!((starts(1), starts(2)), (FINE + RETRIED, 0));

    node.alarm(false);
    daemon.wait_count("done", (FINE + RETRIED) as u64);
    wait_settled(&node, &broker, &daemon, &home);
    assert_eq!((starts(1), starts(2)), (FINE + RETRIED, RETRIED), "each attempt ran once");
    wait::until("the end of the alarm in the status", || {
        (daemon.status()["broker"]["state"] == "connected").then_some(())
    });
}
