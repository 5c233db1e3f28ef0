//! What a host may say next. Each of its frames is checked against what it was given, asked and has said before: a
//! handler may have written over the host's memory, and the engine counts on what it is told.

use super::super::frame::Malformed;
use crate::host::Seq;

/// What was agreed with one host so far.
#[derive(Debug, Default)]
pub(super) struct Agreed {
    phase: HostPhase,
    /// The last task that it was given; tasks are numbered from 1, without gaps.
    sent: Seq,
    /// The last task that it reported. Hosts report in the order in which they were given tasks.
    reported: Seq,
    /// Asked back and not answered. As many as may be queued in one host.
    recalled: Vec<Seq>,
    /// Came back unstarted, and the host has not reached them in its input yet. As many as may be queued.
    withdrawn: Vec<Seq>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum HostPhase {
    #[default]
    Starting,
    /// It has said why it does not start.
    Failed,
    Ready,
}

/// Whose report it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reported {
    /// Of a task that the engine waits for.
    Awaited,
    /// Of one that came back before: the engine has given it to another host.
    Withdrawn,
}

impl Agreed {
    /// It is given this task.
    pub(super) fn give(&mut self, seq: Seq) {
        debug_assert!(seq == self.sent + 1, "a host's tasks are numbered without gaps");
        self.sent = seq;
    }

