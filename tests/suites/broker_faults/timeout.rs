//! `consumer_timeout`: the broker takes a delivery back that is not acknowledged in time.

use warren::config::QueueType;
use warren_tests::{Broker, Daemon, Node};

use super::stage::{home, wait_settled};

#[test]
fn a_task_over_the_consumer_timeout_is_adopted_again_and_again_and_runs_once() {
    let node = Node::own();
    // A quorum queue itself cancels the consumer; else the channel is closed.
    let (kind, why) = match node.set_consumer_timeout(1_500, 250) {
        Some(QueueType::Quorum) => ("type = \"quorum\"", "cancelled"),
        _ => ("", "timed out"),
    };
    let home = home(&node.uri(), "overdue", ["", &format!("prefetch = 2\nworkers = 2\n{kind}"), ""]);
    let daemon = Daemon::start(&home);
    let broker = Broker::connect(&node.uri());
    broker.publish(home.queue(), "long", "Scenario hold gate");
    home.wait_run("start", "long", 1);
    let mut from = 0;
    for round in 1..=3 {
        let lost = |line: &str| line.contains("subscription lost") && line.contains(why);
        from = daemon.log().wait(from, lost).expect("the broker takes the delivery back").0 + 1;
        from = daemon.log().wait(from, |line| line.contains("redelivery reattached")).expect("adopted").0 + 1;
        let id = format!("between-{round}");
        broker.publish(home.queue(), &id, "Scenario ok");
        home.wait_run("end", &id, 1);
    }
    home.release("gate");
    wait_settled(&node, &broker, &daemon, &home);
    let starts = home.record().iter().filter(|run| run.what == "start" && run.id == "long").count();
    assert_eq!(starts, 1, "it was not run beside itself");
    assert_eq!(daemon.counts()["done"], 4);
    broker.wait_one_consumer(home.queue());
}
