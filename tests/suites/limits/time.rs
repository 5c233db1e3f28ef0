//! A task that overstays is gone soon after its limit, with everything it started, and its slot takes the next.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

use super::stage::{BOTH_FIXTURES, brood, host_of, install, signal, stage, wait_gone};

/// One task at a time, so that the next needs the slot.
const KEYS: &str = "workers = 1\ntimeout = \"2s\"\nretry = { attempts = 1 }";
/// From its start to the start of the next: the limit and the grace, and then the next host has to start.
const WITHIN: Duration = Duration::from_secs(3);

/// Runs a task that does not stop, has `provoke` see to that, and the next one behind it.
fn overstays(name: &str, plugin: &str, text: &str, provoke: impl Fn(&Home, &Daemon)) {
    // The harness gives a grace of its own, which is shorter than what is promised here.
    let (home, broker) = stage(name, plugin, "", "");
    let rest = home.scenario("scenario", plugin, KEYS).replace("grace = \"300ms\"", "grace = \"1s\"");
    home.configure(Keys { queue: "workers = 2", rest: &rest, ..Keys::default() });
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "bad", text);
    home.wait_run("start", "bad", 1);
    let started = Instant::now();
    broker.publish(home.queue(), "next", "Scenario ok");
    let host = host_of(&daemon, "bad");
    provoke(&home, &daemon);
    home.wait_run("start", "next", 1);
    assert!(started.elapsed() < WITHIN + wait::BUSY, "{:?}", started.elapsed());
    wait_gone(host);
    let letter = broker.take(&home.dead());
    assert_eq!(letter.id(), "bad");
    assert_eq!(letter.header("x-warren-reason").as_deref(), Some("timeout"));
    assert_eq!(letter.header("x-warren-error-code").as_deref(), Some("timeout"));
    daemon.wait_count("done", 1);
}

#[test]
fn a_handler_that_spins_is_gone_within_its_limit_and_grace() {
    overstays("limits_spin", "scenario", "Scenario spin", |_, _| {});
}

#[test]
fn so_is_one_whose_process_was_stopped() {
    overstays("limits_stopped", "scenario-c", "Scenario hold gate", |_, daemon| {
        signal(host_of(daemon, "bad"), Signal::STOP);
    });
}

#[test]
fn so_is_one_that_is_deaf_to_sigterm_with_all_that_it_started() {
    for plugin in BOTH_FIXTURES {
        overstays(&format!("limits_brood_{plugin}"), plugin, "Scenario brood", |home, _| {
            brood(home);
        });
    }
}

#[test]
fn the_brood_of_a_task_that_was_killed_is_dead() {
    let keys = "timeout = \"500ms\"\nretry = { attempts = 1 }";
    let (home, broker) = stage("limits_brood_dead", "scenario", "", keys);
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "bad", "Scenario brood");
    let brood = brood(&home);
    daemon.wait_count("dead", 1);
    brood.into_iter().for_each(wait_gone);
}

#[test]
fn a_handler_that_is_slow_to_start_holds_up_no_other() {
    let home = Home::new(&Node::shared().uri(), "limits_slow_start");
    let broker = Broker::connect(&Node::shared().uri());
    for plugin in BOTH_FIXTURES {
        install(&home, plugin);
    }
    let slow = |name: &str, plugin: &str| {
        let keys = format!("prefixes = [\"{name}\"]");
        format!("{}start = \"hold\"\n", home.scenario(&name.to_lowercase(), plugin, &keys))
    };
    let rest =
        slow("Slow", "scenario") + &slow("Late", "scenario-c") + &home.scenario("quick", "scenario", "");
    home.configure(Keys { queue: "prefetch = 10", rest: &rest, ..Keys::default() });
    home.release("start"); // for the trial that every handler passes when the daemon starts
    let daemon = Daemon::start(&home);
    std::fs::remove_file(home.path("start")).expect("remove");
    broker.publish(home.queue(), "slow", "Slow ok");
    broker.publish(home.queue(), "late", "Late ok");
    broker.publish_all(home.queue(), "quick", (1..=20).map(|_| "Scenario ok".to_owned()));
    daemon.wait_count("done", 20);
    assert!(home.record().iter().all(|run| run.id.starts_with("quick")), "the slow ones still start");
    home.release("start");
    daemon.wait_count("done", 22);
    assert_eq!(daemon.counts()["faults"], 0);
}

#[test]
fn a_host_killed_from_outside_costs_the_running_task_one_attempt_and_the_others_nothing() {
    let keys = "retry = { attempts = 3, delay = \"250ms\", jitter = 0.0 }";
    let (home, broker) = stage("limits_killed", "ledger", "prefetch = 100\nworkers = 1", keys);
    let daemon = Daemon::start(&home);
    // Short tasks are queued behind each other in one host.
    broker.publish_all(home.queue(), "warm", (1..=100).map(|_| "Ledger ok".to_owned()));
    daemon.wait_count("done", 100);
    let texts = (1..=40).map(|n| if n == 20 { "Ledger hold gate" } else { "Ledger ok" }.to_owned());
    broker.publish_all(home.queue(), "t", texts);
    let ledger = || warren_tests::ledger::read(&home.path("record"));
    wait::until("the held task", || {
        ledger().iter().any(|entry| entry.id == "t-20" && entry.what == "start").then_some(())
    });
    signal(host_of(&daemon, "t-20"), Signal::KILL);
    home.release("gate");
    daemon.wait_count("done", 140);
    let done = warren_tests::ledger::count(&ledger(), "done");
    for n in 1..=40 {
        let attempt = if n == 20 { 2 } else { 1 };
        assert_eq!(done.get(&(format!("t-{n}"), attempt)), Some(&1), "t-{n}: {done:?}");
    }
    daemon.wait_count("retried", 1);
    let counts = daemon.counts();
    assert_eq!((&counts["faults"], &counts["retried"], &counts["dead"]), (&1.into(), &1.into(), &0.into()));
}
