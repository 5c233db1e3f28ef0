//! The broker's own trouble in the middle of a run: a memory alarm, a link that is cut, one that goes silent.

use std::io::{BufRead, BufReader};

use rustix::process::{Pid, Signal, kill_process};
use warren_tests::{Home, Node, Proxy};

use super::rig::{MANY, Rig, ended};

/// `warrenctl` reaches the broker through the proxy, the test does not.
fn behind(proxy: &Proxy, rig: Rig) -> Rig {
    let home = Home::new(&proxy.uri(), rig.home.queue());
    Rig { home, ..rig }
}

#[test]
fn a_replay_waits_out_a_memory_alarm_and_looking_goes_on_meanwhile() {
    // A node of its own: the alarm would reach every other test.
    let node = Node::own();
    let rig = Rig::crowd(&node, "dead_alarm", 60);
    node.alarm(true);
    let mut child = rig.spawn(&["replay", "--limit", "50", "--json"]);
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    assert!(line.contains("the broker blocks publishers"), "{line}");
    assert_eq!(rig.broker.depth(rig.home.queue()), Some(0));
    assert_eq!(rig.ask(&["list", "--limit", "10"])["matched"], 10);
    node.alarm(false);
    let (report, _) = ended(&child.wait_with_output().expect("its end"), 0);
    assert_eq!((&report["replayed"], &report["left"]), (&50.into(), &10.into()));
    rig.broker.wait_depth(rig.home.queue(), 50);
}

#[test]
fn a_replay_whose_link_is_cut_loses_nothing_and_tells_what_it_did() {
    let proxy = Proxy::start(Node::shared().port());
    let rig = behind(&proxy, Rig::crowd(Node::shared(), "dead_cut", MANY));
    let child = rig.spawn(&["replay", "--all", "--json"]);
    rig.wait_for_some();
    assert_eq!(proxy.cut(), 2, "one connection fetches, the other one publishes");
    let (report, said) = ended(&child.wait_with_output().expect("its end"), 75);
    let replayed = report["replayed"].as_u64().expect("a number");
    assert!(replayed >= 19 && report["left"] == u64::from(MANY) - replayed, "{report} {said}");
    assert_eq!(report["ended"], "broken");
    rig.wait_for_all(MANY);
    assert!(rig.broker.depth(&rig.home.dead()) > Some(0), "it was in the middle");
    // The one whose confirm was on its way, and the last one that was acknowledged.
    let twice = rig.assert_none_is_lost(MANY);
    assert!(twice <= 2, "{twice} are in both queues");
}

#[test]
fn ctrl_c_ends_a_replay_whose_broker_has_gone_silent() {
    let proxy = Proxy::start(Node::shared().port());
    let rig = behind(&proxy, Rig::crowd(Node::shared(), "dead_silent", MANY));
    let child = rig.spawn(&["replay", "--all", "--json"]);
    rig.wait_for_some();
    proxy.stall();
    kill_process(Pid::from_child(&child), Signal::INT).expect("it still runs");
    let (report, said) = ended(&child.wait_with_output().expect("its end"), 130);
    assert!(said.contains("interrupted"), "{said}");
    assert!(report["replayed"].as_u64() >= Some(19), "{report}");
    // The broker has not heard of its end.
    proxy.cut();
    rig.wait_for_all(MANY);
    let twice = rig.assert_none_is_lost(MANY);
    assert!(twice <= 2, "{twice} are in both queues");
}

#[test]
fn a_broker_that_refuses_every_letter_is_not_asked_for_ever() {
    let node = Node::shared();
    let rig = Rig::crowd(node, "dead_refused", 40);
    // May look and remove, and may not publish.
    node.add_user("onlooker", "onlooker", ["", "", "^dead_refused"]);
    let home = Home::new(&node.uri().replace("guest:guest", "onlooker:onlooker"), rig.home.queue());
    let rig = Rig { home, ..rig };
    let (report, said) = rig.ends(&["replay", "--all", "--json"], 69);
    assert!(said.contains("refused 10 letters in a row") && said.contains("amq.default"), "{said}");
    assert_eq!((&report["replayed"], &report["left"]), (&0.into(), &40.into()));
    assert_eq!(report["failed"].as_array().map(Vec::len), Some(10));
    rig.broker.wait_depth(&rig.home.dead(), 40);
    assert_eq!(rig.assert_none_is_lost(40), 0);
}
