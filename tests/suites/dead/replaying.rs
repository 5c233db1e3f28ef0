//! A replay starts a task afresh, and no letter is lost on the way.

use std::collections::BTreeSet;

use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::types::{AMQPValue, FieldTable};
use rustix::process::{Pid, Signal, kill_process};
use warren_tests::Node;

use super::rig::{MANY, Rig, ended, is_ours, original};

#[test]
fn a_replay_has_the_original_s_body_and_properties_and_nothing_of_ours() {
    let rig = Rig::with_dead_letters(Node::shared(), "replay_original", "workers = 4");
    let report = rig.ask(&["replay", "--id", "never", "--id", "bytes"]);
    assert_eq!(
        (&report["replayed"], &report["left"], &report["failed"]),
        (&2.into(), &6.into(), &serde_json::json!([]))
    );
    let letters = rig.broker.take_all(rig.home.queue());
    let find = |id: &str| letters.iter().find(|letter| letter.id() == id).expect("replayed");
    assert_eq!(
        (&find("never").properties, find("never").text.as_str()),
        (&original(), "Task 7: Scenario reject")
    );
    assert_eq!(find("bytes").text, "Scenario \u{fffd}\u{0}");
    assert!(find("bytes").properties.headers().is_none());
    // The one without an id of its producer's keeps ours, and nothing else.
    rig.ask(&["replay", "--reason", "rejected"]);
    let ours = rig.broker.take(rig.home.queue());
    let names: Vec<_> = ours.properties.headers().iter().flatten().map(|(name, _)| name.clone()).collect();
    assert!(names.iter().all(is_ours) && names.len() == 1, "{names:?}");
    assert_eq!(ours.header("x-warren-id").map(|id| id.len()), Some(36));
    assert_eq!(rig.ids(&[]), ["empty", "fatal", "late", "stray", "worn"]);
}

#[test]
fn a_replayed_task_runs_again_from_its_first_attempt() {
    let rig = Rig::new(Node::shared(), "replay_again");
    let daemon = rig.daemon("");
    let runs = |id: &str, count: usize| -> Vec<u32> {
        rig.home.wait_run("start", id, count).iter().map(|run| run.attempt).collect()
    };
    rig.broker.publish(rig.home.queue(), "worn", "Scenario retry");
    let expiring = BasicProperties::default().with_message_id("old".into()).with_expiration("600000".into());
    rig.broker.publish_with(rig.home.queue(), expiring, b"Scenario reject");
    daemon.wait_count("dead", 2);
    rig.broker.wait_depth(&rig.home.dead(), 2);
    assert_eq!((runs("worn", 2), runs("old", 1)), (vec![1, 2], vec![1]));
    let first = rig.ask(&["show", "worn"])["first_failure_ms"].as_u64().expect("a time");

    assert_eq!(rig.ask(&["replay", "--all"])["replayed"], 2);
    daemon.wait_count("dead", 4);
    assert_eq!((runs("worn", 4), runs("old", 2)), (vec![1, 2, 1, 2], vec![1, 1]));
    rig.broker.wait_depth(&rig.home.dead(), 2);
    let again = rig.ask(&["show", "worn"]);
    assert_eq!(again["attempts"], 2);
    assert!(again["first_failure_ms"].as_u64().expect("a time") >= first);
    assert_eq!(rig.broker.depth(rig.home.queue()), Some(0));
}

#[test]
fn what_dies_again_at_once_is_not_replayed_in_circles() {
    let rig = Rig::new(Node::shared(), "replay_circle");
    let daemon = rig.daemon("workers = 4");
    rig.broker.publish_all(rig.home.queue(), "c", (0..40).map(|_| "Scenario reject".to_owned()));
    daemon.wait_count("dead", 40);
    rig.broker.wait_depth(&rig.home.dead(), 40);
    assert_eq!(rig.ask(&["replay", "--all"])["replayed"], 40);
    daemon.wait_count("dead", 80);
    rig.broker.wait_depth(&rig.home.dead(), 40);
    assert_eq!(rig.home.record().iter().filter(|run| run.what == "start").count(), 80);
}

