//! Headers that fill a frame, or more than one, and headers nested as deep as a frame holds: no message ends a connection,
//! nor `warrenctl dead`.

use std::process::Command;

use warren_tests::raw::{Client, Content, Properties, Property, Value};
use warren_tests::{Broker, Daemon, Home, Keys, Node, artefacts};

/// An array in an array costs five bytes; this many fill most of a frame of 131,072 bytes, RabbitMQ's `frame_max`.
const DEPTH: usize = 26_000;

/// A daemon with the scenario fixture, whose handler is given two attempts.
fn stage(node: &Node, queue: &str) -> (Home, Broker) {
    let home = Home::new(&node.uri(), queue);
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", "retry = { attempts = 2, delay = \"250ms\" }");
    home.configure(Keys { rest: &rest, ..Keys::default() });
    // The library would take 32 frames of whatever size the broker offers.
    (home, Broker::connect(&format!("{}?frame_max=131072", node.uri())))
}

fn nested(queue: &str, body: &[u8]) -> Content {
    let properties = Properties::default().with_headers(&[(b"n", Value::nested(DEPTH, None))]);
    Content::to(queue, &properties, body)
}

/// A message whose header frame has this payload, with a second, small header.
fn of_size(queue: &str, id: &str, payload: usize, body: &[u8]) -> Content {
    let content = |fill: usize| {
        let headers: [(&[u8], Value); 2] =
            [(b"large", Value::text(&vec![b'a'; fill])), (b"small", Value::text(b"kept"))];
        let properties =
            Properties::default().with(Property::MessageId, id.as_bytes()).with_headers(&headers);
        Content::to(queue, &properties, body)
    };
    let rest = content(0).header().len();
    let content = content(payload - rest);
    assert_eq!(content.header().len(), payload);
    content
}

#[test]
fn a_task_with_headers_nested_as_deep_as_a_frame_holds_is_done_like_any_other() {
    let node = Node::shared();
    let (home, broker) = stage(node, "nested");
    broker.declare(home.queue(), &[]);
    let mut daemon = Daemon::start(&home);
    let mut producer = Client::connect(node.port());
    for body in [&b"Scenario ok"[..], b"Nobody takes this"] {
        assert_eq!(producer.publish(&nested(home.queue(), body)).taken, 1);
    }
    broker.publish(home.queue(), "after", "Scenario ok");

    daemon.wait_count("done", 2);
    daemon.wait_count("dead", 1);
    assert!(daemon.is_running());
    assert_eq!(daemon.status()["broker"]["connects"], 1);
    broker.wait_depth(&home.dead(), 1);
    let letter = broker.take(&home.dead());
    let altered = letter.header("x-warren-altered").expect("what was changed");
    assert_eq!(altered, "headers nested deeper than 64 levels became bytes");
    assert!(daemon.terminate().success());
}

#[test]
fn a_dead_letter_with_headers_nested_as_deep_as_a_frame_holds_is_looked_at_and_replayed() {
    let node = Node::shared();
    let (home, broker) = stage(node, "nested_dead");
    broker.declare(home.queue(), &[]);
    broker.declare(&home.dead(), &[]);
    assert_eq!(Client::connect(node.port()).publish(&nested(&home.dead(), b"Nobody takes this")).taken, 1);
    broker.wait_depth(&home.dead(), 1);
    for words in [&["list"][..], &["export"], &["replay", "--all"]] {
        let mut command = Command::new(artefacts::program("warrenctl"));
        command.arg("dead").args(words).arg("--config").arg(home.config());
        let output = command.output().expect("warrenctl");
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
    broker.wait_depth(home.queue(), 1);
}

/// A quorum queue adds `x-delivery-count` to what it hands out, and the broker does not cut header frames.
#[test]
fn headers_that_fill_a_frame_are_no_reason_to_end_a_connection_when_a_quorum_queue_adds_its_own() {
    let node = Node::shared();
    let (home, broker) = stage(node, "frame_quorum");
    let mut producer = Client::connect(node.port());
    producer.declare(home.queue(), &[(b"x-queue-type", Value::text(b"quorum"))]);
    let mut daemon = Daemon::start(&home);
    let full = producer.payload_max();
    for (n, size) in [full - 300, full - 25, full - 1, full].into_iter().enumerate() {
        let content = of_size(home.queue(), &format!("full-{n}"), size, b"Scenario ok");
        assert_eq!(producer.publish(&content).taken, 1);
    }
    broker.publish(home.queue(), "after", "Scenario ok");
    // The broker's record is left out, which no task misses.
    daemon.wait_count("done", 5);
    assert_eq!(daemon.status()["broker"]["connects"], 1);
    assert!(daemon.terminate().success());
    broker.delete_family(home.queue());
}

/// `frame_max = 0` is "no limit" in RabbitMQ's configuration.
#[test]
fn a_broker_without_a_bound_on_frames_costs_no_memory_and_too_many_headers_are_a_dead_letter() {
    let node = Node::own();
    node.set_env("frame_max", 0);
    let (home, broker) = stage(&node, "frame_unbounded");
    broker.declare(home.queue(), &[]);
    let mut daemon = Daemon::start(&home);
    let mut producer = Client::connect(node.port());
    for (id, size) in [("more", 200_000), ("far-more", 20 << 20)] {
        let content = of_size(home.queue(), id, size, b"Scenario ok");
        assert_eq!(producer.publish(&content).taken, 1, "{id}");
    }
    broker.publish(home.queue(), "after", "Scenario ok");
    daemon.wait_count("done", 1);
    daemon.wait_count("dead", 2);
    assert_eq!(daemon.status()["broker"]["connects"], 1);
    broker.wait_depth(&home.dead(), 2);
    let letters = broker.take_all(&home.dead());
    let altered: Vec<_> = letters.iter().map(|letter| letter.header("x-warren-altered")).collect();
    let expected = [
        "header large of 199962 bytes was left out: the headers do not fit into a frame",
        "properties of 20971520 bytes were left out",
    ];
    assert_eq!(altered, expected.map(|text| Some(text.to_owned())));
    assert_eq!(letters[0].header("small").as_deref(), Some("kept"));
    assert!(letters.iter().all(|letter| letter.header("x-warren-reason").as_deref() == Some("malformed")));
    assert!(daemon.terminate().success());
}
