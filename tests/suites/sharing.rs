//! The workers of a queue are shared between handlers: by run time and weight, whatever came first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lapin::types::AMQPValue;
use warren_tests::ledger::{self, Entry};
use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

/// A home with the ledger fixture as two handlers with these keys, and its queue.
fn stage(name: &str, queue: &str, alpha: &str, beta: &str) -> (Home, Broker) {
    let home = Home::new(&Node::shared().uri(), name);
    home.install("fixture-ledger");
    let rest = home.scenario("alpha", "ledger", &format!("prefixes = [\"Alpha\"]\n{alpha}"))
        + &home.scenario("beta", "ledger", &format!("prefixes = [\"Beta\"]\n{beta}"));
    home.configure(Keys { queue, rest: &rest, ..Keys::default() });
    let broker = Broker::connect(&Node::shared().uri());
    broker.declare(home.queue(), &[]);
    (home, broker)
}

/// The starts in the ledger, in order.
fn starts(home: &Home) -> Vec<Entry> {
    let entries = ledger::read(&home.path("record"));
    entries.into_iter().filter(|entry| entry.what == "start").collect()
}

fn publish(broker: &Broker, home: &Home, prefix: &str, text: &str, count: usize) {
    broker.publish_all(home.queue(), prefix, (0..count).map(|_| text.to_owned()));
}

/// 100 tasks of one handler before it, 600 behind.
#[test]
fn a_task_of_another_handler_in_a_flood_is_started_as_soon_as_it_is_in_the_window() {
    for (name, queue, window) in [
        ("sharing_flood_wide", "prefetch = 20\nworkers = 2", 40),
        ("sharing_flood_narrow", "prefetch = 1\nworkers = 4", 4),
    ] {
        let (home, broker) = stage(name, queue, "", "");
        publish(&broker, &home, "before", "Alpha slow 10", 100);
        broker.publish(home.queue(), "one", "Beta slow 10");
        publish(&broker, &home, "behind", "Alpha slow 10", 600);
        let daemon = Daemon::start(&home);
        // A host of the other handler is started when its task comes: that takes as long as some tasks run.
        let at = wait::until("the other handler's task", || starts(&home).iter().position(|e| e.id == "one"));
        let in_window = 101 - window;
        assert!(at < in_window + 45, "{name}: in the window after {in_window}, started after {at}");
        daemon.wait_count("done", 701);
    }
}

/// Two thousand tasks of each in the window, those of the lighter one first.
#[test]
fn handlers_share_the_run_time_by_their_weights_and_a_reload_changes_nothing() {
    const SPAN: u64 = 10_000_000;
    let (home, broker) = stage("sharing_weight", "prefetch = 2000\nworkers = 2", "weight = 3", "");
    publish(&broker, &home, "light", "Beta slow 10", 2_000);
    publish(&broker, &home, "heavy", "Alpha slow 10", 2_000);
    let daemon = Daemon::start(&home);
    wait::until("all of them in the window", || (daemon.counts()["delivered"] == 4_000).then_some(()));
    let begin = ledger::read(&home.path("record")).last().map_or(0, |entry| entry.at);
    let mut ledger = ledger::Follower::new(home.path("record"));
    let mut wait_for = |what, end| {
        wait::until(what, || {
            ledger.read_on();
            ledger.entries.last().filter(|last| last.at > end).map(drop)
        });
    };
    wait_for("half of the time", begin + SPAN / 2);
    daemon.reload();
    wait_for("the time", begin + SPAN);
    // Run time of those that ended within the span.
    let mut started = BTreeMap::new();
    let (mut heavy, mut light) = (0, 0);
    for entry in ledger.entries.iter().filter(|entry| entry.at <= begin + SPAN) {
        if entry.what == "start" {
            started.insert(&entry.id, entry.at);
        } else if let Some(start) = started.remove(&entry.id).filter(|start| *start >= begin) {
            *(if entry.id.starts_with("heavy") { &mut heavy } else { &mut light }) += entry.at - start;
        }
    }
    let ratio = heavy as f64 / light as f64;
    println!("run time {heavy} and {light} us: {ratio:.2} to 1");
    assert!((2.7..=3.3).contains(&ratio), "{ratio:.2} to 1, expected 3 to 1");
    assert_eq!(daemon.handler("alpha")["weight"], 3);
    assert_eq!(daemon.handler("beta")["weight"], 1);
}

#[test]
fn many_handlers_that_each_ran_a_task_are_not_as_many_processes() {
    const HANDLERS: usize = 40;
    let home = Home::new(&Node::shared().uri(), "sharing_idle");
    home.install("fixture-ledger");
    let handler = |n| home.scenario(&format!("h{n}"), "ledger", &format!("prefixes = [\"H{n}\"]"));
    let rest: String = (0..HANDLERS).map(handler).collect();
    home.configure(Keys {
        queue: "workers = 2",
        plugins: "max_idle_hosts = 3",
        rest: &rest,
        ..Keys::default()
    });
    let broker = Broker::connect(&Node::shared().uri());
    let daemon = Daemon::start(&home);
    for n in 0..HANDLERS {
        broker.publish(home.queue(), &format!("t{n}"), &format!("H{n} ok"));
    }
    daemon.wait_count("done", HANDLERS as u64);
    let hosts = || {
        let handlers = daemon.status()["handlers"].as_array().cloned().unwrap_or_default();
        handlers.iter().map(|handler| handler["hosts"].as_array().map_or(0, Vec::len)).sum::<usize>()
    };
    // Those that were told to end take a moment.
    wait::until("three hosts are left", || (hosts() <= 3).then_some(()));
    assert_eq!(hosts(), 3, "and those are kept");
}