    /// It is asked to give this task back.
    pub(super) fn recall(&mut self, seq: Seq) {
        if !self.recalled.contains(&seq) {
            self.recalled.push(seq);
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == HostPhase::Ready
    }

    /// The last task that it was given.
    pub(super) fn sent(&self) -> Seq {
        self.sent
    }

    /// The last task that it reported.
    pub(super) fn reported(&self) -> Seq {
        self.reported
    }

    /// Whether it has something to report between these two, the first excluded.
    pub(super) fn owes(&self, after: Seq, to: Seq) -> bool {
        (after + 1..=to).any(|seq| !self.withdrawn.contains(&seq))
    }

    /// It says that it takes tasks.
    pub(super) fn ready(&mut self) -> Result<(), Malformed> {
        match self.phase {
            HostPhase::Starting => self.phase = HostPhase::Ready,
            HostPhase::Ready => return Err(Malformed("a second time that it is ready")),
            HostPhase::Failed => return Err(Malformed("that it is ready after it had failed to start")),
        }
        Ok(())
    }

    /// It says why it does not start.
    pub(super) fn failed(&mut self) -> Result<(), Malformed> {
        match self.phase {
            HostPhase::Starting => self.phase = HostPhase::Failed,
            HostPhase::Ready => return Err(Malformed("that it failed to start after it was ready")),
            HostPhase::Failed => return Err(Malformed("a second time that it failed to start")),
        }
        Ok(())
    }

    /// It reports a task.
    pub(super) fn report(&mut self, seq: Seq) -> Result<Reported, Malformed> {
        if self.phase != HostPhase::Ready {
            return Err(Malformed("a report before it was ready"));
        }
        if seq <= self.reported || seq > self.sent {
            return Err(Malformed("a report of a task that it was not given"));
        }
        if seq != self.reported + 1 {
            return Err(Malformed("a report out of turn"));
        }
        self.reported = seq;
        self.recalled.retain(|recalled| *recalled != seq);
        Ok(match self.withdrawn.iter().position(|withdrawn| *withdrawn == seq) {
            Some(at) => {
                self.withdrawn.swap_remove(at);
                Reported::Withdrawn
            }
            None => Reported::Awaited,
        })
    }

    /// It gives a task back.
    pub(super) fn withdraw(&mut self, seq: Seq) -> Result<(), Malformed> {
        if seq <= self.reported || seq > self.sent {
            return Err(Malformed("back a task that it was not given"));
        }
        let Some(at) = self.recalled.iter().position(|recalled| *recalled == seq) else {
            return Err(Malformed("back a task that it was not asked for"));
        };
        self.recalled.swap_remove(at);
        self.withdrawn.push(seq);
        Ok(())
    }

    /// It says something about a task, or with 0 about none. A task that was just reported may still be spoken of: a
    /// thread of the plugin's does not know.
    pub(super) fn mention(&self, seq: Seq) -> Result<(), Malformed> {
        if seq > self.sent { Err(Malformed("word of a task that it was not given")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the daemon does and what a host says, in order.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Give(Seq),
        Recall(Seq),
        Ready,
        Failed,
        Report(Seq),
        Withdraw(Seq),
        Mention(Seq),
    }
    use Step::{Failed, Give, Mention, Ready, Recall, Report, Withdraw};

    /// The first frame that breaks the agreement, by its place, and what is said of it.
    fn broken(steps: &[Step]) -> Option<(usize, &'static str)> {
        let mut agreed = Agreed::default();
        steps.iter().enumerate().find_map(|(at, step)| {
            let result = match *step {
                Give(seq) => {
                    agreed.give(seq);
                    Ok(())
                }
                Recall(seq) => {
                    agreed.recall(seq);
                    Ok(())
                }
                Ready => agreed.ready(),
                Failed => agreed.failed(),
                Report(seq) => agreed.report(seq).map(drop),
                Withdraw(seq) => agreed.withdraw(seq),
                Mention(seq) => agreed.mention(seq),
            };
            result.err().map(|Malformed(what)| (at, what))
        })
    }

    #[test]
    fn each_frame_is_held_against_what_was_agreed() {
        type Broken = Option<(usize, &'static str)>;
        let table: [(&[Step], Broken); 18] = [
            (&[Ready, Give(1), Give(2), Mention(1), Report(1), Mention(1), Report(2)], None),
            (&[Give(1), Ready, Report(1)], None),
            (&[Ready, Give(1), Give(2), Recall(2), Withdraw(2), Report(1), Report(2)], None),
            (&[Give(1), Recall(1), Withdraw(1), Ready, Report(1)], None),
            // A recall that came too late.
            (&[Ready, Give(1), Recall(1), Report(1)], None),
            (&[Mention(0), Failed], None),
            (&[Ready, Ready], Some((1, "a second time that it is ready"))),
            (&[Failed, Ready], Some((1, "that it is ready after it had failed to start"))),
            (&[Ready, Failed], Some((1, "that it failed to start after it was ready"))),
            (&[Failed, Failed], Some((1, "a second time that it failed to start"))),
            (&[Give(1), Report(1)], Some((1, "a report before it was ready"))),
            (&[Ready, Report(1)], Some((1, "a report of a task that it was not given"))),
            (&[Ready, Give(1), Report(1), Report(1)], Some((3, "a report of a task that it was not given"))),
            (&[Ready, Give(1), Give(2), Report(2)], Some((3, "a report out of turn"))),
            (&[Ready, Give(1), Withdraw(1)], Some((2, "back a task that it was not asked for"))),
            (&[Ready, Give(1), Withdraw(2)], Some((2, "back a task that it was not given"))),
            (
                &[Ready, Give(1), Recall(1), Withdraw(1), Withdraw(1)],
                Some((4, "back a task that it was not asked for")),
            ),
            (&[Ready, Give(1), Mention(2)], Some((2, "word of a task that it was not given"))),
        ];
        for (steps, expected) in table {
            assert_eq!(broken(steps), expected, "{steps:?}");
        }
    }

    #[test]
    fn the_report_of_a_task_that_came_back_is_told_from_one_that_is_awaited() {
        let mut agreed = Agreed::default();
        agreed.ready().unwrap();
        agreed.give(1);
        agreed.give(2);
        agreed.recall(2);
        agreed.withdraw(2).unwrap();
        assert!(agreed.owes(0, 2) && !agreed.owes(1, 2));
        assert_eq!(agreed.report(1), Ok(Reported::Awaited));
        assert_eq!(agreed.report(2), Ok(Reported::Withdrawn));
    }
}
