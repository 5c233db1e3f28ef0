//! One look through a dead queue: the letters that match, one after the other, until the end, the limit, a bound or
//! Ctrl-C; and what is to be said of letters that were not reached.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use warren::broker::dead::{Browse, DeadLetter, Found, Tag};
use warren::broker::topology::dead_name;
use warren::broker::{BrokerConnection, QueueError, connect};
use warren::config::Broker;

use super::Which;
use super::filter::LetterFilter;
use crate::exit::{Code, VerbError};
use crate::interrupt::Interrupt;
use crate::output::note;
use crate::{Global, place};

/// For the broker's last answers: as long as for any answer, or not much longer than somebody waits who pressed Ctrl-C.
const LAST_ANSWERS: Duration = Duration::from_secs(20);
const LAST_ANSWERS_INTERRUPTED: Duration = Duration::from_secs(3);

/// A look under way.
pub(super) struct Look {
    /// The work queue whose dead letters these are.
    pub(super) queue: String,
    browse: Browse,
    filter: LetterFilter,
    /// Ids that were asked for and have not been found.
    missing: Vec<String>,
    matched: u64,
    ended: Option<LookEnd>,
    interrupt: Interrupt,
    bar: ProgressBar,
    has_warned: bool,
    broker: Broker,
    client: String,
}

/// How a look went.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Tally {
    /// The dead queue.
    pub(super) queue: String,
    /// Letters in it when the look began, without those that others held.
    pub(super) depth: u32,
    /// Letters looked at.
    pub(super) looked_at: u32,
    /// Letters that matched.
    pub(super) matched: u64,
    /// Letters taken off the queue.
    #[serde(skip)]
    pub(super) removed: u32,
    /// Why it ended.
    pub(super) ended: LookEnd,
    /// Ids that were asked for and not found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) missing: Vec<String>,
}

/// Why a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LookEnd {
    /// Every letter was looked at.
    Complete,
    /// As many matched as were asked for.
    Limit,
    /// No more could be held.
    Bound,
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// Nobody reads any more what is found.
    Reader,
    /// The verb could not go on.
    Broken,
}

/// Looks through the letters of the queue that `which` means, for those that `filter` means.
pub(super) fn look<T>(
    global: &Global,
    which: &Which,
    verb: &str,
    filter: LetterFilter,
    work: impl AsyncFnOnce(Look) -> Result<T, VerbError>,
) -> Result<T, VerbError> {
    let config = place::config(global)?;
    let queue = place::queue(&config, which.queue.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| VerbError::new(Code::Software, e))?;
    let result = runtime.block_on(async {
        let interrupt = Interrupt::listen().map_err(|e| VerbError::new(Code::Software, e))?;
        let client = format!("warrenctl dead {verb}");
        let dialled = dial(&config.broker, &client, &interrupt).await?;
        let look = Look {
            browse: Browse::open(dialled, &queue.name, which.look_at).await?,
            queue: queue.name.to_string(),
            missing: filter.ids.clone(),
            filter,
            matched: 0,
            ended: None,
            interrupt,
            bar: bar(),
            has_warned: false,
            broker: config.broker,
            client,
        };
        work(look).await
    });
    // A thread that waits for an answer on standard input must not keep the program from ending.
    runtime.shutdown_background();
    result
}

impl Look {
    /// The next letter that matches. `None`: there is an end, whichever.
    pub(super) async fn next(&mut self) -> Result<Option<Found>, VerbError> {
        loop {
            if self.filter.limit == Some(self.matched) {
                return Ok(self.over(LookEnd::Limit));
            }
            let next = tokio::select! {
                biased;
                () = self.interrupt.wait() => return Ok(self.over(LookEnd::Interrupted)),
                next = self.browse.next() => next.map_err(lost)?,
            };
            let Some(found) = next else {
                let bounded = self.browse.looked().bounded;
                return Ok(self.over(if bounded { LookEnd::Bound } else { LookEnd::Complete }));
            };
            self.warn(&found.letter).await;
            self.show_progress();
            if self.filter.matches(&found.letter) {
                self.matched += 1;
                self.missing.retain(|id| found.letter.id.as_ref().is_none_or(|found| *found.text != **id));
                return Ok(Some(found));
            }
        }
    }

    /// Takes a letter off the queue for good.
    pub(super) async fn remove(&mut self, tag: Tag) -> Result<(), VerbError> {
        self.browse.remove(tag).await.map_err(lost)
    }

    /// A further connection to the same broker.
    pub(super) async fn dial(&self) -> Result<BrokerConnection, VerbError> {
        dial(&self.broker, &self.client, &self.interrupt).await
    }

    /// Ends it before its time.
    pub(super) fn end(&mut self, ended: LookEnd) {
        self.ended = Some(ended);
    }

    /// It was ended by Ctrl-C.
    pub(super) fn was_interrupted(&self) -> bool {
        self.ended == Some(LookEnd::Interrupted)
    }

    /// Clears the progress away, for a question.
    pub(super) fn pause(&self) {
        self.bar.finish_and_clear();
    }

    /// Returns when Ctrl-C was pressed.
    pub(super) async fn interrupted(&self) {
        self.interrupt.wait().await;
    }

    /// Prints a progress note for the user.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    /// Gives the letters back, and says how it went. The failure: removals of which the broker may not know.
    pub(super) async fn close(self) -> (Tally, Result<(), VerbError>) {
        self.bar.finish_and_clear();
        let looked = self.browse.looked();
        let ended = match self.ended {
            Some(ended) => ended,
            None if self.interrupt.is_heard() => LookEnd::Interrupted,
            None => LookEnd::Broken,
        };
        let tally = Tally {
            queue: dead_name(&self.queue),
            depth: looked.depth,
            looked_at: looked.seen,
            matched: self.matched,
            removed: looked.removed,
            ended,
            missing: self.missing,
        };
        let limit = if self.interrupt.is_heard() { LAST_ANSWERS_INTERRUPTED } else { LAST_ANSWERS };
        (tally, self.browse.close(limit).await.map_err(lost))
    }

