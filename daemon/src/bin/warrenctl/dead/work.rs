//! Shared by replay and drop: selection, confirmation, report.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use warren::broker::dead::DeadLetter;

use super::Which;
use super::letter::{Summary, name, table};
use super::look::Tally;
use crate::Global;
use crate::exit::{Code, VerbError};
use crate::output::{clean, note, print, print_json};

/// Failed letters that are named one by one; JSON names all.
const MAX_NAMED: usize = 20;

/// Which letters, and whether to touch them.
#[derive(Debug, Args)]
pub(super) struct WorkArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// Every letter: has to be said where no filter says which
    #[arg(long)]
    all: bool,
    /// Show which letters are meant, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// What a run has done.
#[derive(Debug, Default)]
pub(super) struct WorkReport {
    /// Letters done with.
    pub(super) done: u64,
    /// Letters that stay because something is wrong with them.
    failed: Vec<Failed>,
    /// What a dry run would do.
    would: Vec<Summary>,
    /// Why it could not go on.
    pub(super) stopped: Option<VerbError>,
}

/// A letter that stays.
#[derive(Debug, Serialize)]
struct Failed {
    id: String,
    to: String,
    why: String,
}

impl WorkArgs {
    /// No letter is touched by having forgotten to say which.
    pub(super) fn check(&self) -> Result<(), VerbError> {
        let why = match (self.all, self.which.filter.is_any()) {
            (false, false) => "which letters? Name them by --id, --handler, --reason and so on, or say --all",
            (true, true) => "--all is every letter, the filters beside it are not: leave one of the two out",
            _ => return Ok(()),
        };
        Err(VerbError::text(Code::Usage, why))
    }
}

impl WorkReport {
    /// A letter that would be touched.
    pub(super) fn would(&mut self, letter: Summary) {
        self.would.push(letter);
    }

    /// A letter could not be sent to `queue`.
    pub(super) fn fail(&mut self, letter: &DeadLetter, queue: &str, why: String) {
        self.failed.push(Failed { id: name(letter), to: queue.to_owned(), why });
    }

    /// Prints the report, and ends as the report says. `word` is what was done to the letters.
    pub(super) fn conclude(
        self,
        global: &Global,
        word: &str,
        args: &WorkArgs,
        tally: &Tally,
    ) -> Result<(), VerbError> {
        if global.json {
            let mut report = json!({
                "dry_run": args.dry_run, word: self.done, "failed": self.failed, "left": tally.left(),
            });
            if args.dry_run {
                report["letters"] = json!(self.would);
            }
            let tally = json!(tally);
            for (key, value) in tally.as_object().into_iter().flatten() {
                report[key] = value.clone();
            }
            print_json(&report)?;
        } else {
            print(&self.text(word, args.dry_run, tally))?;
        }
        let verdict = tally.verdict(true);
        if let Some(stopped) =
            self.stopped.filter(|_| !matches!(&verdict, Err(why) if why.code() == Code::Interrupted))
        {
            return Err(stopped);
        }
        if let Some(remark) = verdict? {
            note(&remark);
        }
        match self.failed.len() {
            0 => Ok(()),
            1 => Err(VerbError::text(Code::Data, format!("one letter could not be {word} and stays"))),
            count => {
                Err(VerbError::text(Code::Data, format!("{count} letters could not be {word} and stay")))
            }
        }
    }

    fn text(&self, word: &str, is_dry: bool, tally: &Tally) -> String {
        let letters = |count: u64| format!("{count} letter{}", if count == 1 { "" } else { "s" });
        if is_dry {
            let count = self.would.len() as u64;
            let table = if count > 0 { table(&self.would) } else { String::new() };
            let left = u64::from(tally.depth) - count;
            return format!(
                "{table}{} would be {word}, {left} left in {}; nothing was changed\n",
                letters(count),
                tally.queue
            );
        }
        let mut text = format!("{} {word}, {} left in {}\n", letters(self.done), tally.left(), tally.queue);
        for Failed { id, to, why } in self.failed.iter().take(MAX_NAMED) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "not {word}: {} to {}: {}", clean(id), clean(to), clean(why));
        }
        if self.failed.len() > MAX_NAMED {
            let _ = writeln!(text, "and {} more; --json names all", self.failed.len() - MAX_NAMED);
        }
        text
    }
}
