//! Hosts are renewed after so many tasks, above so much memory, and after a fault; what is queued in one that leaves
//! is run all the same.

use std::collections::{BTreeMap, BTreeSet};

use warren::host::QUEUE_LIMIT;
use warren_tests::ledger::{self, Entry};
use warren_tests::{Daemon, Home, Keys, wait};

use super::stage::stage;

/// One host at a time, many tasks at hand.
const WINDOW: &str = "prefetch = 200\nworkers = 1";

fn starts(home: &Home) -> Vec<Entry> {
    let mut entries = ledger::read(&home.path("record"));
    entries.retain(|entry| entry.what == "start");
    entries
}

#[test]
fn a_host_that_ran_max_tasks_is_replaced() {
    let (home, broker) = stage("limits_max_tasks", "ledger", "workers = 1", "max_tasks = 2");
    let daemon = Daemon::start(&home);
    for n in 1..=5 {
        broker.publish(home.queue(), &format!("t-{n}"), "Ledger ok");
        daemon.wait_count("done", n);
    }
    let pids: Vec<u32> = starts(&home).iter().map(|entry| entry.pid).collect();
    assert!(pids[0] == pids[1] && pids[2] == pids[3], "{pids:?}");
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 3, "{pids:?}");
    assert_eq!(daemon.counts()["faults"], 0);
}

#[test]
fn a_recycled_host_runs_what_is_queued_in_it_and_nothing_is_lost_or_run_twice() {
    let (home, broker) = stage("limits_recycled", "ledger", WINDOW, "max_tasks = 5");
    let daemon = Daemon::start(&home);
    broker.publish_all(home.queue(), "t", (1..=400).map(|_| "Ledger ok".to_owned()));
    daemon.wait_count("done", 400);
    let mut by_host: BTreeMap<u32, usize> = BTreeMap::new();
    let mut tasks = BTreeSet::new();
    for entry in starts(&home) {
        assert_eq!((entry.attempt, entry.redelivered), (1, false), "{entry:?}");
        assert!(tasks.insert(entry.id.clone()), "{} ran twice", entry.id);
        *by_host.entry(entry.pid).or_default() += 1;
    }
    assert_eq!(tasks.len(), 400);
    // It leaves after the fifth, and what was queued in it by then is at most as much as a host takes.
    assert!(by_host.values().all(|count| *count < 5 + QUEUE_LIMIT), "{by_host:?}");
    assert!(by_host.values().any(|count| *count > 5), "tasks were queued in a host that left: {by_host:?}");
    let counts = daemon.counts();
    assert_eq!((&counts["faults"], &counts["requeued"]), (&0.into(), &0.into()));
}

#[test]
fn a_task_that_hangs_in_a_host_that_leaves_is_killed_at_its_limit() {
    let keys = "max_tasks = 1\ntimeout = \"1s\"\nretry = { attempts = 1 }";
    let (home, broker) = stage("limits_leaving", "scenario", WINDOW, keys);
    let daemon = Daemon::start(&home);
    // Until they are known to be short, tasks are not queued behind each other.
    broker.publish_all(home.queue(), "warm", (1..=20).map(|_| "Scenario ok".to_owned()));
    daemon.wait_count("done", 20);
    let texts = (1..=20).map(|n| if n % 2 == 0 { "Scenario ok" } else { "Scenario stubborn" }.to_owned());
    broker.publish_all(home.queue(), "t", texts.take(6));
    daemon.wait_count("dead", 3);
    daemon.wait_count("done", 23);
}

#[test]
fn a_host_above_max_rss_ends_after_its_task() {
    let (home, broker) = stage("limits_max_rss", "scenario", "", "");
    let keys = "prefixes = [\"Thrifty\"]\nmax_rss = \"64MiB\"\nidle_timeout = \"1h\"";
    let rest = home.scenario("thrifty", "scenario", keys)
        + &home.scenario("lavish", "scenario", "prefixes = [\"Lavish\"]\nidle_timeout = \"1h\"");
    home.configure(Keys { rest: &rest, ..Keys::default() });
    let daemon = Daemon::start(&home);
    for text in ["Lavish eat 100000000", "Thrifty eat 100000000"] {
        broker.publish(home.queue(), text, text);
    }
    daemon.wait_count("done", 2);
    let hosts = |name: &str| daemon.handler(name)["hosts"].as_array().map_or(0, Vec::len);
    wait::until("the end of the host above its bound", || (hosts("thrifty") == 0).then_some(()));
    assert_eq!(hosts("lavish"), 1);
    assert_eq!(daemon.counts()["faults"], 0);
}

#[test]
fn what_is_queued_behind_a_panic_is_run_once_all_the_same() {
    let (home, broker) = stage("limits_panic", "scenario", WINDOW, "retry = { attempts = 1 }");
    let daemon = Daemon::start(&home);
    let text = |n: u32| if n.is_multiple_of(10) { "Scenario panic" } else { "Scenario ok" }.to_owned();
    broker.publish_all(home.queue(), "t", (1..=200).map(text));
    daemon.wait_count("dead", 20);
    daemon.wait_count("done", 180);
    let record = home.record();
    for n in 1..=200 {
        let id = format!("t-{n}");
        let runs = record.iter().filter(|run| run.what == "start" && run.id == id).count();
        assert_eq!(runs, 1, "{id}");
    }
    assert_eq!(daemon.counts()["faults"], 20);
}
