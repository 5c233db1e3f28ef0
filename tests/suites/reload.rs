//! Reload: what changed advances, what is bad keeps its old generation, and tasks never notice.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use warren_tests::artefacts::Versions;
use warren_tests::daemon::Footprint;
use warren_tests::{Broker, Daemon, Home, Keys, Node, artefacts, wait};

fn stage(queue: &str) -> (Home, Broker) {
    let node = Node::shared();
    let home = Home::new(&node.uri(), queue);
    home.install("fixture-scenario");
    configure(&home, "");
    (home, Broker::connect(&node.uri()))
}

fn configure(home: &Home, more: &str) {
    let rest = home.scenario("scenario", "scenario", "") + more;
    home.configure(Keys { queue: "prefetch = 4\nworkers = 4", rest: &rest, ..Keys::default() });
}

/// The Rust fixture as builds of other versions would be.
fn versions() -> Versions {
    Versions::of(&artefacts::plugin("fixture-scenario"))
}

fn change<'r>(reload: &'r Value, handler: &str) -> &'r str {
    let rows = reload["handlers"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["handler"] == handler);
    row.unwrap_or_else(|| panic!("no row of {handler}: {reload}"))["change"].as_str().expect("text")
}

#[test]
fn a_new_plugin_that_is_dropped_in_takes_its_tasks_after_sighup() {
    let (home, broker) = stage("reload_new");
    let daemon = Daemon::start(&home);
    home.install_c("torture", "torture.c", &[]);
    let reload = daemon.reload();
    assert_eq!((&reload["ok"], change(&reload, "torture")), (&true.into(), "added"));
    assert_eq!(change(&reload, "scenario"), "unchanged");
    broker.publish(home.queue(), "new", "Torture it");
    daemon.wait_count("done", 1);
}

#[test]
fn a_removed_plugin_leaves_its_running_task_to_finish() {
    let (home, broker) = stage("reload_removed");
    let more = home.scenario("leaving", "scenario", "prefixes = [\"Leaving\"]");
    configure(&home, &more);
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "running", "Leaving hold gate");
    home.wait_run("start", "running", 1);
    configure(&home, "");
    let reload = daemon.reload();
    assert_eq!((&reload["ok"], change(&reload, "leaving")), (&true.into(), "removed"));
    broker.publish(home.queue(), "too-late", "Leaving ok");
    let letter = broker.take(&home.dead());
    assert_eq!(letter.header("x-warren-reason").as_deref(), Some("unroutable"));
    home.release("gate");
    daemon.wait_count("done", 1);
    assert_eq!(home.wait_run("end", "running", 1).len(), 1);
}

#[test]
fn reload_with_bad_config_keeps_old_handlers() {
    let (home, broker) = stage("reload_bad_config");
    let daemon = Daemon::start(&home);
    let before = daemon.handler("scenario");
    let good = fs::read_to_string(home.config()).expect("read");
    for bad in ["[queues", "[queues.x]\nprefetch = 0\n", "[handlers.scenario]\nplugn = \"scenario\"\n"] {
        home.write_config(&format!("{good}{bad}"));
        let reload = daemon.reload();
        assert_eq!(reload["ok"], false, "{bad}");
        assert!(reload["error"].as_str().is_some_and(|error| error.contains("warren.toml")), "{reload}");
        assert_eq!(daemon.handler("scenario")["generation"], before["generation"]);
    }
    let output = daemon.warrenctl(&["reload"]);
    assert!(!output.status.success(), "`warrenctl reload` fails with it");
    broker.publish(home.queue(), "still", "Scenario ok");
    daemon.wait_count("done", 1);
    home.write_config(&good);
    assert_eq!(daemon.reload()["ok"], true);
}

#[test]
fn an_empty_plugins_directory_changes_nothing() {
    let (home, broker) = stage("reload_empty");
    let daemon = Daemon::start(&home);
    fs::remove_file(home.plugins().join("fixture-scenario.so")).expect("remove");
    let reload = daemon.reload();
    assert_eq!(reload["ok"], false);
    assert!(reload["error"].as_str().is_some_and(|error| error.contains("mount")), "{reload}");
    broker.publish(home.queue(), "still", "Scenario ok");
    daemon.wait_count("done", 1);
}

#[test]
fn a_task_finishes_on_the_generation_it_started_on() {
    let (home, broker) = stage("reload_generation");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "old", "Scenario hold gate");
    home.wait_run("start", "old", 1);
    home.install_bytes("fixture-scenario", &versions().version(2));
    assert_eq!(change(&daemon.reload(), "scenario"), "replaced");
    broker.publish(home.queue(), "new", "Scenario ok");
    assert_eq!(home.wait_run("end", "new", 1)[0].version, 2);
    home.release("gate");
    assert_eq!(home.wait_run("end", "old", 1)[0].version, 1);
    daemon.wait_count("done", 2);
    wait::until("the end of the old generation's host", || {
        (daemon.handler("scenario")["hosts"].as_array()?.len() == 1).then_some(())
    });
}

