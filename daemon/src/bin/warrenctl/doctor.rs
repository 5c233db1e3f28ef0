//! `warrenctl doctor`: facts are gathered, checked and printed.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `gather` | asks files, broker, daemon, systemd and kernel; changes nothing |
//! | `facts` | what it found |
//! | `checks` | facts → findings; pure |
//! | `finding` | how findings print, and which exit code they mean |

mod checks;
mod facts;
mod finding;
mod gather;

use clap::Args;
use serde_json::json;

use crate::Global;
use crate::exit::VerbError;
use crate::output::{print, print_json};

pub(crate) const EXAMPLES: &str = "\
Looked at: configuration, owners and modes of its files, plugins, broker, permissions there, queues with their dead
letters and delay queues, handlers against all of them, the running daemon and its unit, limits, disk, clock. Nothing is
changed: no queue is declared, no task touched, no code of a plugin run. Ask as root or as warrend's user; what others may
not see is said not to be known.

Exit status: 0 nothing worse than a warning; otherwise that of the first error: 69 no broker, or a daemon in trouble; 77 a
permission at the broker is missing; 78 configuration, plugins, queues or machine. With --strict a warning counts as one.

Examples:
  warrenctl doctor
  warrenctl doctor --strict && systemctl start warrend
  warrenctl doctor --json | jq -r '.findings[] | select(.severity != \"ok\") | \"\\(.where): \\(.what); \\(.remedy)\"'";

/// How to judge.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Exit with an error for warnings, too
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(global: &Global, args: &DoctorArgs) -> Result<(), VerbError> {
    let findings = checks::all(&gather::facts(global)?);
    let verdict = finding::verdict(&findings, args.strict);
    if global.json {
        let count = finding::FindingCounts::of(&findings);
        print_json(&json!({"ok": verdict.is_ok(), "count": count, "findings": findings}))?;
    } else {
        print(&finding::text(&findings))?;
    }
    verdict
}
