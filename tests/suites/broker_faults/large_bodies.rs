//! Bodies over `max_task_bytes`, more of them in the window than fit into memory.

use std::fs;

use lapin::BasicProperties;
use warren_tests::{Broker, Daemon, Node, wait};

use super::stage::{home, wait_settled};

/// Below the largest message of RabbitMQ 4, 16 MiB.
const SIZE: usize = 15 << 20;
const MESSAGES: u32 = 16;
/// What the daemon may have resident at its peak: the 64 MiB that are let in at one time, the library's copy of the body
/// that is just read, and what the daemon has without them. All bodies together have 240 MiB.
const PEAK_KIB: u64 = 150 << 10;

#[test]
fn large_bodies_that_cannot_be_refused_at_once_wait_at_the_broker_and_not_in_the_daemon() {
    let node = Node::own();
    let home = home(&node.uri(), "large_bodies", ["", "prefetch = 25\nworkers = 4", ""]);
    let broker = Broker::connect(&node.uri());
    broker.declare(home.queue(), &[]);
    let body = vec![b'x'; SIZE];
    for n in 1..=MESSAGES {
        let properties = BasicProperties::default().with_message_id(format!("large-{n}").into());
        broker.publish_with(home.queue(), properties.with_delivery_mode(2), &body);
    }
    broker.publish(home.queue(), "small", "Scenario ok");
    // No dead letter can be published: all that is delivered stays.
    node.alarm(true);

    let daemon = Daemon::start(&home);
    daemon.wait_count("done", 1);
    wait::until("the whole window", || (node.unacknowledged(home.queue()) == Some(MESSAGES)).then_some(()));
    let peak = peak_kib(daemon.pid());
    assert!(peak < PEAK_KIB, "the daemon had {peak} KiB resident at its peak");

    node.alarm(false);
    daemon.wait_count("dead", u64::from(MESSAGES));
    // Counted before it is confirmed.
    broker.wait_depth(&home.dead(), MESSAGES);
    broker.purge(&home.dead());
    wait_settled(&node, &broker, &daemon, &home);
    assert_eq!(daemon.status()["broker"]["connects"], 1);
}

fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon is there");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}
