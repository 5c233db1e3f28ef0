//! Handlers and queues that are held: suspended, resting, paused, at their limit; tasks that are cancelled, and tasks
//! whose start was cut short again and again.

use lapin::options::{BasicGetOptions, BasicNackOptions};
use lapin::types::AMQPValue;
use serde_json::Value;
use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

const ONE_ATTEMPT: &str = "retry = { attempts = 1 }";

/// A home with the scenario fixture as `scenario` and as `bystander`, its queue with these keys.
fn stage(queue: &str, keys: &str, queue_keys: &str) -> (Home, Broker) {
    let node = Node::shared();
    let home = Home::new(&node.uri(), queue);
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", keys)
        + &home.scenario("bystander", "scenario", "prefixes = [\"Bystander\"]");
    home.configure(Keys { queue: queue_keys, rest: &rest, ..Keys::default() });
    (home, Broker::connect(&node.uri()))
}

fn wait_state(daemon: &Daemon, handler: &str, state: &str) -> Value {
    wait::until(&format!("handler {handler} is {state}"), || {
        Some(daemon.handler(handler)).filter(|handler| handler["state"] == state)
    })
}

#[test]
fn a_plugin_whose_hosts_keep_dying_is_suspended_and_its_tasks_are_parked() {
    let (home, broker) = stage("hold_suspended", ONE_ATTEMPT, "workers = 2");
    let mut daemon = Daemon::start(&home);
    broker.publish_all(home.queue(), "fatal", (0..5).map(|_| "Scenario abort".to_owned()));
    broker.publish(home.queue(), "good", "Scenario ok");
    let held = wait_state(&daemon, "scenario", "suspended");
    assert!(held["held"].as_str().is_some_and(|why| why.contains("SIGABRT")), "{held}");
    assert!(held["held_for_ms"].as_u64().is_some_and(|left| left <= 300_000), "{held}");
    broker.publish(home.queue(), "beside", "Bystander ok");
    home.wait_run("end", "beside", 1);
    // It ends by itself: the rest are tried one by one, and the good one is done.
    assert_eq!(home.wait_run("end", "good", 1)[0].attempt, 1, "a parked task's attempt does not count");
    daemon.wait_count("dead", 5);
    let counts = daemon.counts();
    assert!(counts["parked"].as_u64() > Some(0), "{counts}");
    broker.wait_depth(&home.dead(), 5);
    wait_state(&daemon, "scenario", "active");
    assert!(daemon.is_running());
}

#[test]
fn one_poisonous_task_suspends_nobody() {
    let keys = "retry = { attempts = 5, delay = \"0s\", jitter = 0.0 }";
    let (home, broker) = stage("hold_poison", keys, "workers = 2");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "poison", "Scenario abort");
    let letter = broker.take(&home.dead());
    assert_eq!(letter.header("x-warren-reason").as_deref(), Some("poison"));
    assert_eq!(letter.header("x-warren-attempt").as_deref(), Some("5"));
    assert_eq!(daemon.handler("scenario")["state"], "active");
    assert_eq!(daemon.counts()["parked"], 0);
}

#[test]
fn resume_lifts_a_suspension() {
    let (home, broker) = stage("hold_lifted", ONE_ATTEMPT, "workers = 1");
    let daemon = Daemon::start(&home);
    // Each death after the first three suspends it for twice as long: here for 8 s at last.
    broker.publish_all(home.queue(), "fatal", (0..6).map(|_| "Scenario abort".to_owned()));
    daemon.wait_count("dead", 6);
    wait_state(&daemon, "scenario", "suspended");
    let reply = daemon.ask(&["handler", "resume", "scenario"]);
    assert_eq!(reply["state"], "active");
    broker.publish(home.queue(), "good", "Scenario ok");
    assert_eq!(home.wait_run("end", "good", 1).len(), 1);
    assert_eq!(daemon.handler("scenario")["state"], "active");
}

#[test]
fn a_handler_that_fails_almost_always_rests_when_it_is_configured_so() {
    let keys =
        "retry = { attempts = 1 }\nbreaker = { rate = 0.75, tasks = 4, window = \"1m\", rest = \"1s\" }";
    let (home, broker) = stage("hold_breaker", keys, "workers = 1");
    let daemon = Daemon::start(&home);
    let texts = ["Scenario ok", "Scenario retry", "Scenario panic", "Scenario retry", "Scenario ok"];
    broker.publish_all(home.queue(), "t", texts.map(str::to_owned));
    let line = daemon.wait_log(0, &["handler held", "resting"]);
    assert!(line.contains("3 of its last 4 tasks failed within 1m"), "{line}");
    assert_eq!(home.wait_run("end", "t-5", 1).len(), 1, "it ran after the rest");
    daemon.wait_count("parked", 1);
}

