//! `warrenctl dead replay`: each letter is published and confirmed, then its dead copy is removed. Killed in between, it
//! leaves a letter in both places, never in none.

use std::time::Duration;

use clap::Args;
use warren::broker::PublishError;
use warren::broker::dead::{DeadLetter, Found, Replay, ReplayError};

use super::letter::Summary;
use super::look::{Look, look};
use super::work::{WorkArgs, WorkReport};
use crate::Global;
use crate::exit::{Code, VerbError};

pub(super) const EXAMPLES: &str = "\
A letter goes back to the queue it came from (or to --to) with its body, properties, headers and id, and without its
history: it counts its attempts from 1, and an expired one runs, too. It leaves the dead queue when the broker has
confirmed the new copy. A run that is killed loses nothing; the letter it was at may then be in both queues. Ctrl-C stops
it between two letters. A letter whose queue does not exist stays, and is named. A run looks at the letters that are
there when it begins: what dies again meanwhile is not replayed a second time.

Exit status: 0 done; 65 some letters stay (no such queue, too large), or no letter with that id; 69 no broker, or it
refuses; 75 the link was lost, the queue is full, or not every letter could be looked at: run it again.

Examples:
  warrenctl dead replay --id task-4 --id task-7
  warrenctl dead replay --handler backup-database --newer-than 1h --dry-run
  warrenctl dead replay --reason unroutable --limit 1 --to task_queue
  warrenctl dead replay --all --json";

/// For the confirm of the letter that was under way at Ctrl-C.
const LAST_CONFIRM: Duration = Duration::from_secs(5);
/// A broker that refuses this many letters in a row will refuse the others as well.
const MAX_REFUSALS: u32 = 10;

/// What to replay, and where to.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    work: WorkArgs,
    /// Send the letters to this queue, not to the one they came from
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
}

pub(super) fn run(global: &Global, args: &ReplayArgs) -> Result<(), VerbError> {
    args.work.check()?;
    let which = &args.work.which;
    let (report, tally) = look(global, which, "replay", which.filter(None), async |mut look| {
        let mut run = ReplayRun { link: None, refusals: 0, report: WorkReport::default() };
        let stopped = run.replay(&mut look, args).await.err();
        let (tally, closed) = look.close().await;
        run.report.stopped = stopped.or(closed.err());
        Ok((run.report, tally))
    })?;
    report.conclude(global, "replayed", &args.work, &tally)
}

struct ReplayRun {
    /// Made for the first letter.
    link: Option<Replay>,
    /// In a row.
    refusals: u32,
    report: WorkReport,
}

impl ReplayRun {
    /// Until the look ends; an error says why it cannot go on.
    async fn replay(&mut self, look: &mut Look, args: &ReplayArgs) -> Result<(), VerbError> {
        while let Some(found) = look.next().await? {
            let queue = match &args.to {
                Some(queue) => queue.clone(),
                None => found.letter.origin(&look.queue).to_owned(),
            };
            if args.work.dry_run {
                self.report.would(Summary::of(&found.letter).to(&queue));
            } else {
                self.one(look, found, &queue).await?;
            }
        }
        Ok(())
    }

    async fn one(
        &mut self,
        look: &mut Look,
        Found { tag, letter }: Found,
        queue: &str,
    ) -> Result<(), VerbError> {
        let link = match &mut self.link {
            Some(link) => link,
            none => none.insert(Replay::new(look.dial().await?)),
        };
        let Err(error) = publish(look, link, queue, &letter).await else {
            self.refusals = 0;
            return match look.remove(tag).await {
                Ok(()) => {
                    self.report.done += 1;
                    Ok(())
                }
                Err(failure) => {
                    self.report.fail(&letter, queue, "is there, and may be dead here as well".to_owned());
                    Err(failure)
                }
            };
        };
        self.report.fail(&letter, queue, error.to_string());
        match error {
            ReplayError::NotTaken(why) => Err(VerbError::text(Code::TryAgain, why)),
            ReplayError::Lost(why) => {
                let text = format!("stopped at a letter that may or may not be in `{queue}`: {why}");
                Err(VerbError::text(Code::TryAgain, text))
            }
            ReplayError::Never(PublishError::Refused { why, .. }) => {
                self.refusals += 1;
                let text = format!("the broker refused {} letters in a row: {why}", self.refusals);
                if self.refusals < MAX_REFUSALS {
                    Ok(())
                } else {
                    Err(VerbError::text(Code::Unavailable, text))
                }
            }
            ReplayError::Never(_) => Ok(()),
        }
    }
}

/// Publishes one letter, to its confirm; soon after Ctrl-C it is waited for no longer.
async fn publish(
    look: &Look,
    link: &mut Replay,
    queue: &str,
    letter: &DeadLetter,
) -> Result<(), ReplayError> {
    let blocked = || look.say("the broker blocks publishers (memory or disk alarm); waiting for it");
    tokio::select! {
        published = link.publish(queue, letter, blocked) => published,
        () = async {
            look.interrupted().await;
            tokio::time::sleep(LAST_CONFIRM).await;
        } => Err(ReplayError::Lost("no confirm came soon after the interrupt".to_owned())),
    }
}
