//! `warrenctl dead drop`: after a question that says how many, unless `--yes`.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use warren::broker::topology::dead_name;

use super::letter::Summary;
use super::look::{Look, LookEnd, look};
use super::work::{WorkArgs, WorkReport};
use crate::Global;
use crate::exit::{Code, VerbError};

pub(super) const EXAMPLES: &str = "\
Dropped letters are gone. Without --yes it holds the letters that match, says how many they are and asks; exactly those
are dropped. Where nobody can be asked (no terminal), --yes is needed. `export` writes them to a file first.

Exit status: 0 done, or the answer was no; 64 usage; 65 no letter with that id; 69 no broker; 75 the link was lost, or not
every letter could be looked at.

Examples:
  warrenctl dead drop --id task-4
  warrenctl dead drop --reason unroutable --older-than 30d --dry-run
  warrenctl dead drop --reason unroutable --older-than 30d --yes
  warrenctl dead drop --all --yes --json";

/// What to drop.
#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    #[command(flatten)]
    work: WorkArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(global: &Global, args: &DropArgs) -> Result<(), VerbError> {
    args.work.check()?;
    if !args.yes && !args.work.dry_run && !io::stdin().is_terminal() {
        return Err(VerbError::text(
            Code::Usage,
            "letters are dropped for good: say --yes, or be there to be asked",
        ));
    }
    let which = &args.work.which;
    let (report, tally) = look(global, which, "drop", which.filter(None), async |mut look| {
        let mut report = WorkReport::default();
        let stopped = drop_all(&mut look, args, &mut report).await.err();
        let (tally, closed) = look.close().await;
        report.stopped = stopped.or(closed.err());
        Ok((report, tally))
    })?;
    report.conclude(global, "dropped", &args.work, &tally)
}

/// Until the look ends; an error says why it cannot go on.
async fn drop_all(look: &mut Look, args: &DropArgs, report: &mut WorkReport) -> Result<(), VerbError> {
    let mut asked_for = Vec::new();
    while let Some(found) = look.next().await? {
        if args.work.dry_run {
            report.would(Summary::of(&found.letter));
        } else if args.yes {
            look.remove(found.tag).await?;
            report.done += 1;
        } else {
            asked_for.push(found.tag);
        }
    }
    if asked_for.is_empty() || look.was_interrupted() || !is_confirmed(look, asked_for.len()).await? {
        return Ok(());
    }
    for tag in asked_for {
        look.remove(tag).await?;
        report.done += 1;
    }
    Ok(())
}

/// Asks on the terminal. The letters stay held meanwhile.
async fn is_confirmed(look: &mut Look, count: usize) -> Result<bool, VerbError> {
    let s = if count == 1 { "" } else { "s" };
    let question = format!("Drop {count} letter{s} of `{}` for good? [y/N] ", dead_name(&look.queue));
    look.pause();
    let answer = tokio::task::spawn_blocking(move || {
        write!(io::stderr(), "{question}")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    tokio::select! {
        answer = answer => {
            let answer = answer.map_err(|e| VerbError::new(Code::Software, e))?;
            let answer = answer.map_err(|e| VerbError::new(Code::Io, anyhow::Error::new(e).context("no answer")))?;
            Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
        }
        () = look.interrupted() => {
            look.end(LookEnd::Interrupted);
            Ok(false)
        }
    }
}
