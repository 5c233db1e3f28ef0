//! `warrenctl dead`: list, show, replay, drop and export what the daemon gave up.

mod drop;
mod export;
mod filter;
mod letter;
mod list;
mod look;
mod replay;
mod show;
mod work;

use clap::{Args, Subcommand};
use warren::broker::dead::{HOLD, MAX_HOLD};
use warren::model::UnixMs;

use self::filter::{FilterArgs, LetterFilter};
use crate::Global;
use crate::exit::VerbError;

pub(crate) const EXAMPLES: &str = "\
The dead letters of a queue are in QUEUE.dead: tasks that were rejected, used their attempts up, ran out of time, killed
their host, or have no handler. The daemon need not run. A letter is looked at by fetching it, without acknowledging it,
and giving it back at the end: other consumers do not see it meanwhile, and its order stays.

Filters can be combined and are the same for every verb.

Exit status: 0 done; 64 usage; 65 no letter with that id, or some could not be replayed; 69 no broker; 74 a file cannot be
written; 75 the link was lost, or not every letter could be looked at; 78 configuration; 130 interrupted.

Examples:
  warrenctl dead list
  warrenctl dead list --handler backup-database --reason timeout --newer-than 1h
  warrenctl dead show task-4
  warrenctl dead replay --handler backup-database --dry-run
  warrenctl dead VERB --help                every verb has more";

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadVerb {
    /// List dead letters, the oldest first
    #[command(after_help = list::EXAMPLES)]
    List(Which),
    /// Show everything that is known of a dead letter, its body included
    #[command(after_help = show::EXAMPLES)]
    Show(show::ShowArgs),
    /// Send dead letters back to their queue, as tasks that were never tried
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::ReplayArgs),
    /// Delete dead letters for good
    #[command(after_help = drop::EXAMPLES)]
    Drop(drop::DropArgs),
    /// Write dead letters as JSON, one a line, and leave them where they are
    #[command(after_help = export::EXAMPLES)]
    Export(export::ExportArgs),
}

/// Which letters are meant.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The queue whose dead letters are meant; may be left out when exactly one is configured
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Hold at most this many letters while looking for those that match
    #[arg(long, value_name = "N", default_value_t = HOLD, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HOLD)))]
    look_at: u32,
}

impl Which {
    /// The filter as of now; `limit` counts where the command line has none.
    fn filter(&self, limit: Option<u64>) -> LetterFilter {
        self.filter.at(UnixMs::now(), limit)
    }
}

pub(crate) fn run(global: &Global, verb: &DeadVerb) -> Result<(), VerbError> {
    match verb {
        DeadVerb::List(which) => list::run(global, which),
        DeadVerb::Show(args) => show::run(global, args),
        DeadVerb::Replay(args) => replay::run(global, args),
        DeadVerb::Drop(args) => drop::run(global, args),
        DeadVerb::Export(args) => export::run(global, args),
    }
}