#[test]
fn a_paused_handler_is_given_nothing_and_others_go_on() {
    let (home, broker) = stage("hold_handler", "", "workers = 2");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "running", "Scenario hold gate");
    home.wait_run("start", "running", 1);
    assert_eq!(daemon.ask(&["handler", "pause", "scenario"])["state"], "paused");
    broker.publish(home.queue(), "later", "Scenario ok");
    broker.publish(home.queue(), "beside", "Bystander ok");
    home.wait_run("end", "beside", 1);
    let parked = broker.take(&format!("{}.retry.30000", home.queue()));
    assert_eq!((parked.id(), parked.text.as_str()), ("later", "Scenario ok"));
    assert_eq!(parked.header("x-warren-attempt").as_deref(), Some("1"), "its attempt is not counted");
    home.release("gate");
    assert_eq!(home.wait_run("end", "running", 1).len(), 1, "what ran finishes");
    assert_eq!(daemon.reload()["ok"], true);
    assert_eq!(daemon.handler("scenario")["state"], "paused", "a pause outlasts a reload");
    assert_eq!(daemon.ask(&["handler", "resume", "scenario"])["state"], "active");
    // What its delay queue does after 30 s.
    broker.publish_with(home.queue(), parked.properties, parked.text.as_bytes());
    assert_eq!(home.wait_run("end", "later", 1)[0].attempt, 1);
    let refused = daemon.warrenctl(&["handler", "pause", "nobody"]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bystander, scenario"));
}

#[test]
fn a_paused_queue_is_not_consumed_and_stays_ready() {
    let (home, broker) = stage("hold_queue", "", "prefetch = 3\nworkers = 1");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "running", "Scenario hold gate");
    home.wait_run("start", "running", 1);
    broker.publish_all(home.queue(), "waits", (0..2).map(|_| "Scenario ok".to_owned()));
    wait::until("two wait", || (daemon.status()["queues"][0]["waiting"] == 2).then_some(()));
    assert_eq!(daemon.ask(&["queue", "pause", home.queue()])["state"], "paused");
    broker.wait_depth(home.queue(), 2);
    broker.publish(home.queue(), "new", "Scenario ok");
    home.release("gate");
    daemon.wait_count("done", 1);
    let status = daemon.status();
    assert_eq!((&status["queues"][0]["state"], &status["ready"]), (&"paused".into(), &true.into()));
    assert_eq!(broker.depth(home.queue()), Some(3));
    assert_eq!(daemon.reload()["ok"], true);
    assert_eq!(daemon.status()["queues"][0]["state"], "paused", "a pause outlasts a reload");
    daemon.ask(&["queue", "resume", home.queue()]);
    daemon.wait_count("done", 4);
    // They came back from here unstarted: that is no start cut short.
    assert!(!daemon.log().since(0).iter().any(|line| line.contains("cut short")));
    assert_eq!(daemon.warrenctl(&["queue", "pause", "nowhere"]).status.code(), Some(65));
}

#[test]
fn a_cancelled_task_is_a_dead_letter_whether_it_runs_or_waits() {
    let (home, broker) = stage("hold_cancel", "timeout = \"10m\"", "prefetch = 2\nworkers = 2");
    let mut daemon = Daemon::start(&home);
    broker.publish(home.queue(), "polite", "Scenario sleep 600000");
    broker.publish(home.queue(), "deaf", "Scenario stubborn");
    home.wait_run("start", "polite", 1);
    home.wait_run("start", "deaf", 1);
    broker.publish(home.queue(), "waits", "Scenario ok");
    wait::until("one waits", || (daemon.status()["queues"][0]["waiting"] == 1).then_some(()));
    for (id, was) in [("waits", "waiting"), ("polite", "running"), ("deaf", "running")] {
        let reply = daemon.ask(&["cancel", id]);
        assert_eq!((&reply["cancelled"][0]["id"], &reply["cancelled"][0]["was"]), (&id.into(), &was.into()));
    }
    daemon.wait_count("dead", 3);
    broker.wait_depth(&home.dead(), 3);
    for letter in broker.take_all(&home.dead()) {
        assert_eq!(letter.header("x-warren-reason").as_deref(), Some("cancelled"), "{letter:?}");
    }
    assert!(home.record().iter().all(|run| run.id != "waits"), "it never started");
    assert_eq!(daemon.warrenctl(&["cancel", "polite"]).status.code(), Some(65), "it is gone");
    assert_eq!(daemon.handler("scenario")["state"], "active");
    broker.publish(home.queue(), "next", "Scenario ok");
    assert_eq!(home.wait_run("end", "next", 1).len(), 1, "the slots are free again");
    assert!(daemon.terminate().success());
}

