//! `warrenctl dead list`.

use serde::Serialize;

use super::Which;
use super::letter::{Summary, table};
use super::look::{Tally, look};
use crate::Global;
use crate::exit::VerbError;
use crate::output::{note, print, print_json};

/// A screen or two, unless asked otherwise.
const LIMIT: u64 = 100;

pub(super) const EXAMPLES: &str = "\
Without --limit the oldest 100 letters that match. AGE is the time since the last failure. With --json also how many
letters were looked at, and why it ended there: complete, limit, bound (--look-at) or interrupted.

Examples:
  warrenctl dead list
  warrenctl dead list --reason unroutable --text invoice
  warrenctl dead list --queue mail --newer-than 1h --limit 10
  warrenctl dead list --json | jq -r '.letters[] | select(.attempts > 3) | .id'";

/// The list as JSON.
#[derive(Debug, Serialize)]
struct List {
    #[serde(flatten)]
    tally: Tally,
    letters: Vec<Summary>,
}

pub(super) fn run(global: &Global, which: &Which) -> Result<(), VerbError> {
    let list = look(global, which, "list", which.filter(Some(LIMIT)), async |mut look| {
        let mut letters = Vec::new();
        while let Some(found) = look.next().await? {
            letters.push(Summary::of(&found.letter));
        }
        Ok(List { tally: look.close().await.0, letters })
    })?;
    if global.json {
        print_json(&list)?;
    } else if list.letters.is_empty() {
        let match_ = if list.tally.depth > 0 { " that match" } else { "" };
        print(&format!("no dead letters{match_} in {}\n", list.tally.queue))?;
    } else {
        print(&table(&list.letters))?;
    }
    if let Some(remark) = list.tally.verdict(false)? {
        note(&remark);
    }
    Ok(())
}
