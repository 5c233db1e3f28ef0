//! Decides what the end of a host counts against: task, handler, machine or nothing. Pure: every way that a host can end
//! has its charge, so that none of them can repeat unseen without end.

use crate::host::{Exit, HostStage};

/// After this many ends of hosts with the same task in front, not started or not reported, the task has failed. One or two
/// may be chance.
pub(super) const UNREPORTED_ENDS: u32 = 3;

/// Who answers for the end of a host, and how that is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charge {
    /// It ended as it was asked to.
    Nobody,
    /// The machine is short of something: hosts are started ever less often until one starts. No handler is suspended
    /// and no task pays.
    Machine,
    /// The handler: its hosts are started ever less often, and it is suspended when they keep dying.
    Handler,
    /// The handler: its last error records the end, and nothing else follows. The end of the process has freed everything.
    Freed,
    /// The task in front: the [`UNREPORTED_ENDS`]th time counts as its attempt, and until then hosts are started ever less often.
    Front,
    /// The task that ran: it counts as its attempt.
    Runner,
}

impl Charge {
    pub(super) fn of(exit: &Exit) -> Self {
        match exit.stage {
            HostStage::Spawning => Self::Machine,
            HostStage::Creating | HostStage::Idle => Self::Handler,
            HostStage::Reading | HostStage::Reporting => Self::Front,
            HostStage::Running => Self::Runner,
            HostStage::Quitting if exit.orderly => Self::Nobody,
            HostStage::Quitting => Self::Freed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_answers_for_every_end_but_an_orderly_one() {
        let table = [
            (HostStage::Spawning, false, Charge::Machine),
            (HostStage::Creating, false, Charge::Handler),
            (HostStage::Idle, false, Charge::Handler),
            (HostStage::Reading, false, Charge::Front),
            (HostStage::Running, false, Charge::Runner),
            (HostStage::Reporting, false, Charge::Front),
            (HostStage::Quitting, false, Charge::Freed),
            (HostStage::Quitting, true, Charge::Nobody),
        ];
        for (stage, orderly, expected) in table {
            let exit = Exit {
                stage,
                orderly,
                why: String::new(),
                create_error: None,
                started: 0,
                done_unreported: Vec::new(),
                ended: 0,
                over: None,
            };
            assert_eq!(Charge::of(&exit), expected, "{stage:?}");
        }
    }
}
