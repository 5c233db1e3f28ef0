//! A machine that is short of something: no handler and no task pays for that.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

fn stage(queue: &str) -> (Home, Broker) {
    let node = Node::shared();
    let home = Home::new(&node.uri(), queue);
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", "");
    home.configure(Keys { queue: "workers = 2", rest: &rest, ..Keys::default() });
    (home, Broker::connect(&node.uri()))
}

/// The soft limit: not every root may raise the hard one again.
fn limit_files(daemon: &Daemon, files: u64) {
    let limit = Rlimit { current: Some(files), maximum: getrlimit(Resource::Nofile).maximum };
    let pid = Pid::from_raw(daemon.pid().cast_signed());
    prlimit(pid, Resource::Nofile, limit).expect("the limit of our own child");
}

#[test]
fn a_daemon_without_descriptors_suspends_nobody_says_so_and_goes_on_when_it_has_some() {
    const TASKS: u64 = 20;
    let (home, broker) = stage("hosts_descriptors");
    let daemon = Daemon::start(&home);
    // Enough for who asks on the control socket, too few for a host.
    limit_files(&daemon, daemon.footprint().fds as u64 + 4);
    broker.publish_all(home.queue(), "t", (0..TASKS).map(|_| "Scenario ok".to_owned()));
    let mut tries = 0;
    for _ in 0..4 {
        tries = daemon
            .log()
            .wait(tries, |line| line.contains("no plugin host can be started here"))
            .expect("told")
            .0
            + 1;
    }
    let status = daemon.status();
    let fault = status["machine_fault"].as_str().unwrap_or_default();
    assert!(fault.contains("Too many open files"), "{status}");
    assert_eq!(daemon.handler("scenario")["state"], "failing");
    daemon.wait_notified(0, "STATUS=consuming, no plugin host can be started here");
    limit_files(&daemon, 4096);
    daemon.wait_count("done", TASKS);
    let counts = daemon.counts();
    for count in ["parked", "retried", "dead", "faults"] {
        assert_eq!(counts[count], 0, "{count}: {counts}");
    }
    assert_eq!(daemon.status()["machine_fault"], serde_json::Value::Null);
    wait::until("an active handler", || (daemon.handler("scenario")["state"] == "active").then_some(()));
}

#[test]
fn hosts_keep_their_descriptors_below_whatever_limit_there_is() {
    let (home, broker) = stage("hosts_few_files");
    let daemon = Daemon::spawn_by(&["prlimit", "--nofile=80:80"], &home, &[]);
    daemon.wait_notified(0, "READY=1");
    broker.publish(home.queue(), "t", "Scenario ok");
    daemon.wait_count("done", 1);
    assert_eq!(daemon.counts()["faults"], 0);
}

#[test]
fn a_limit_under_which_nothing_works_is_refused_with_the_remedy() {
    let (home, _broker) = stage("hosts_no_files");
    let mut daemon = Daemon::spawn_by(&["prlimit", "--nofile=40:40"], &home, &[]);
    assert_eq!(daemon.wait_end().code(), Some(78));
    let log = daemon.log().since(0).join("\n");
    assert!(log.contains("the limit on open files is 40") && log.contains("LimitNOFILE="), "{log}");
}

#[test]
fn the_soft_limit_on_open_files_bounds_nothing() {
    let (home, broker) = stage("hosts_soft_files");
    let daemon = Daemon::spawn_by(&["prlimit", "--nofile=40:4096"], &home, &[]);
    daemon.wait_notified(0, "READY=1");
    broker.publish(home.queue(), "t", "Scenario open 90");
    daemon.wait_count("done", 1);
}