    /// Its end is known; there is nothing more to come.
    fn over<T>(&mut self, ended: LookEnd) -> Option<T> {
        self.ended = Some(ended);
        None
    }

    /// Once a run.
    async fn warn(&mut self, letter: &DeadLetter) {
        if !self.has_warned && self.browse.is_wearing_out(letter).await {
            self.has_warned = true;
            self.say(&format!(
                "warning: the broker handed letters of `{queue}` out {} times already and discards them after 20 \
                 (looking counts), unless a policy says otherwise: rabbitmqctl set_policy dead '\\.dead$' \
                 '{{\"delivery-limit\":-1}}' --apply-to quorum_queues",
                letter.returns,
                queue = dead_name(&self.queue),
            ));
        }
    }

    fn show_progress(&self) {
        if !self.bar.is_hidden() {
            let looked = self.browse.looked();
            self.bar.set_position(looked.seen.into());
            self.bar.set_message(format!(
                "looked at {} of {} letters, {} match",
                looked.seen, looked.depth, self.matched
            ));
        }
    }
}

impl Tally {
    /// Letters that are still in the queue, as far as this look knows.
    pub(super) fn left(&self) -> u32 {
        self.depth - self.removed
    }

    /// What the end means: fine, fine with a remark, or a failure. `is_whole` is for verbs that are to reach every
    /// letter that matches.
    pub(super) fn verdict(&self, is_whole: bool) -> Result<Option<String>, VerbError> {
        let unseen = self.depth - self.looked_at;
        let reached =
            format!("looked at the first {} of {} letters in `{}`", self.looked_at, self.depth, self.queue);
        let bounded = format!("{reached}; no more may be held at a time: --look-at N allows for more");
        let is_bounded = self.ended == LookEnd::Bound && unseen > 0;
        if self.ended == LookEnd::Interrupted {
            return Err(VerbError::text(Code::Interrupted, format!("interrupted; {reached}")));
        }
        if !self.missing.is_empty() && self.ended != LookEnd::Limit {
            let ids = self.missing.join("`, `");
            let text = format!("no dead letter `{ids}` in `{}`", self.queue);
            let text = if is_bounded { format!("{text} so far; {bounded}") } else { text };
            return Err(VerbError::text(Code::Data, text));
        }
        match self.ended {
            LookEnd::Bound if unseen > 0 && is_whole => Err(VerbError::text(Code::TryAgain, bounded)),
            LookEnd::Bound if unseen > 0 => Ok(Some(bounded)),
            LookEnd::Limit if unseen > 0 => Ok(Some(format!("{reached}, until --limit {}", self.matched))),
            _ => Ok(None),
        }
    }
}

async fn dial(broker: &Broker, client: &str, interrupt: &Interrupt) -> Result<BrokerConnection, VerbError> {
    tokio::select! {
        dialled = connect(broker, client) => Ok(dialled?),
        () = interrupt.wait() => Err(VerbError::text(Code::Interrupted, "interrupted before the broker answered")),
    }
}

/// What failed in the middle may be tried again.
fn lost(error: QueueError) -> VerbError {
    match error {
        QueueError::Link(why) => {
            VerbError::text(Code::TryAgain, format!("the link to the broker is lost: {why}"))
        }
        error @ QueueError::Silent { .. } => VerbError::new(Code::TryAgain, error),
        error => error.into(),
    }
}

/// On a terminal only.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    // The template is fixed; a bad one would only cost its looks.
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(ended: LookEnd, looked_at: u32, missing: &[&str]) -> Tally {
        let missing = missing.iter().map(|&id| id.to_owned()).collect();
        Tally { queue: "tasks.dead".to_owned(), depth: 10, looked_at, matched: 2, removed: 0, ended, missing }
    }

    #[test]
    fn what_was_not_reached_is_always_said() {
        let remark = "looked at the first 4 of 10 letters in `tasks.dead`";
        // Why it ended, letters looked at, ids missing; what it means for list, and for replay.
        let table = [
            (LookEnd::Complete, 10, &[][..], Ok(false), Ok(false)),
            (LookEnd::Limit, 4, &[], Ok(true), Ok(true)),
            (LookEnd::Limit, 10, &[], Ok(false), Ok(false)),
            (LookEnd::Limit, 4, &["a"], Ok(true), Ok(true)),
            (LookEnd::Bound, 4, &[], Ok(true), Err(Code::TryAgain)),
            (LookEnd::Bound, 4, &["a"], Err(Code::Data), Err(Code::Data)),
            (LookEnd::Complete, 10, &["a"], Err(Code::Data), Err(Code::Data)),
            (LookEnd::Interrupted, 4, &["a"], Err(Code::Interrupted), Err(Code::Interrupted)),
        ];
        for (ended, looked_at, missing, listed, replayed) in table {
            for (is_whole, expected) in [(false, listed), (true, replayed)] {
                let verdict = tally(ended, looked_at, missing).verdict(is_whole);
                let says = match &verdict {
                    Ok(remark) => remark.clone().unwrap_or_default(),
                    Err(failure) => failure.to_string(),
                };
                let found = verdict.map(|remark| remark.is_some()).map_err(|failure| failure.code());
                assert_eq!(found, expected, "{ended:?} {looked_at} {missing:?}");
                assert_eq!(says.contains(remark), looked_at == 4, "{ended:?} {missing:?}: {says}");
            }
        }
    }
}
