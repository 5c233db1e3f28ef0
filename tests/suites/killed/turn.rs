//! Killed during a drain and during a reload, with tasks that run and tasks that wait.

use rustix::process::Signal;
use warren_tests::artefacts::{self, Versions};
use warren_tests::ledger::count;
use warren_tests::{Daemon, wait};

use super::stage::{Stage, assert_killed};

const RUNNING: usize = 2;
const WAITING: usize = 4;

/// Two tasks that run until they are released, and four that wait behind them in the daemon's window.
fn loaded(queue: &str, failpoints: &str) -> (Stage, Daemon) {
    let stage = Stage::with_window(queue, "prefetch = 3\nworkers = 2");
    let daemon = stage.doomed(failpoints);
    stage.broker.publish_all(
        stage.home.queue(),
        "t",
        (0..RUNNING + WAITING).map(|_| "Ledger hold gate".to_owned()),
    );
    wait::until("two running, four waiting", || {
        let queue = daemon.status()["queues"][0].clone();
        (queue["running"] == RUNNING && queue["waiting"] == WAITING).then_some(())
    });
    wait::until("both have begun", || (stage.ledger().len() == RUNNING).then_some(()));
    (stage, daemon)
}

/// What was running ran again and was told so; nothing else ran twice.
fn assert_only_the_running_ran_again(stage: &Stage) {
    for ((id, _), runs) in stage.executions() {
        let was_running = id == "t-1" || id == "t-2";
        let expected: &[bool] = if was_running { &[false, true] } else { &[true] };
        assert_eq!(runs, expected, "{id}");
    }
    let done = count(&stage.ledger(), "done");
    assert_eq!(done.len(), RUNNING + WAITING);
    assert!(done.values().all(|&times| times == 1), "{done:?}");
}

fn ends_right(stage: &Stage) {
    stage.home.release("gate");
    let daemon = Daemon::start(&stage.home);
    stage.wait_ends(RUNNING + WAITING);
    stage.finish(daemon);
    assert_only_the_running_ran_again(stage);
}

#[test]
fn during_a_drain_before_anything_went_back() {
    let (stage, daemon) = loaded("killed_drain_started", "drain::started=return(kill)");
    daemon.signal(Signal::TERM);
    daemon.wait_notified(0, "STOPPING=1");
    assert_killed(daemon);
    ends_right(&stage);
}

#[test]
fn during_a_drain_while_tasks_finish() {
    let (stage, mut daemon) = loaded("killed_drain", "");
    daemon.signal(Signal::TERM);
    daemon.wait_notified(0, "STOPPING=1");
    stage.broker.wait_depth(stage.home.queue(), WAITING as u32);
    daemon.kill();
    ends_right(&stage);
}

/// Every ack is handed to the connection by then. Whether the broker has seen it is open: the barrier comes later.
#[test]
fn during_a_drain_before_the_connections_are_closed() {
    let (stage, daemon) = loaded("killed_drain_close", "drain::before-close=return(kill)");
    daemon.signal(Signal::TERM);
    stage.broker.wait_depth(stage.home.queue(), WAITING as u32);
    stage.home.release("gate");
    assert_killed(daemon);
    stage.wait_ends(RUNNING);
    let daemon = Daemon::start(&stage.home);
    stage.wait_ends(RUNNING + WAITING);
    stage.finish(daemon);
    for ((id, _), runs) in stage.executions() {
        let unseen_ack: &[bool] = &[false, true];
        let was_running = id == "t-1" || id == "t-2";
        let expected = if was_running { runs == [false] || runs == unseen_ack } else { runs == [true] };
        assert!(expected, "{id}: {runs:?}");
    }
    assert_eq!(count(&stage.ledger(), "done").len(), RUNNING + WAITING);
}

#[test]
fn during_a_reload_before_and_after_the_swap() {
    for place in ["before", "after"] {
        let failpoints = format!("reload::{place}-swap=return(kill)");
        let (stage, daemon) = loaded(&format!("killed_reload_{place}"), &failpoints);
        let versions = Versions::of(&artefacts::plugin("fixture-ledger"));
        stage.home.install_bytes("fixture-ledger", &versions.version(2));
        daemon.signal(Signal::HUP);
        daemon.wait_notified(0, "RELOADING=1");
        assert_killed(daemon);
        ends_right(&stage);
        let done: Vec<u32> =
            stage.ledger().iter().filter(|entry| entry.what == "done").map(|entry| entry.version).collect();
        assert_eq!(done, [2; RUNNING + WAITING], "the daemon that comes up has the new version");
    }
}
