//! `warrenctl plugin inspect`: the static facts of a plugin file.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use warren::plugin::{InspectReport, report};

use crate::Global;
use crate::exit::{Code, VerbError};
use crate::output::{clean, print, print_json, span};

pub(super) const EXAMPLES: &str = "\
Nothing of the file is mapped or run. Exit status: 0 warrend would load it; 65 it would not.

Examples:
  warrenctl plugin inspect target/release/libmine.so
  warrenctl plugin inspect --json /usr/lib/warren/plugins/orders.so | jq -r .sha256";

pub(super) fn run(global: &Global, file: &Path) -> Result<(), VerbError> {
    let facts = facts(file)?;
    if global.json {
        print_json(&facts)?;
    } else {
        print(&text(&facts))?;
    }
    verdict(&facts)
}

/// Reads the facts of a file.
pub(super) fn facts(file: &Path) -> Result<InspectReport, VerbError> {
    report(file).map_err(|e| VerbError::text(Code::Data, format!("cannot read {}: {e}", file.display())))
}

/// A failure that names the problems, if there are any.
pub(super) fn verdict(facts: &InspectReport) -> Result<(), VerbError> {
    if facts.ok {
        return Ok(());
    }
    let text = format!("{} cannot be loaded: {}", facts.path, facts.problems.join("; "));
    Err(VerbError::text(Code::Data, text))
}

fn text(facts: &InspectReport) -> String {
    let mut rows = vec![("file", facts.path.clone())];
    let mut push = |name, value: Option<String>| rows.extend(value.map(|value| (name, value)));
    push("name", facts.name.clone());
    push("version", facts.version.clone());
    push("abi", facts.abi.clone());
    let quoted: Vec<_> = facts.prefixes.iter().map(|prefix| format!("{prefix:?}")).collect();
    push("prefixes", (!quoted.is_empty()).then(|| quoted.join(", ")));
    push("timeout", facts.timeout_ms.map(|ms| span(Duration::from_millis(ms))));
    push("settings", (!facts.settings.is_empty()).then(|| facts.settings.join(", ")));
    push("sha256", Some(facts.sha256.clone()));
    push("size", Some(format!("{} bytes", facts.size)));
    push("machine", facts.machine.clone());
    push("needs", (!facts.needed.is_empty()).then(|| facts.needed.join(", ")));
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<8}  {}", clean(&value));
    }
    text
}
