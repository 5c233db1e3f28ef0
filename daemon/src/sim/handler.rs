//! A model of handlers: what a run does, and how long it takes.

use std::time::Duration;

use super::broker::Uid;
use super::choice::For;
use super::fault::Fault;
use super::world::World;
use crate::host::{Report, Seq};
use crate::model::{FaultCause, FollowUp, Outcome, TaskError, TaskResult};

/// What a run comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Finish {
        follow_ups: u8,
        has_result: bool,
    },
    Retry {
        wish: Option<Duration>,
    },
    Reject,
    Fault {
        breaks_contract: bool,
    },
    Die {
        cpu_time: bool,
    },
    /// It ends when it is asked to, or never.
    Hang,
    /// It was asked to stop, and does.
    Stops {
        is_timeout: bool,
    },
}

/// A run of a task.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) seq: Seq,
    pub(super) does: Does,
    pub(super) takes: Duration,
    /// When it began.
    pub(super) began: Duration,
    pub(super) ignores_cancel: bool,
}

impl Run {
    /// What is reported of it when it ends now.
    pub(super) fn report(&self, now: Duration) -> Report {
        let error = |code: &str| Some(TaskError::new(code, "it says why"));
        let duration = match self.does {
            Does::Stops { .. } => now.saturating_sub(self.began),
            _ => self.takes,
        };
        let plain = |outcome, error| Report { duration, ..Report::without_result(self.seq, outcome, error) };
        match self.does {
            Does::Finish { follow_ups, has_result } => Report {
                follow_ups: vec![FollowUp::default(); usize::from(follow_ups)],
                result: has_result.then(TaskResult::default),
                ..plain(Outcome::Done, None)
            },
            Does::Retry { wish } => {
                let error = error("busy").map(|error| TaskError { retry_after: wish, ..error });
                plain(Outcome::Retry, error)
            }
            Does::Reject => plain(Outcome::Reject, error("bad")),
            Does::Fault { breaks_contract: false } => {
                plain(Outcome::Fault(FaultCause::Returned), error("panic"))
            }
            Does::Fault { breaks_contract: true } => {
                plain(Outcome::Fault(FaultCause::Contract), error("contract"))
            }
            Does::Stops { is_timeout: true } => plain(Outcome::TimedOut, error("timeout")),
            Does::Stops { is_timeout: false } => plain(Outcome::Cancelled, None),
            Does::Die { .. } | Does::Hang => unreachable!("nothing is reported of it"),
        }
    }
}

/// Whether a report says no more than that its task is done.
pub(super) fn is_plain(report: &Report) -> bool {
    report.outcome == Outcome::Done && report.result.is_none() && report.follow_ups.is_empty()
}

impl World {
    /// What the next run of a message's task does.
    pub(super) fn run_of(&mut self, handler: usize, seq: Seq, message: Uid) -> Run {
        let task = self.broker.messages[message].task;
        let wants_reply = self.task_of(message).is_some_and(|task| task.wants_reply);
        let run = self.ledger.tasks.get_mut(&task).map_or(0, |known| {
            known.runs += 1;
            known.runs
        });
        let typical = self.setup().handlers[handler].typical;
        let choices = self.choices;
        let part = |what, end| choices.below(end, what, task as u64, run);
        let mut takes = typical * (part(For::RunTime, 16) as u32 + 4) / 10;
        if self.is_quiet {
            let does = Does::Finish { follow_ups: 0, has_result: wants_reply };
            let takes = takes.min(Duration::from_millis(1));
            return Run { seq, does, takes, began: self.now, ignores_cancel: false };
        }
        let has = |fault| self.plan.has(fault, task as u64, run);
        let does = match () {
            () if has(Fault::DiedRunning) => Does::Die { cpu_time: part(For::Outcome, 4) == 0 },
            () if has(Fault::TimedOut) => Does::Hang,
            () if has(Fault::Faulted) => Does::Fault { breaks_contract: part(For::Outcome, 3) == 0 },
            () if has(Fault::Failed) => match part(For::Outcome, 8) {
                0 => Does::Reject,
                1 => Does::Retry { wish: Some(Duration::from_millis(part(For::Wish, 900))) },
                _ => Does::Retry { wish: None },
            },
            () => match part(For::Outcome, 10) {
                0 => Does::Finish { follow_ups: 2, has_result: wants_reply },
                _ => Does::Finish { follow_ups: 0, has_result: wants_reply },
            },
        };
        if part(For::Latency, 20) == 0 && !self.setup().is_flood {
            takes += Duration::from_millis(30);
        }
        let ignores_cancel = has(Fault::CancelIgnored);
        if does == Does::Hang {
            self.fault(Fault::TimedOut);
        }
        Run { seq, does, takes, began: self.now, ignores_cancel }
    }
}
