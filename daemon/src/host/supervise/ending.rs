//! The end of a host: what it left is read, it is reaped, and what is known of its end is told.

use super::SupervisedHost;
use super::link::HostLink;
use super::listen::{Pumped, READS_PER_TURN};
use crate::host::death::{self, Death};
use crate::host::frame::Malformed;
use crate::host::ring::{self, RingContents};
use crate::host::stage::{ExitFacts, HostStage};
use crate::host::{Exit, HostEvent};
use crate::model::TaskError;

impl SupervisedHost {
    /// The process is dead: reads what it left in the socket and the pipes, reaps it and reports its end.
    /// Pipes that a grandchild holds open are closed here, too.
    pub(super) async fn report_exit(&self, link: &HostLink) {
        let mut garbled = None;
        loop {
            match self.pump(link, READS_PER_TURN) {
                Ok(Pumped::More) => {}
                Ok(Pumped::Empty | Pumped::End) => break,
                Err(Malformed(what)) => {
                    break garbled = Some(format!("; the last frame was malformed: {what}"));
                }
            }
        }
        for (pipe, lines) in [(&link.stdout, &self.stdout), (&link.stderr, &self.stderr)] {
            self.take_output(link, pipe, lines);
            lines.borrow_mut().finish(&mut |event| self.emit(event));
        }
        let process = link.process.borrow_mut().take();
        self.link.borrow_mut().take();
        let contents = ring::read(&link.ring).unwrap_or_default().within(self.agreed.borrow().sent());
        let death = match process {
            Some(process) => process.reap(self.quitting.get()).await,
            None => Death { why: "ended".into(), ..Death::default() },
        };
        self.emit(HostEvent::Exited(self.exit(&death, contents, garbled)));
    }

    /// What is reported of the end.
    fn exit(&self, death: &Death, ring: RingContents, garbled: Option<String>) -> Exit {
        let agreed = self.agreed.borrow();
        let (sent, reported) = (agreed.sent(), agreed.reported());
        let facts = ExitFacts {
            unusable: self.unusable.get(),
            ready: agreed.is_ready(),
            quitting: self.quitting.get(),
            sent,
            reported,
            ring: &ring,
        };
        let stage = HostStage::of(&facts, |after, to| agreed.owes(after, to));
        let printing = if stage == HostStage::Running { ring.started } else { 0 };
        let (ended, over) = death::explain(death, &self.bounds, self.short_of_memory.get() == Some(printing));
        let verdict = self.verdict.take();
        let orderly = stage == HostStage::Quitting && death.success && verdict.is_none();
        let (why, over) = match verdict {
            Some(verdict) => (format!("{verdict}; {ended}"), None),
            None => (format!("{ended}{}", garbled.unwrap_or_default()), over),
        };
        let crash = || TaskError { code: "crash".into(), message: why.clone(), retry_after: None };
        let create_error = (!agreed.is_ready()).then(|| self.create_error.take().unwrap_or_else(crash));
        let why = match &create_error {
            Some(error) => format!("create failed: {}", error.message),
            None => why,
        };
        let RingContents { started, ended, plain_done } = ring;
        let done_unreported = plain_done.into_iter().filter(|&seq| seq > reported).collect();
        Exit { stage, orderly, why, create_error, started, done_unreported, ended, over }
    }
}
