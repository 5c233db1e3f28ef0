//! How far a host was in its life when it ended. Every end is in exactly one stage, and the engine knows for each of
//! them who answers for it.

use super::Seq;
use super::ring::RingContents;

/// How far a host was when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostStage {
    /// There was no process, or it could not be set up: no code of the plugin's had run.
    Spawning,
    /// The plugin was being loaded, or `create` ran.
    Creating,
    /// It was ready and had no task.
    Idle,
    /// It had been given a task and had not started it.
    Reading,
    /// A task ran.
    Running,
    /// A task had ended, and its outcome did not arrive.
    Reporting,
    /// It had been asked to end and had no task: the handler was being freed.
    Quitting,
}

/// What the daemon knows of a host that has ended.
#[derive(Debug)]
pub(super) struct ExitFacts<'a> {
    /// It could not set itself up, as it says.
    pub(super) unusable: bool,
    pub(super) ready: bool,
    pub(super) quitting: bool,
    /// The last task that it was given and the last that it reported.
    pub(super) sent: Seq,
    pub(super) reported: Seq,
    pub(super) ring: &'a RingContents,
}

impl HostStage {
    /// `owes`: whether something is still to be reported between two tasks, the first excluded.
    pub(super) fn of(facts: &ExitFacts<'_>, owes: impl Fn(Seq, Seq) -> bool) -> Self {
        let ExitFacts { unusable, ready, quitting, sent, reported, ring } = *facts;
        let ended = ring.ended.max(reported);
        let plain = |seq| ring.plain_done.contains(&seq);
        if unusable {
            Self::Spawning
        } else if !ready {
            Self::Creating
        } else if ring.started > ring.ended {
            Self::Running
        } else if (reported + 1..=ended).any(|seq| !plain(seq) && owes(seq - 1, seq)) {
            Self::Reporting
        } else if owes(ended, sent) {
            Self::Reading
        } else if quitting {
            Self::Quitting
        } else {
            Self::Idle
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_host_is_in_one_stage() {
        let ring = |started, ended, plain_done: &[Seq]| RingContents {
            started,
            ended,
            plain_done: plain_done.to_vec(),
        };
        let ready = |sent, reported, quitting, ring| (false, true, quitting, sent, reported, ring);
        // Unusable, ready, quitting, sent, reported, ring; withdrawn; stage.
        let table = [
            ((true, false, false, 0, 0, ring(0, 0, &[])), 0, HostStage::Spawning),
            ((true, false, false, 2, 0, ring(0, 0, &[])), 0, HostStage::Spawning),
            ((false, false, false, 0, 0, ring(0, 0, &[])), 0, HostStage::Creating),
            ((false, false, true, 2, 0, ring(0, 0, &[])), 0, HostStage::Creating),
            (ready(0, 0, false, ring(0, 0, &[])), 0, HostStage::Idle),
            (ready(3, 3, false, ring(3, 3, &[3])), 0, HostStage::Idle),
            // Done, and the report is not missed.
            (ready(3, 2, false, ring(3, 3, &[3])), 0, HostStage::Idle),
            (ready(1, 0, false, ring(0, 0, &[])), 0, HostStage::Reading),
            (ready(5, 3, false, ring(3, 3, &[])), 0, HostStage::Reading),
            (ready(5, 3, true, ring(3, 3, &[])), 0, HostStage::Reading),
            (ready(5, 3, false, ring(4, 4, &[4])), 0, HostStage::Reading),
            // The only one that it had was taken back.
            (ready(4, 3, false, ring(3, 3, &[])), 4, HostStage::Idle),
            (ready(4, 3, true, ring(3, 3, &[])), 4, HostStage::Quitting),
            (ready(5, 3, false, ring(4, 3, &[])), 0, HostStage::Running),
            (ready(4, 3, true, ring(4, 3, &[])), 0, HostStage::Running),
            (ready(4, 3, false, ring(4, 4, &[])), 0, HostStage::Reporting),
            (ready(6, 3, false, ring(5, 5, &[5])), 0, HostStage::Reporting),
            (ready(3, 3, true, ring(3, 3, &[])), 0, HostStage::Quitting),
        ];
        for ((unusable, ready, quitting, sent, reported, ring), withdrawn, expected) in table {
            let facts = ExitFacts { unusable, ready, quitting, sent, reported, ring: &ring };
            let owes = |after: Seq, to: Seq| (after + 1..=to).any(|seq| seq != withdrawn);
            assert_eq!(HostStage::of(&facts, owes), expected, "{facts:?}, withdrawn: {withdrawn}");
        }
    }
}