/// Tasks of the limited handler come more than twice as fast as they may start, and those of the other one beside them.
#[test]
fn a_rate_holds_beside_a_handler_that_has_none_and_costs_no_attempt() {
    const SPAN: Duration = Duration::from_secs(20);
    /// Tells a wait behind the limited tasks from a busy machine: they would wait for half a minute in the end.
    const WAIT: u64 = 3_000_000;
    let (home, broker) = stage("sharing_rate", "prefetch = 8\nworkers = 2", "rate = \"5/s\"", "");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "limited", "Alpha ok");
    wait::until("the first of them", || (!starts(&home).is_empty()).then_some(()));
    let begin = Instant::now();
    let mut published = BTreeMap::new();
    while begin.elapsed() < SPAN + Duration::from_secs(1) {
        let id = format!("free-{}", published.len());
        published.insert(id.clone(), ledger::now());
        broker.publish(home.queue(), &id, "Beta ok");
        if published.len().is_multiple_of(2) {
            broker.publish(home.queue(), &format!("limited-{}", published.len()), "Alpha ok");
        }
        if published.len() == 200 {
            daemon.reload();
        }
        // The producer's pace.
        std::thread::sleep(Duration::from_millis(40));
    }
    let starts = wait::until("every task of the other handler", || {
        let starts = starts(&home);
        let free = starts.iter().filter(|entry| published.contains_key(&entry.id)).count();
        (free == published.len()).then_some(starts)
    });
    assert!(starts.iter().all(|entry| entry.attempt == 1));
    let limited: Vec<u64> =
        starts.iter().filter(|entry| entry.id.starts_with("limited")).map(|entry| entry.at).collect();
    let within = limited.iter().filter(|at| **at <= limited[0] + SPAN.as_micros() as u64).count();
    let free = starts.iter().filter_map(|entry| Some(entry.at.saturating_sub(*published.get(&entry.id)?)));
    let mut waits: Vec<u64> = free.collect();
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    println!("{within} tasks at 5/s in 20 s; {} others waited {p99} us at most (p99)", waits.len());
    assert!((95..=105).contains(&within), "{within} tasks started in 20 s, expected 100");
    assert!(p99 < WAIT, "a task of the other handler waited {p99} us");
    assert_eq!(daemon.handler("alpha")["rate"], serde_json::json!(["5/s", 1]));
}

/// Ten tasks behind ten thousand, all of them in the window: they get half of the workers as soon as they are there.
#[test]
fn a_tenant_behind_the_flood_of_another_is_served_like_that_one() {
    const FLOOD: u64 = 10_000;
    let keys = "fair_by = \"header:tenant\"";
    let (home, broker) = stage("sharing_tenants", "prefetch = 2600\nworkers = 4", keys, "");
    publish(&broker, &home, "flood", "Alpha slow 10", FLOOD as usize);
    let daemon = Daemon::start(&home);
    wait::until("the flood in the window", || (daemon.counts()["delivered"] == FLOOD).then_some(()));
    daemon.reload();
    for n in 0..10 {
        let tenant = ("tenant", AMQPValue::LongString("b".into()));
        broker.publish_with_header(home.queue(), &format!("tenant-{n}"), tenant, "Alpha slow 100");
    }
    let is_tenants = |entry: &&Entry| entry.id.starts_with("tenant");
    let entries = wait::until("the tenant's tasks", || {
        let entries = ledger::read(&home.path("record"));
        (entries.iter().filter(is_tenants).filter(|entry| entry.what == "done").count() == 10)
            .then_some(entries)
    });
    let first = entries.iter().position(|entry| is_tenants(&entry)).expect("a start");
    let last = entries.iter().rposition(|entry| is_tenants(&entry)).expect("an end");
    // Two workers each for half a second; and on a machine that is busy a start takes its time as well.
    let beside =
        entries[first..last].iter().filter(|entry| entry.what == "start" && !is_tenants(entry)).count();
    let took = (entries[last].at - entries[first].at) as f64 / 1e6;
    println!(
        "{beside} of the flood started beside them; {took:.2} s for a second of run time on four workers"
    );
    assert!(beside <= 150, "{beside} of the flood started beside them, expected 100");
    assert_eq!(daemon.handler("alpha")["fair_by"], "header:tenant");
}

#[test]
fn two_tasks_of_one_key_never_run_at_once_and_others_do() {
    const ACCOUNTS: usize = 4;
    let keys = "exclusive_by = \"header:account\"\nretry = { attempts = 3, delay = \"100ms\", jitter = 0.0 }";
    let (home, broker) = stage("sharing_exclusive", "prefetch = 20\nworkers = 4", keys, "");
    for n in 0..40 {
        let text = if n % 10 == 0 { "Alpha until 2" } else { "Alpha slow 20" };
        let account = ("account", AMQPValue::LongString(format!("account {}", n % ACCOUNTS).into()));
        broker.publish_with_header(home.queue(), &format!("t-{n}"), account, text);
    }
    let daemon = Daemon::start(&home);
    wait::until("some of them", || (starts(&home).len() > 10).then_some(()));
    daemon.reload();
    daemon.wait_count("done", 40);
    let mut running: BTreeMap<usize, String> = BTreeMap::new();
    let mut most = 0;
    for entry in ledger::read(&home.path("record")) {
        let account = entry.id[2..].parse::<usize>().expect("a number") % ACCOUNTS;
        if entry.what == "start" {
            assert_eq!(running.insert(account, entry.id.clone()), None, "beside {}", entry.id);
            most = most.max(running.len());
        } else {
            assert_eq!(running.remove(&account), Some(entry.id));
        }
    }
    assert!(most > 1, "different accounts run at once");
    assert_eq!(daemon.handler("alpha")["exclusive_by"], "header:account");
}
