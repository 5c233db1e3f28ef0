//! warren.toml(5): the commented configuration as a manual page, each key with the comment that stands above it.

use clap_mangen::roff::{Roff, bold, roman};

use super::manual::{SOURCE, joined, paragraph, see_also};

/// The one place where the keys are explained.
pub(super) const REFERENCE: &str = include_str!("../../../../../config/warren.toml");

/// The whole page.
pub(super) fn page() -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["warren.toml", "5", "", SOURCE, "Warren"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("warren.toml - the configuration of warrend")]);
    roff.control("SH", ["SYNOPSIS"]);
    for path in ["/etc/warren/warren.toml", "/etc/warren/conf.d/*.toml"] {
        roff.text([bold(path)]);
        roff.control("br", []);
    }
    roff.control("SH", ["DESCRIPTION"]);
    keys(&mut roff);
    see_also(&mut roff, &[("warrend", "8"), ("warrenctl-config", "1"), ("warrenctl-reload", "1")]);
    joined(&roff.render())
}

/// Tables as headings, keys as tags. A comment is about the keys below it; one with a table or nothing below it stands
/// for itself.
fn keys(roff: &mut Roff) {
    let mut comment: Vec<&str> = Vec::new();
    let mut lines = REFERENCE.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(text) = commented(line) {
            comment.push(text);
            continue;
        }
        if line.trim_start_matches('#').starts_with('[') {
            roff.control("SS", []);
            roff.text([roman(line)]);
        } else if !line.is_empty() {
            roff.control("TP", []);
            roff.text([bold(line)]);
            while let Some(further) = lines.next_if(|next| is_key(next)) {
                roff.control("TQ", []);
                roff.text([bold(further)]);
            }
        }
        paragraph(roff, comment.drain(..));
        if line.is_empty() {
            roff.control("PP", []);
        }
    }
}

/// The text of a comment. `#key = value` is none: it is a key that is not set.
fn commented(line: &str) -> Option<&str> {
    if line == "#" { Some("") } else { line.strip_prefix("# ") }
}

fn is_key(line: &str) -> bool {
    !line.is_empty() && commented(line).is_none() && !line.trim_start_matches('#').starts_with('[')
}