#[test]
fn tasks_of_a_handler_at_its_limit_never_fill_the_window() {
    let (home, broker) = stage("hold_crowd", "workers = 1", "prefetch = 1\nworkers = 4");
    let daemon = Daemon::start(&home);
    broker.publish_all(home.queue(), "slow", (0..8).map(|_| "Scenario hold gate".to_owned()));
    home.wait_run("start", "slow-1", 1);
    broker.publish(home.queue(), "quick", "Bystander ok");
    home.wait_run("end", "quick", 1);
    home.release("gate");
    daemon.wait_count("done", 9);
    let runs = home.wait_ends(9);
    assert!(runs.iter().all(|run| run.attempt == 1), "{runs:?}");
}

#[test]
fn what_waits_for_half_of_the_consumer_timeout_is_given_back_and_done_later() {
    let (home, broker) = stage("hold_aged", "workers = 1", "prefetch = 2\nworkers = 1");
    let rest = home.scenario("scenario", "scenario", "");
    let (queue, broker_keys) = ("prefetch = 2\nworkers = 1", "consumer_timeout = \"2s\"");
    home.configure(Keys { queue, broker: broker_keys, rest: &rest, ..Keys::default() });
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "running", "Scenario hold gate");
    home.wait_run("start", "running", 1);
    broker.publish(home.queue(), "waits", "Scenario ok");
    daemon.wait_log(0, &["half of broker.consumer_timeout"]);
    wait::until("given back", || (daemon.counts()["requeued"].as_u64() >= Some(1)).then_some(()));
    home.release("gate");
    daemon.wait_count("done", 2);
    assert_eq!(home.wait_run("end", "waits", 1)[0].attempt, 1);
}

/// A task as it is after a consumer got it and vanished: redelivered, with so many starts cut short on record.
fn redelivered(broker: &Broker, queue: &str, id: &str, starts: i32) {
    let header = ("x-warren-redeliveries", AMQPValue::LongInt(starts));
    broker.publish_with_header(queue, id, header, "Scenario ok");
    let (channel, runtime) = broker.channel();
    runtime.block_on(async {
        let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("get");
        let tag = got.expect("a message").delivery.delivery_tag;
        channel.basic_nack(tag, BasicNackOptions { requeue: true, multiple: false }).await.expect("nack");
        channel.close(200, "done".into()).await.expect("close");
    });
}

#[test]
fn a_task_whose_starts_keep_being_cut_short_is_poison_and_others_only_carry_the_count() {
    let (home, broker) = stage("hold_recount", "", "workers = 1");
    broker.declare(home.queue(), &[]);
    redelivered(&broker, home.queue(), "tenth", 10);
    let daemon = Daemon::start(&home);
    let letter = broker.take(&home.dead());
    assert_eq!((letter.id(), letter.header("x-warren-reason").as_deref()), ("tenth", Some("poison")));
    assert!(
        letter.header("x-warren-error").is_some_and(|text| text.contains("11 of its starts")),
        "{letter:?}"
    );
    assert!(home.record().is_empty(), "it was not started");

    daemon.ask(&["queue", "pause", home.queue()]);
    wait::until("no consumer", || (broker.consumers(home.queue()) == Some(0)).then_some(()));
    redelivered(&broker, home.queue(), "ninth", 9);
    daemon.ask(&["queue", "resume", home.queue()]);
    daemon.wait_log(0, &["cut short", "task_id=ninth", "starts_cut_short=10"]);
    assert_eq!(home.wait_run("end", "ninth", 1).len(), 1);
    daemon.wait_count("done", 1);
    assert_eq!(broker.depth(home.queue()), Some(0));
}

#[test]
fn a_daemon_that_is_killed_again_and_again_under_a_task_counts_its_starts() {
    let (home, broker) = stage("hold_killed", "", "workers = 1");
    let mut daemon = Daemon::start(&home);
    broker.publish(home.queue(), "held", "Scenario hold gate");
    for start in 1..=3 {
        home.wait_run("start", "held", start);
        daemon.kill();
        daemon = Daemon::start(&home);
        daemon.wait_log(0, &["cut short", "task_id=held", &format!("starts_cut_short={start}")]);
    }
    home.release("gate");
    daemon.wait_count("done", 1);
    assert_eq!(home.wait_run("start", "held", 4).len(), 4);
    assert_eq!(home.wait_run("end", "held", 1)[0].attempt, 1, "the attempt is that of the outcome");
}
