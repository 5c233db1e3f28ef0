//! Killed between a task's outcome and the end of its acknowledgement.

use warren_tests::{Daemon, Node, wait};

use super::stage::{Stage, assert_killed};

/// Executions of one attempt, in order: whether the handler was told of a redelivery.
type Runs = &'static [bool];
const ONCE: Runs = &[false];
/// The original came back.
const AGAIN: Runs = &[false, true];
/// It was in the hands of the daemon that died, which did not start it.
const LATE: Runs = &[true];
/// The same copy was published twice: once before the daemon died, once when the original came back.
const COPIED_TWICE: Runs = &[false, false];

/// A task, where the daemon dies of it, and what has to be seen in the end.
struct Death {
    name: &'static str,
    text: &'static str,
    at: &'static str,
    /// The task itself is `t`, its follow-ups are `t/1` and `t/2`.
    runs: &'static [(&'static str, u32, Runs)],
    dead: u32,
}

/// Before a copy is published: there is none, and the original comes back.
const BEFORE_COPY: [Death; 5] = [
    Death {
        name: "retry",
        text: "Ledger until 2",
        at: "settle::before-copy=1*return(kill)",
        runs: &[("t", 1, AGAIN), ("t", 2, ONCE)],
        dead: 0,
    },
    Death {
        name: "reject",
        text: "Ledger reject",
        at: "settle::before-copy=1*return(kill)",
        runs: &[("t", 1, AGAIN)],
        dead: 1,
    },
    Death {
        name: "attempts_used",
        text: "Ledger until 9",
        at: "settle::before-copy=1*off->1*return(kill)",
        runs: &[("t", 1, ONCE), ("t", 2, AGAIN)],
        dead: 1,
    },
    Death {
        name: "first_follow_up",
        text: "Ledger emit 2",
        at: "settle::before-copy=1*return(kill)",
        runs: &[("t", 1, AGAIN), ("t/1", 1, ONCE), ("t/2", 1, ONCE)],
        dead: 0,
    },
    Death {
        name: "second_follow_up",
        text: "Ledger emit 2",
        at: "settle::before-copy=1*off->1*return(kill)",
        runs: &[("t", 1, AGAIN), ("t/1", 1, COPIED_TWICE), ("t/2", 1, ONCE)],
        dead: 0,
    },
];

/// After a copy was confirmed: it exists beside the original, which comes back and is copied again.
const AFTER_COPY: [Death; 4] = [
    Death {
        name: "retry",
        text: "Ledger until 2",
        at: "settle::after-copy=1*return(kill)",
        runs: &[("t", 1, AGAIN), ("t", 2, COPIED_TWICE)],
        dead: 0,
    },
    Death {
        name: "reject",
        text: "Ledger reject",
        at: "settle::after-copy=1*return(kill)",
        runs: &[("t", 1, AGAIN)],
        dead: 2,
    },
    Death {
        name: "first_follow_up",
        text: "Ledger emit 2",
        at: "settle::after-copy=1*return(kill)",
        runs: &[("t", 1, AGAIN), ("t/1", 1, COPIED_TWICE), ("t/2", 1, ONCE)],
        dead: 0,
    },
    Death {
        name: "second_follow_up",
        text: "Ledger emit 2",
        at: "settle::after-copy=1*off->1*return(kill)",
        runs: &[("t", 1, AGAIN), ("t/1", 1, COPIED_TWICE), ("t/2", 1, COPIED_TWICE)],
        dead: 0,
    },
];

/// Before the ack: as after the copies, for those tasks that have any.
const BEFORE_ACK: [Death; 4] = [
    Death {
        name: "done",
        text: "Ledger ok",
        at: "settle::before-ack=1*return(kill)",
        runs: &[("t", 1, AGAIN)],
        dead: 0,
    },
    Death {
        name: "retry",
        text: "Ledger until 2",
        at: "settle::before-ack=1*return(kill)",
        runs: &[("t", 1, AGAIN), ("t", 2, COPIED_TWICE)],
        dead: 0,
    },
    Death {
        name: "reject",
        text: "Ledger reject",
        at: "settle::before-ack=1*return(kill)",
        runs: &[("t", 1, AGAIN)],
        dead: 2,
    },
    Death {
        name: "follow_ups",
        text: "Ledger emit 2",
        at: "settle::before-ack=1*return(kill)",
        runs: &[("t", 1, AGAIN), ("t/1", 1, COPIED_TWICE), ("t/2", 1, COPIED_TWICE)],
        dead: 0,
    },
];

/// What the broker has of a queue and its delay queues while the daemon stands still behind the ack of `t`.
struct Left {
    ready: u32,
    unacknowledged: u32,
}

