//! `warrenctl dead replay`, killed around the confirm of a letter's copy.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use warren_tests::artefacts;

use super::stage::Stage;

/// One letter, replayed until the process dies at `failpoint`, and again to the end.
fn replay_dies_at(failpoint: &str, queue: &str, copies_before: u32, copies_after: u32) {
    let stage = Stage::new(queue);
    let dead = stage.home.dead();
    stage.broker.declare(queue, &[]);
    stage.broker.declare(&dead, &[]);
    stage.broker.publish(&dead, "t", "Ledger ok");
    assert_eq!(replay(&stage, failpoint).signal(), Some(9));
    // The letter that was looked at comes back with the end of the connection.
    stage.broker.wait_depth(&dead, 1);
    assert_eq!(stage.broker.depth(queue), Some(copies_before));
    assert!(replay(&stage, "").success());
    assert_eq!((stage.broker.depth(&dead), stage.broker.depth(queue)), (Some(0), Some(copies_after)));
    assert!(stage.broker.take_all(queue).iter().all(|letter| letter.id() == "t"));
}

fn replay(stage: &Stage, failpoints: &str) -> ExitStatus {
    Command::new(artefacts::program("warrenctl"))
        .args(["dead", "replay", "--all", "--config"])
        .arg(stage.home.config())
        .env("FAILPOINTS", failpoints)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("warrenctl")
}

#[test]
fn before_its_copy_a_letter_is_still_dead_only() {
    replay_dies_at("replay::before-copy=return(kill)", "killed_replay_before", 0, 1);
}

#[test]
fn after_its_copy_a_letter_is_in_both_places() {
    replay_dies_at("replay::after-copy=return(kill)", "killed_replay_after", 1, 2);
}
