//! What the broker delivers again after a lost link: nothing runs twice that the daemon knows to have ended, nothing is
//! taken for what it is not, and nobody is counted as the death of a daemon that lives.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use warren_tests::broker::Letter;
use warren_tests::ledger;
use warren_tests::{Broker, Daemon, Home, Keys, Node, Proxy, wait};

use super::stage::{self, wait_settled};

/// More than make a task `poison`.
const LOSSES: usize = 16;

/// A daemon with the ledger fixture behind a proxy.
struct Stage {
    node: &'static Node,
    proxy: Proxy,
    home: Home,
    broker: Broker,
}

impl Stage {
    fn new(queue: &str, keys: &str) -> Self {
        let node = Node::shared();
        let proxy = Proxy::start(node.port());
        let home = Home::new(&proxy.uri(), queue);
        home.install("fixture-ledger");
        let retry = "retry = { attempts = 2, delay = \"250ms\", jitter = 0.0 }";
        let rest = home.scenario("ledger", "ledger", retry);
        home.configure(Keys { queue: keys, rest: &rest, ..Keys::default() });
        Self { node, proxy, home, broker: Broker::connect(&node.uri()) }
    }

    /// A daemon that stands still before each acknowledgement for as long as [`Stage::hold`] says.
    fn daemon(&self) -> Daemon {
        let failpoints = format!("settle::before-ack=return(hold {})", self.home.path("gate").display());
        let daemon = Daemon::spawn(&self.home, &[("FAILPOINTS", &failpoints)]);
        daemon.wait_notified(0, "READY=1");
        daemon.wait_log(0, &["connected to the broker"]);
        daemon
    }

    fn hold(&self) {
        self.home.release("gate"); // here it is the file that holds
    }

    /// When the daemon stands still before an acknowledgement, has that get lost: the next one is held as well if `again`.
    fn lose_acknowledgement(&self, daemon: &Daemon, again: bool) {
        wait::until("the daemon stands still", || self.home.path("gate.held").exists().then_some(()));
        self.proxy.stall();
        std::fs::remove_file(self.home.path("gate")).expect("remove");
        daemon.status(); // it turns again, and has sent the acknowledgement, which does not arrive
        std::fs::remove_file(self.home.path("gate.held")).expect("remove");
        if again {
            self.hold();
        }
        self.proxy.cut(); // and stalled still, so that the daemon does not come back before it is told to
    }

    /// The next message of the queue, as another consumer gets it; it is acknowledged, or given back.
    fn taken_by_another(&self, acknowledged: bool) -> BasicProperties {
        let queue = self.home.queue();
        let (channel, runtime) = self.broker.channel();
        wait::until("a message for another consumer", || {
            let got = runtime.block_on(channel.basic_get(queue.into(), BasicGetOptions::default()));
            let BasicGetMessage { delivery, .. } = got.expect("get")?;
            let settled = runtime.block_on(async {
                let tag = delivery.delivery_tag;
                if acknowledged {
                    channel.basic_ack(tag, BasicAckOptions::default()).await
                } else {
                    let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                    channel.basic_nack(tag, options).await
                }
            });
            settled.expect("settled");
            Some(delivery.properties)
        })
    }

    /// How often each attempt of each task started.
    fn starts(&self) -> BTreeMap<(String, u32), usize> {
        let mut starts = BTreeMap::new();
        for entry in ledger::read(&self.home.path("record")) {
            if entry.what == "start" {
                *starts.entry((entry.id, entry.attempt)).or_default() += 1;
            }
        }
        starts
    }
}

fn assert_nobody_counted(daemon: &Daemon) {
    let counted = daemon.log().since(0).into_iter().find(|line| line.contains("cut short"));
    assert_eq!(counted, None, "a start was counted as cut short by a daemon that lives");
}

/// Two requests that differ in a header, and in who waits for the answer.
#[test]
fn a_task_without_an_id_is_not_taken_for_one_that_was_running_and_differs_from_it() {
    let node = Node::shared();
    let proxy = Proxy::start(node.port());
    let home = stage::home(&proxy.uri(), "alike", ["", "prefetch = 2\nworkers = 1", ""]);
    let daemon = Daemon::start(&home);
    let broker = Broker::connect(&node.uri());
    let replies = |who: &str| format!("alike.replies.{who}");
    for who in ["alice", "carol"] {
        broker.declare(&replies(who), &[]);
        let mut headers = FieldTable::default();
        headers.insert("customer".into(), AMQPValue::LongString(who.into()));
        let properties = BasicProperties::default().with_headers(headers).with_reply_to(replies(who).into());
        broker.publish_with(home.queue(), properties, b"Scenario hold gate");
    }
    wait::until("one runs and one waits", || {
        let queue = stage::queue(&daemon);
        (queue["running"] == 1 && queue["waiting"] == 1).then_some(())
    });
    let stage = Stage { node, proxy, home, broker };
    stage.proxy.refuse();
    stage.proxy.cut();
    let first = stage.taken_by_another(true);
    assert_eq!(first.reply_to().as_ref().map(ShortString::as_str), Some(&*replies("alice")));
    daemon.wait_log(0, &["subscription lost"]);
    stage.home.release("gate");
    stage.proxy.forward();
    let reply = stage.broker.take(&replies("carol"));
    assert_eq!(reply.header("x-warren-outcome").as_deref(), Some("done"));
    wait::until("acknowledged", || (stage.node.unacknowledged(stage.home.queue()) == Some(0)).then_some(()));
    let starts = stage.home.record().iter().filter(|run| run.what == "start").count();
    assert_eq!(starts, 2, "each of them ran");
    assert_eq!(stage.broker.depth(&replies("alice")), Some(0), "whoever took the first one answers it");
    assert_nobody_counted(&daemon);
}