/// After the ack. A copy that was delivered to the daemon meanwhile comes back, but was not started.
const AFTER_ACK: [(Death, Left); 4] = [
    (
        Death { name: "done", text: "Ledger ok", at: "", runs: &[("t", 1, ONCE)], dead: 0 },
        Left { ready: 0, unacknowledged: 0 },
    ),
    (
        Death {
            name: "retry",
            text: "Ledger until 2",
            at: "",
            runs: &[("t", 1, ONCE), ("t", 2, LATE)],
            dead: 0,
        },
        Left { ready: 0, unacknowledged: 1 },
    ),
    (
        Death { name: "reject", text: "Ledger reject", at: "", runs: &[("t", 1, ONCE)], dead: 1 },
        Left { ready: 0, unacknowledged: 0 },
    ),
    (
        Death {
            name: "follow_ups",
            text: "Ledger emit 2",
            at: "",
            runs: &[("t", 1, ONCE), ("t/1", 1, LATE), ("t/2", 1, ONCE)],
            dead: 0,
        },
        Left { ready: 1, unacknowledged: 1 },
    ),
];

#[test]
fn before_a_copy_the_original_is_all_there_is() {
    for death in &BEFORE_COPY {
        death.comes_to_its_end("before_copy");
    }
}

#[test]
fn after_a_copy_it_exists_beside_the_original() {
    for death in &AFTER_COPY {
        death.comes_to_its_end("after_copy");
    }
}

#[test]
fn before_the_ack_everything_exists_twice() {
    for death in &BEFORE_ACK {
        death.comes_to_its_end("before_ack");
    }
}

#[test]
fn after_the_ack_nothing_comes_back() {
    let stages = AFTER_ACK.each_ref().map(|(death, left)| (death, left, death.stage("after_ack")));
    let doomed = stages.each_ref().map(|(death, _, stage)| {
        let gate = stage.home.path("gate");
        stage.home.release("gate"); // here it is the file that holds
        let daemon = stage.doomed(&format!("settle::after-ack=return(hold {})", gate.display()));
        death.publish(stage);
        daemon
    });
    for (death, left, stage) in &stages {
        wait::until(&format!("{}: the ack is handed over", death.name), || {
            stage.home.path("gate.held").exists().then_some(())
        });
        wait::until(&format!("{}: the broker has the ack", death.name), || {
            (family(stage.home.queue()) == (left.ready, left.unacknowledged)).then_some(())
        });
    }
    for (mut daemon, (death, _, stage)) in doomed.into_iter().zip(&stages) {
        daemon.kill();
        death.ends_right(stage);
    }
}

/// A task that may have cost a daemon its life is copied with its count before it starts again.
#[test]
fn a_redelivered_task_is_copied_before_it_starts_and_the_daemon_dies_of_that_too() {
    let stage = Stage::new("killed_restart");
    let first = stage.doomed("settle::before-ack=return(kill)");
    stage.broker.publish(stage.home.queue(), "t", "Ledger ok");
    assert_killed(first);
    for place in ["before-copy", "after-copy"] {
        let next = Daemon::spawn(&stage.home, &[("FAILPOINTS", &format!("settle::{place}=return(kill)"))]);
        assert_killed(next);
    }
    assert_eq!(stage.executions()[&("t".to_owned(), 1)], ONCE, "neither of the two had started it");
    let last = Daemon::start(&stage.home);
    // The original, which is copied again, and the copy that was confirmed.
    stage.wait_ends(3);
    stage.finish(last);
    assert_eq!(stage.executions()[&("t".to_owned(), 1)], [false, true, true]);
}

impl Death {
    fn stage(&self, place: &str) -> Stage {
        Stage::new(&format!("killed_{place}_{}", self.name))
    }

    fn publish(&self, stage: &Stage) {
        stage.broker.publish(stage.home.queue(), "t", self.text);
    }

    fn comes_to_its_end(&self, place: &str) {
        let stage = self.stage(place);
        let daemon = stage.doomed(self.at);
        self.publish(&stage);
        assert_killed(daemon);
        self.ends_right(&stage);
    }

    /// A daemon without failpoints takes over.
    fn ends_right(&self, stage: &Stage) {
        let daemon = Daemon::start(&stage.home);
        stage.wait_ends(self.runs.iter().map(|(_, _, runs)| runs.len()).sum());
        stage.broker.wait_depth_or_none(&stage.home.dead(), self.dead);
        stage.finish(daemon);
        let seen = stage.executions();
        let expected =
            self.runs.iter().map(|(id, attempt, runs)| (((*id).to_owned(), *attempt), runs.to_vec()));
        assert_eq!(seen, expected.collect(), "{} at {}", self.name, self.at);
        let letters = stage.broker.take_all(&stage.home.dead());
        assert_eq!(letters.len(), self.dead as usize, "{} at {}", self.name, self.at);
        assert!(letters.iter().all(|letter| letter.id() == "t" && letter.text == self.text));
    }
}

/// Messages ready and unacknowledged in a queue and its delay queues, as the broker counts them.
fn family(queue: &str) -> (u32, u32) {
    let queues = Node::shared().queues(queue, &["messages_ready", "messages_unacknowledged"]);
    let delays = format!("{queue}.retry.");
    let family = queues.iter().filter(|(name, _)| name == queue || name.starts_with(&delays));
    family.fold((0, 0), |sum, (_, figures)| (sum.0 + figures[0], sum.1 + figures[1]))
}