#[test]
fn a_letter_goes_where_it_came_from_or_where_it_is_told() {
    let rig = Rig::new(Node::shared(), "replay_where");
    for queue in ["replay_where", "replay_where.dead", "replay_where_b"] {
        rig.broker.declare(queue, &[]);
    }
    let from = |queue: &str| {
        let mut headers = FieldTable::default();
        headers.insert("x-warren-queue".into(), AMQPValue::LongString(queue.into()));
        BasicProperties::default().with_message_id(queue.into()).with_headers(headers)
    };
    for queue in ["replay_where_b", "replay_where_gone", "replay_where"] {
        rig.broker.publish_with("replay_where.dead", from(queue), b"x");
    }
    // One queue is gone: its letter stays and is named, the others go.
    let (report, said) = rig.ends(&["replay", "--all", "--json"], 65);
    assert_eq!((&report["replayed"], &report["left"]), (&2.into(), &1.into()));
    let failed = &report["failed"][0];
    assert_eq!((&failed["id"], &failed["to"]), (&"replay_where_gone".into(), &"replay_where_gone".into()));
    assert!(
        failed["why"].as_str().expect("text").contains("there is no queue `replay_where_gone`"),
        "{failed}"
    );
    assert!(said.contains("one letter could not be replayed and stays"), "{said}");
    assert_eq!(rig.broker.depth("replay_where"), Some(1));
    assert_eq!(rig.broker.depth("replay_where_b"), Some(1));
    let output = rig.run(&["replay", "--id", "replay_where_gone"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.starts_with(
            "0 letters replayed, 1 left in replay_where.dead\nnot replayed: replay_where_gone to"
        )
    );

    let report = rig.ask(&["replay", "--all", "--to", "replay_where_b"]);
    assert_eq!((&report["replayed"], &report["left"]), (&1.into(), &0.into()));
    assert_eq!(rig.broker.depth("replay_where_b"), Some(2));
}

#[test]
fn a_full_queue_stops_a_replay_and_the_letters_stay() {
    let rig = Rig::new(Node::shared(), "replay_full");
    let reject = AMQPValue::LongString("reject-publish".into());
    rig.broker.declare("replay_full", &[("x-max-length", AMQPValue::LongInt(5)), ("x-overflow", reject)]);
    rig.broker.declare("replay_full.dead", &[]);
    rig.broker.publish_all("replay_full.dead", "n", (1..=20).map(|n| format!("number {n}")));
    rig.broker.wait_depth("replay_full.dead", 20);
    let (report, said) = rig.ends(&["replay", "--all", "--json"], 75);
    assert!(said.contains("queue `replay_full` does not take the message: it is full"), "{said}");
    let replayed = report["replayed"].as_u64().expect("a number");
    assert_eq!(report["left"], 20 - replayed);
    assert_eq!(rig.broker.depth("replay_full"), Some(replayed as u32));
    assert_eq!(rig.assert_none_is_lost(20), 0);
}

#[test]
fn others_on_the_dead_queue_are_not_disturbed_and_nothing_is_sent_twice() {
    let rig = Rig::crowd(Node::shared(), "replay_beside", 400);
    // Somebody else holds the ten oldest.
    let (channel, runtime) = rig.broker.channel();
    let get = || runtime.block_on(channel.basic_get(rig.home.dead().into(), BasicGetOptions::default()));
    let held: Vec<_> = (0..10).map(|_| get().expect("get").expect("a letter").delivery).collect();
    // Two at once.
    let words = ["replay", "--all", "--json"];
    let (one, two) = (rig.spawn(&words), rig.spawn(&words));
    let reports = [one, two].map(|child| ended(&child.wait_with_output().expect("its end"), 0).0);
    let replayed: u64 = reports.iter().filter_map(|report| report["replayed"].as_u64()).sum();
    assert_eq!(replayed, 390, "{reports:?}");
    rig.broker.wait_depth(rig.home.queue(), 390);
    // The other one takes one of its ten, and gives the rest back.
    let ack = channel.basic_ack(held[0].delivery_tag, BasicAckOptions::default());
    runtime.block_on(ack).expect("ack");
    runtime.block_on(channel.close(200, "".into())).expect("close");
    rig.broker.wait_depth(&rig.home.dead(), 9);
    let sent: BTreeSet<String> = rig.texts(rig.home.queue()).into_keys().collect();
    let dead: BTreeSet<String> = rig.texts(&rig.home.dead()).into_keys().collect();
    assert_eq!((sent.len(), dead.len(), sent.intersection(&dead).count()), (390, 9, 0));
}

#[test]
fn a_replay_that_is_killed_in_the_middle_loses_nothing() {
    let rig = Rig::crowd(Node::shared(), "replay_killed", MANY);
    let mut child = rig.spawn(&["replay", "--all"]);
    rig.wait_for_some();
    kill_process(Pid::from_child(&child), Signal::KILL).expect("it still runs");
    assert!(!child.wait().expect("its end").success());
    rig.wait_for_all(MANY);
    assert!(rig.broker.depth(&rig.home.dead()) > Some(0), "it was in the middle");
    let twice = rig.assert_none_is_lost(MANY);
    assert!(twice <= 1, "{twice} are in both queues: more than the one that was on its way");
}

#[test]
fn ctrl_c_stops_a_replay_between_two_letters_and_it_tells_the_truth() {
    let rig = Rig::crowd(Node::shared(), "replay_interrupted", MANY);
    let child = rig.spawn(&["replay", "--all", "--json"]);
    rig.wait_for_some();
    kill_process(Pid::from_child(&child), Signal::INT).expect("it still runs");
    let (report, said) = ended(&child.wait_with_output().expect("its end"), 130);
    assert!(said.contains("interrupted"), "{said}");
    let replayed = report["replayed"].as_u64().expect("a number");
    assert_eq!(
        (&report["ended"], &report["left"]),
        (&"interrupted".into(), &(u64::from(MANY) - replayed).into())
    );
    rig.broker.wait_depth(rig.home.queue(), replayed as u32);
    rig.broker.wait_depth(&rig.home.dead(), MANY - replayed as u32);
    assert_eq!(rig.assert_none_is_lost(MANY), 0);
}
