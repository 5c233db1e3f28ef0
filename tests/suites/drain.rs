//! The end: SIGTERM lets running tasks finish, gives the rest back, and is told to the service manager.

use rustix::process::Signal;
use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

fn stage(queue: &str, keys: &str) -> (Home, Broker) {
    let node = Node::shared();
    let home = Home::new(&node.uri(), queue);
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", "");
    home.configure(Keys {
        queue: "prefetch = 30\nworkers = 4",
        daemon: keys,
        rest: &rest,
        ..Keys::default()
    });
    (home, Broker::connect(&node.uri()))
}

#[test]
fn running_tasks_finish_and_waiting_ones_go_back_uncounted() {
    let (home, broker) = stage("drain_finish", "drain_timeout = \"30s\"");
    let mut daemon = Daemon::start(&home);
    broker.publish_all(home.queue(), "held", (1..=104).map(|n| format!("Task {n}: Scenario hold gate")));
    wait::until("4 running, 100 waiting", || {
        let queue = daemon.status()["queues"][0].clone();
        (queue["running"] == 4 && queue["waiting"] == 100).then_some(())
    });
    assert_eq!(broker.depth(home.queue()), Some(0), "all are delivered");
    daemon.signal(Signal::TERM);
    daemon.wait_notified(0, "STOPPING=1");
    // Back in the queue while the four still run.
    broker.wait_depth(home.queue(), 100);
    assert!(daemon.is_running());
    home.release("gate");
    assert!(daemon.wait_end().success());
    let told = daemon.notified().since(0);
    let position = |what: &str| told.iter().position(|line| line == what);
    assert!(position("READY=1").expect("READY=1") < position("STOPPING=1").expect("STOPPING=1"));
    assert_eq!(home.wait_ends(4).len(), 4, "four finished");
    let letters = broker.take_all(home.queue());
    assert_eq!(letters.len(), 100);
    assert!(
        letters.iter().all(|letter| letter.header("x-warren-attempt").is_none()),
        "no attempt is counted"
    );
    assert_eq!(broker.depth(&home.dead()).unwrap_or(0), 0);
}

#[test]
fn a_drain_without_visible_progress_feeds_the_watchdog_and_asks_for_more_time() {
    let (home, broker) = stage("drain_long", "drain_timeout = \"60s\"");
    let mut daemon = Daemon::spawn(&home, &[("WATCHDOG_USEC", "200000")]);
    daemon.wait_notified(0, "READY=1");
    broker.publish(home.queue(), "held", "Scenario hold gate");
    home.wait_run("start", "held", 1);
    daemon.signal(Signal::TERM);
    let mut at = daemon.wait_notified(0, "STOPPING=1");
    // Over a second, in which the status line does not change.
    for _ in 0..15 {
        at = daemon.wait_notified(at, "WATCHDOG=1");
        at = daemon.wait_notified(at, "EXTEND_TIMEOUT_USEC=");
    }
    home.release("gate");
    assert!(daemon.wait_end().success());
    assert_eq!(home.wait_ends(1).len(), 1);
}

#[test]
fn tasks_over_the_drain_timeout_are_cancelled_and_given_back() {
    let (home, broker) = stage("drain_timeout", "drain_timeout = \"500ms\"");
    let mut daemon = Daemon::start(&home);
    broker.publish(home.queue(), "long", "Scenario sleep 600000");
    broker.publish(home.queue(), "deaf", "Scenario stubborn");
    home.wait_run("start", "long", 1);
    home.wait_run("start", "deaf", 1);
    assert!(daemon.terminate().success());
    broker.wait_depth(home.queue(), 2);
    let letters = broker.take_all(home.queue());
    assert!(
        letters.iter().all(|letter| letter.header("x-warren-attempt").is_none()),
        "no attempt is counted"
    );
}

#[test]
fn a_second_sigterm_gives_everything_back_now() {
    let (home, broker) = stage("drain_now", "drain_timeout = \"10m\"");
    let mut daemon = Daemon::start(&home);
    broker.publish(home.queue(), "long", "Scenario sleep 600000");
    home.wait_run("start", "long", 1);
    daemon.signal(Signal::TERM);
    daemon.wait_notified(0, "STOPPING=1");
    assert!(daemon.terminate().success());
    broker.wait_depth(home.queue(), 1);
}

#[test]
fn an_idle_daemon_ends_on_either_signal() {
    let (home, _broker) = stage("drain_idle", "");
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(&home);
        daemon.signal(signal);
        assert!(daemon.wait_end().success(), "{signal:?}");
        assert!(!home.socket().exists(), "the control socket is removed");
    }
}

#[test]
fn plugin_hosts_end_with_the_daemon_however_it_ends() {
    let (home, broker) = stage("drain_hosts", "");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "deaf", "Scenario stubborn");
    home.wait_run("start", "deaf", 1);
    let hosts = daemon.handler("scenario")["hosts"].clone();
    let pids: Vec<u64> =
        hosts.as_array().expect("hosts").iter().filter_map(serde_json::Value::as_u64).collect();
    assert!(!pids.is_empty());
    drop(daemon); // SIGKILL
    wait::until("the end of the plugin hosts", || {
        let is_alive = |pid: &u64| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        (!pids.iter().any(is_alive)).then_some(())
    });
}
