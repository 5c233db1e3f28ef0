//! `warrenctl dead show`.

use clap::Args;

use super::Which;
use super::letter::Whole;
use super::look::look;
use crate::Global;
use crate::exit::{Code, VerbError};
use crate::output::{note, print, print_json};

pub(super) const EXAMPLES: &str = "\
A letter's reason, handler, error, attempts and times, the properties and headers of the original, and its body. Several
letters can have one id, when a task was published or run twice: all are shown. With --json a letter is one object: its
body is in `body`, or in `body_base64` where it is not UTF-8. Exit status 65: there is no letter with that id.

Examples:
  warrenctl dead show task-4
  warrenctl dead show --reason poison --limit 1
  warrenctl dead show task-4 --json | jq -r .body";

/// What to show.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The letter's id, as `list` shows it
    #[arg(value_name = "ID")]
    letters: Vec<String>,
    #[command(flatten)]
    which: Which,
}

pub(super) fn run(global: &Global, args: &ShowArgs) -> Result<(), VerbError> {
    if args.letters.is_empty() && !args.which.filter.is_any() {
        return Err(VerbError::text(
            Code::Usage,
            "which letter? Name its ID, or a filter such as --handler (--help)",
        ));
    }
    let mut filter = args.which.filter(None);
    filter.ids.extend(args.letters.iter().cloned());
    let tally = look(global, &args.which, "show", filter, async |mut look| {
        let mut count = 0;
        while let Some(found) = look.next().await? {
            let whole = Whole::of(&found.letter);
            if global.json {
                print_json(&whole)?;
            } else {
                let gap = if count > 0 { "\n" } else { "" };
                print(&format!("{gap}{}", whole.text()))?;
            }
            count += 1;
        }
        Ok(look.close().await.0)
    })?;
    if let Some(remark) = tally.verdict(false)? {
        note(&remark);
    }
    if tally.matched == 0 {
        return Err(VerbError::text(Code::Data, format!("no letter in `{}` matches", tally.queue)));
    }
    Ok(())
}