/// Whatever an outcome led to is confirmed; only the acknowledgement is lost with the link.
#[test]
fn what_ended_before_its_link_was_lost_is_acknowledged_and_not_run_again() {
    for (name, keys) in [("ended_classic", "type = \"classic\""), ("ended_quorum", "type = \"quorum\"")] {
        let stage = Stage::new(name, &format!("{keys}\nprefetch = 1\nworkers = 1"));
        let daemon = stage.daemon();
        let table = [("done", "ok"), ("retried", "until 2"), ("dead", "reject"), ("parent", "emit 1")];
        for (n, (id, text)) in table.into_iter().enumerate() {
            let from = daemon.log().next();
            stage.hold();
            stage.broker.publish(stage.home.queue(), id, &format!("Ledger {text}"));
            stage.lose_acknowledgement(&daemon, false);
            if n % 2 == 1 {
                // It goes to another consumer first, and comes back.
                let taken = stage.taken_by_another(false);
                assert_eq!(taken.message_id().as_ref().map(ShortString::as_str), Some(id));
            }
            stage.proxy.forward();
            daemon.wait_log(from, &["redelivery acknowledged", id]);
            wait_settled(stage.node, &stage.broker, &daemon, &stage.home);
        }
        let ran = [("dead", 1), ("done", 1), ("parent", 1), ("parent/1", 1), ("retried", 1), ("retried", 2)];
        let expected = ran.map(|(id, attempt)| ((id.to_owned(), attempt), 1));
        assert_eq!(stage.starts(), BTreeMap::from(expected), "{name}");
        let letters = stage.broker.take_all(&stage.home.dead());
        assert_eq!(letters.iter().map(Letter::id).collect::<Vec<_>>(), ["dead"], "{name}");
        assert_nobody_counted(&daemon);
    }
}

/// Acknowledgements are lost with each link, and deliveries on their way.
#[test]
fn tasks_under_which_the_link_is_lost_again_and_again_run_once_each() {
    const TASKS: usize = 200;
    let stage = Stage::new("lost_again", "prefetch = 5\nworkers = 2");
    let daemon = stage.daemon();
    stage.broker.publish_all(stage.home.queue(), "t", vec!["Ledger slow 5".to_owned(); TASKS]);
    let ended = || ledger::read(&stage.home.path("record")).iter().filter(|one| one.what == "done").count();
    let mut from = 0;
    for round in 1..=LOSSES {
        wait::until("some more have ended", || (ended() >= round * 10).then_some(()));
        stage.proxy.stall();
        wait::until("what is in hand has ended", || {
            let queue = stage::queue(&daemon);
            (queue["running"] == 0 && queue["waiting"] == 0).then_some(())
        });
        stage.proxy.cut();
        stage.proxy.forward();
        let again = daemon.log().wait(from, |line| line.contains("subscription lost")).expect("lost");
        from =
            daemon.log().wait(again.0, |line| line.contains("consuming  queue=")).expect("consuming").0 + 1;
    }
    daemon.wait_count("done", TASKS as u64);
    wait_settled(stage.node, &stage.broker, &daemon, &stage.home);
    let starts = stage.starts();
    let more: Vec<_> = starts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(more.is_empty(), "ran more than once: {more:?}");
    assert_eq!(starts.len(), TASKS);
    assert_eq!(stage.broker.depth(&stage.home.dead()).unwrap_or(0), 0);
    assert_nobody_counted(&daemon);
}

/// Nothing tells it from others that are equal, so that it has to run again; but nobody died of it.
#[test]
fn a_task_without_an_id_whose_acknowledgement_is_lost_again_and_again_is_no_poison() {
    for (name, keys) in
        [("anonymous_classic", "type = \"classic\""), ("anonymous_quorum", "type = \"quorum\"")]
    {
        let stage = Stage::new(name, &format!("{keys}\nprefetch = 1\nworkers = 1"));
        let daemon = stage.daemon();
        stage.hold();
        stage.broker.publish(stage.home.queue(), "", "Ledger ok");
        for round in 1..=LOSSES {
            stage.lose_acknowledgement(&daemon, round < LOSSES);
            stage.proxy.forward();
        }
        wait::until("the last run", || (stage.starts().len() == LOSSES + 1).then_some(()));
        wait_settled(stage.node, &stage.broker, &daemon, &stage.home);
        assert_eq!(stage.broker.depth(&stage.home.dead()).unwrap_or(0), 0);
        assert_nobody_counted(&daemon);
    }
}

#[test]
fn a_delivery_that_was_on_its_way_when_the_link_was_lost_is_not_counted() {
    let stage = Stage::new("on_its_way", "prefetch = 2\nworkers = 1");
    let daemon = stage.daemon();
    stage.proxy.stall();
    stage.broker.publish(stage.home.queue(), "first", "Ledger ok");
    stage.broker.publish(stage.home.queue(), "", "Ledger ok");
    wait::until("handed over by the broker", || {
        (stage.node.unacknowledged(stage.home.queue()) == Some(2)).then_some(())
    });
    stage.proxy.cut();
    stage.proxy.forward();
    daemon.wait_count("done", 2);
    wait_settled(stage.node, &stage.broker, &daemon, &stage.home);
    assert!(stage.starts().values().all(|count| *count == 1), "{:?}", stage.starts());
    assert_nobody_counted(&daemon);
}
