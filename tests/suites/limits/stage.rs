//! What the tests of this suite share: a daemon with the scenario fixture in Rust or C, or the ledger, and a look at
//! processes.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

/// The fixture in Rust and the one in C.
pub(crate) const BOTH_FIXTURES: [&str; 2] = ["scenario", "scenario-c"];

/// A home for one handler of this plugin, `scenario` with these keys, `queue` for its queue.
pub(crate) fn stage(name: &str, plugin: &str, queue: &str, keys: &str) -> (Home, Broker) {
    let node = Node::shared();
    let home = Home::new(&node.uri(), name);
    install(&home, plugin);
    let rest = home.scenario("scenario", plugin, keys);
    home.configure(Keys { queue, rest: &rest, ..Keys::default() });
    (home, Broker::connect(&node.uri()))
}

pub(crate) fn install(home: &Home, plugin: &str) {
    if plugin == "scenario-c" {
        home.install_c("scenario-c", "scenario.c", &[]);
    } else {
        home.install(&format!("fixture-{plugin}"));
    }
}

/// The process of the host that runs the task.
pub(crate) fn host_of(daemon: &Daemon, id: &str) -> i32 {
    wait::until(&format!("the host of {id}"), || {
        let active = daemon.ask(&["active"]);
        let row = active.as_array()?.iter().find(|row| row["id"] == id)?.clone();
        i32::try_from(row["pid"].as_i64()?).ok().filter(|pid| *pid > 0)
    })
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a process id"), signal).expect("it is there");
}

/// Waits until a process is gone, or at least dead.
pub(crate) fn wait_gone(pid: i32) {
    wait::until(&format!("the end of process {pid}"), || {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    });
}

/// The two processes that `brood` leaves.
pub(crate) fn brood(home: &Home) -> Vec<i32> {
    wait::until("two of the brood", || {
        let ids = std::fs::read_to_string(home.path("brood")).ok()?;
        let ids: Vec<i32> = ids.lines().filter_map(|line| line.parse().ok()).collect();
        (ids.len() == 2).then_some(ids)
    })
}
