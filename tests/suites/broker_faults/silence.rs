//! A broker that stands still, and peers that never say a word.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use warren_tests::{Broker, Daemon, Home, Node, wait};

use super::stage::{home, wait_settled};

#[test]
fn a_frozen_broker_is_noticed_within_three_heartbeats_and_its_tasks_survive() {
    const HEARTBEAT: Duration = Duration::from_secs(2);
    let node = Node::own();
    let home =
        home(&node.uri(), "frozen", ["heartbeat = \"2s\"\nconnect_timeout = \"2s\"", "workers = 2", ""]);
    let daemon = Daemon::start(&home);
    let broker = Broker::connect(&node.uri());
    broker.publish(home.queue(), "held", "Scenario hold gate");
    home.wait_run("start", "held", 1);
    drop(broker);

    node.freeze().expect("frozen");
    let begin = Instant::now();
    wait::until("the status", || (daemon.status()["ready"] == false).then_some(()));
    let noticed = begin.elapsed();
    assert!(noticed < 3 * HEARTBEAT + wait::BUSY, "noticed after {noticed:?}");
    daemon.wait_notified(0, "STATUS=not consuming");
    // Frozen, its kernel still takes connections: each attempt has its own bound.
    daemon.wait_log(0, &["the broker is away", "no answer in 2s"]);

    node.thaw().expect("thawed");
    let begin = Instant::now();
    wait::until("ready again", || (daemon.status()["ready"] == true).then_some(()));
    eprintln!("noticed after {noticed:?}, ready {:?} after the broker went on", begin.elapsed());
    daemon.wait_log(0, &["redelivery reattached"]);
    home.release("gate");
    let broker = Broker::connect(&node.uri());
    wait_settled(&node, &broker, &daemon, &home);
    assert_eq!(home.wait_run("start", "held", 1).len(), 1);
    broker.wait_one_consumer(home.queue());
}

#[test]
fn fifty_attempts_to_dial_peers_that_never_answer_leak_nothing() {
    const ADDRESSES: usize = 10;
    const ATTEMPTS: usize = 50;
    // What was accepted stays open, and nobody reads.
    let accepted: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let uris: Vec<_> = (0..ADDRESSES)
        .map(|_| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
            let uri = format!("\"amqp://{}/%2f\"", listener.local_addr().expect("bound"));
            let accepted = accepted.clone();
            std::thread::spawn(move || {
                listener.incoming().flatten().for_each(|it| accepted.lock().expect("sound").push(it));
            });
            uri
        })
        .collect();
    let home = Home::new("amqp://unused", "silent");
    let text = std::fs::read_to_string(home.config()).expect("read");
    let uris = format!("uris = [{}]\nconnect_timeout = \"100ms\"", uris.join(", "));
    let silent = text.replace("uris = [\"amqp://unused\"]", &uris);
    assert_ne!(silent, text, "the address is in the configuration");
    home.write_config(&silent);
    let daemon = Daemon::spawn(&home, &[]);

    let attempts = || accepted.lock().expect("sound").len();
    wait::until("the first round", || (attempts() >= ADDRESSES).then_some(()));
    // One attempt may be under way in each of the two; both are looked at until they are at rest or as busy.
    let before = daemon.footprint();
    wait::until("fifty more", || (attempts() >= ADDRESSES + ATTEMPTS).then_some(()));
    wait::until("threads and descriptors to be given back", || {
        let now = daemon.footprint();
        (now.threads <= before.threads && now.fds <= before.fds).then_some(())
    });
    let status = daemon.status();
    assert_eq!(status["ready"], false);
    let error = status["broker"]["last_error"].as_str().expect("an error");
    assert!(error.contains("no answer in 100ms (in the AMQP handshake)"), "{error}");
}
