//! Headers that fill a frame: every copy is made, without the headers that there is no room for, and no link is lost.

use lapin::types::AMQPValue;
use serde_json::Value;
use warren_tests::{Daemon, Node};

use super::stage::{Stage, text};

const RETRY: &str = "retry = { attempts = 3, delay = \"250ms\", factor = 1.0, jitter = 0.0 }";

/// As much as the default frame of 131,072 bytes has room for in one header `big`, beside its own bytes, those of the
/// content header, the message id `big-N` and the header `tenant`.
const BIG: usize = 131_072 - 8 - 12 - 2 - 6 - 4 - (1 + 3 + 1 + 4) - (1 + 6 + 1 + 4 + 4);

fn big() -> [(&'static str, AMQPValue); 2] {
    [("big", text(&"x".repeat(BIG))), ("tenant", text("acme"))]
}

#[test]
fn a_window_full_of_tasks_with_a_frame_of_headers_and_no_handler_stops_nothing() {
    let stage = Stage::new(Node::shared(), "large_unroutable", "prefetch = 1\nworkers = 4", RETRY);
    let daemon = Daemon::start(&stage.home);
    for n in 1..=4 {
        stage.publish(&format!("big-{n}"), &big(), "Nobody takes this");
    }
    stage.broker.publish_all(stage.home.queue(), "small", (0..20).map(|_| "Scenario ok".to_owned()));
    daemon.wait_count("done", 20);
    daemon.wait_count("dead", 4);
    let letter = stage.letter("big-3");
    assert_eq!((&letter["reason"], &letter["headers_dropped"]), (&"unroutable".into(), &"big".into()));
    assert_eq!(letter["headers"]["tenant"], "acme", "what there is room for stays");
    assert_eq!(letter["body"], "Nobody takes this");
    let status = daemon.status();
    assert_eq!((&status["ready"], &status["broker"]["connects"]), (&true.into(), &1.into()));
}

#[test]
fn a_task_with_a_frame_of_headers_is_retried_without_them_and_says_so_to_its_handler() {
    let stage = Stage::new(Node::shared(), "large_retried", "", RETRY);
    let daemon = Daemon::start(&stage.home);
    stage.publish("big-1", &big(), "Scenario until 3");
    stage.publish("big-2", &big(), "Scenario retry");
    daemon.wait_count("done", 1);
    let letter = stage.letter("big-2");
    assert_eq!((&letter["attempts"], &letter["headers_dropped"]), (&3.into(), &"big".into()));
    assert_eq!(daemon.status()["broker"]["connects"], 1);
}

#[test]
fn a_copy_leaves_room_for_what_the_broker_adds_on_its_way_back() {
    let stage = Stage::new(Node::shared(), "large_many", "", RETRY);
    let daemon = Daemon::start(&stage.home);
    // Each takes 20 bytes: a copy is filled to the last twenty of what it may have.
    let names: Vec<String> = (0..6_540).map(|n| format!("h{n:04}")).collect();
    let fields: Vec<(&str, AMQPValue)> =
        names.iter().map(|name| (name.as_str(), text(&"v".repeat(9)))).collect();
    stage.publish("many", &fields, "Scenario until 3");
    stage.publish("many-dead", &fields, "Scenario retry");
    daemon.wait_count("done", 1);
    daemon.wait_count("dead", 1);
    let letter = stage.letter("many-dead");
    // With less room the message would have come back too large for a frame, and what the broker added had to be cut.
    assert_eq!(letter["headers"]["x-warren-altered"], Value::Null);
    let dropped = letter["headers_dropped"].as_str().expect("some have no room");
    assert!(dropped.starts_with("h0000, h0001, "), "{dropped}");
    let kept =
        letter["headers"].as_object().expect("headers").keys().filter(|name| name.starts_with('h')).count();
    assert!((6_300..6_540).contains(&kept), "nearly all are kept: {kept}");
    assert_eq!(daemon.status()["broker"]["connects"], 1);
}