#[test]
fn settings_and_queue_limits_follow_the_configuration() {
    let (home, broker) = stage("reload_settings");
    let daemon = Daemon::start(&home);
    let rest = home.scenario("scenario", "scenario", "prefixes = [\"Szenario\"]");
    home.configure(Keys { queue: "prefetch = 2\nworkers = 7", rest: &rest, ..Keys::default() });
    let reload = daemon.reload();
    assert_eq!(reload["ok"], true, "{reload}");
    broker.publish(home.queue(), "german", "Szenario ok");
    daemon.wait_count("done", 1);
    let queue = daemon.status()["queues"][0].clone();
    assert_eq!((&queue["prefetch"], &queue["workers"]), (&2.into(), &7.into()));
}

#[test]
fn a_plugin_overwritten_in_place_under_load_never_hurts_what_runs() {
    const TASKS: usize = 300;
    let (home, broker) = stage("reload_overwrite");
    let daemon = Daemon::start(&home);
    let path = home.plugins().join("fixture-scenario.so");
    let versions = versions();
    broker.publish_all(home.queue(), "load", (0..TASKS).map(|_| "Scenario sleep 2".to_owned()));
    for number in 2..=12 {
        // As `cp` does it: the same inode, truncated and written anew.
        fs::write(&path, versions.version(number)).expect("write");
        let reload = daemon.reload();
        assert_eq!((&reload["ok"], change(&reload, "scenario")), (&true.into(), "replaced"), "{reload}");
    }
    broker.publish(home.queue(), "last", "Scenario ok");
    daemon.wait_count("done", TASKS as u64 + 1);
    assert_each_ran_once(&home, TASKS + 1);
    assert_eq!(home.wait_run("end", "last", 1)[0].version, 12);
    assert_eq!(daemon.counts()["faults"], 0);
}

/// Each task started and ended once, on one version.
fn assert_each_ran_once(home: &Home, tasks: usize) {
    let mut runs: BTreeMap<String, Vec<(String, u32)>> = BTreeMap::new();
    for run in home.record() {
        runs.entry(run.id).or_default().push((run.what, run.version));
    }
    assert_eq!(runs.len(), tasks);
    for (id, lines) in runs {
        let [(start, first), (end, last)] = &lines[..] else { panic!("{id}: {lines:?}") };
        assert_eq!((start.as_str(), end.as_str(), first), ("start", "end", last), "{id}");
    }
}

#[test]
fn two_hundred_swaps_under_load_lose_nothing_and_leave_the_daemon_as_it_was() {
    const SWAPS: u32 = 200;
    // The same in C: a daemon digests its 20 kB in no time.
    let home = Home::new(&Node::shared().uri(), "reload_swaps");
    let versions = Versions::of(&home.install_c("scenario-c", "scenario.c", &[]));
    let rest = home.scenario("scenario", "scenario-c", "idle_timeout = \"1s\"");
    home.configure(Keys { queue: "prefetch = 4\nworkers = 4", rest: &rest, ..Keys::default() });
    let broker = Broker::connect(&Node::shared().uri());
    let daemon = Daemon::start(&home);
    let mut published = 0;
    let mut load = |round: u32| {
        broker.publish_all(
            home.queue(),
            &format!("r{round}"),
            (0..10).map(|_| "Scenario sleep 1".to_owned()),
        );
        published += 10;
    };
    let mut swap = |number: u32| {
        load(number);
        home.install_bytes("scenario-c", &versions.version(number));
        let reload = daemon.reload();
        assert_eq!((&reload["ok"], change(&reload, "scenario")), (&true.into(), "replaced"), "{reload}");
    };
    // The first swaps fill allocators and caches.
    (2..=20).for_each(&mut swap);
    let before = settled_footprint(&daemon);
    (21..=20 + SWAPS).for_each(&mut swap);
    daemon.wait_count("done", published);
    let after = settled_footprint(&daemon);
    assert_each_ran_once(&home, published as usize);
    // Not equal to the digit: a control connection that is just being closed may be among them.
    wait::until(&format!("as many descriptors as before: {before:?}"), || {
        (daemon.footprint().fds <= before.fds).then_some(())
    });
    assert!(after.maps <= before.maps + 8, "{before:?} {after:?}");
    // A leak of one snapshot per swap would be 200 times a megabyte; noise of the allocator is far less.
    assert!(after.rss_kib <= before.rss_kib + 8 * 1024, "{before:?} {after:?}");
}

/// The footprint when all hosts are gone: how many there are at a moment depends on the load.
fn settled_footprint(daemon: &Daemon) -> Footprint {
    wait::until("the end of all hosts", || {
        let handler = daemon.handler("scenario");
        let idle = handler["running"] == 0 && handler["waiting"] == 0;
        (idle && handler["hosts"].as_array()?.is_empty()).then_some(())
    });
    wait::until("a footprint that stays", || {
        let first = daemon.footprint();
        let second = daemon.footprint();
        (first.fds == second.fds).then_some(second)
    })
}
