//! What is found: how bad it is, where, what, and what to do; how a list of that prints and which exit code it means.

use std::fmt::Write as _;

use serde::Serialize;

use crate::exit::{Code, VerbError};
use crate::output::{clean, clean_lines};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Works, and will hurt one day.
    Warning,
    /// Does not work.
    Error,
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Area {
    Config,
    Files,
    Plugins,
    Broker,
    Queues,
    Handlers,
    Daemon,
    Machine,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) area: Area,
    /// The file, address, queue, handler or process.
    #[serde(rename = "where")]
    pub(super) place: String,
    /// What is the matter.
    pub(super) what: String,
    /// What to do; empty where there is nothing to be done.
    pub(super) remedy: String,
    /// The exit code that it means as an error.
    #[serde(skip)]
    pub(super) code: Code,
}

impl Finding {
    /// Nothing to complain about.
    pub(super) fn ok(area: Area, place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Severity::Ok, area, place, what, "")
    }

    /// Something, with its remedy.
    pub(super) fn new(
        severity: Severity,
        area: Area,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let code = match area {
            Area::Broker | Area::Daemon => Code::Unavailable,
            _ => Code::Config,
        };
        Self { severity, area, place: place.into(), what: what.into(), remedy: remedy.into(), code }
    }

    /// The same, with an exit code that is not its area's.
    pub(super) fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }
}

/// How many there are of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct FindingCounts {
    pub(super) ok: usize,
    pub(super) notes: usize,
    pub(super) warnings: usize,
    pub(super) errors: usize,
}

impl FindingCounts {
    pub(super) fn of(findings: &[Finding]) -> Self {
        let number =
            |severity| findings.iter().filter(|finding: &&Finding| finding.severity == severity).count();
        Self {
            ok: number(Severity::Ok),
            notes: number(Severity::Note),
            warnings: number(Severity::Warning),
            errors: number(Severity::Error),
        }
    }

    /// `2 errors, 1 warning, 3 notes, 14 checks without a finding`.
    fn summary(self) -> String {
        let some = |count: usize, word: &str| match count {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{count} {word}s")),
        };
        let fine = match self.ok {
            1 => "1 check without a finding".to_owned(),
            count => format!("{count} checks without a finding"),
        };
        let parts = [
            some(self.errors, "error"),
            some(self.warnings, "warning"),
            some(self.notes, "note"),
            Some(fine),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// How the program ends. With `strict` a warning is as bad as an error. The worst come first; among equals the first one
/// found says which code.
pub(super) fn verdict(findings: &[Finding], strict: bool) -> Result<(), VerbError> {
    let first = |severity| findings.iter().find(|finding: &&Finding| finding.severity == severity);
    let warning = || first(Severity::Warning).filter(|_| strict);
    match first(Severity::Error).or_else(warning) {
        None => Ok(()),
        Some(finding) => Err(VerbError::text(
            finding.code,
            format!(
                "{}; the first: {}: {}",
                FindingCounts::of(findings).summary(),
                finding.place,
                finding.what
            ),
        )),
    }
}

/// For reading: a line each, the remedy below.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let severity = match finding.severity {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
        };
        let area = match finding.area {
            Area::Config => "config",
            Area::Files => "files",
            Area::Plugins => "plugins",
            Area::Broker => "broker",
            Area::Queues => "queues",
            Area::Handlers => "handlers",
            Area::Daemon => "daemon",
            Area::Machine => "machine",
        };
        let (place, what) = (clean(&finding.place), clean(&finding.what));
        let _ = writeln!(text, "{severity:<7}  {area:<8}  {place}: {what}");
        if !finding.remedy.is_empty() {
            let _ = writeln!(text, "{:19}  -> {}", "", clean_lines(&finding.remedy));
        }
    }
    let _ = writeln!(text, "{}", FindingCounts::of(findings).summary());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, area: Area) -> Finding {
        Finding::new(severity, area, "here", "something", "do this")
    }

    #[test]
    fn the_exit_code_is_that_of_the_first_of_the_worst() {
        let (note, warning) =
            (finding(Severity::Note, Area::Config), finding(Severity::Warning, Area::Broker));
        let error = finding(Severity::Error, Area::Queues);
        let forbidden = error.clone().with_code(Code::NoPermission);
        let fine = Finding::ok(Area::Machine, "here", "fine");
        let table = [
            (vec![], None, None),
            (vec![fine, note.clone()], None, None),
            (vec![note, warning.clone()], None, Some(Code::Unavailable)),
            (vec![warning.clone(), error.clone()], Some(Code::Config), Some(Code::Config)),
            (vec![warning, forbidden, error], Some(Code::NoPermission), Some(Code::NoPermission)),
        ];
        for (findings, lenient, strict) in table {
            let code = |strict| verdict(&findings, strict).err().map(|failure| failure.code());
            assert_eq!((code(false), code(true)), (lenient, strict), "{findings:?}");
        }
    }

    #[test]
    fn a_finding_reads_as_what_where_and_what_to_do() {
        let text = text(&[Finding::ok(Area::Files, "/a", "fine"), finding(Severity::Error, Area::Plugins)]);
        let expected = "ok       files     /a: fine\n\
                        ERROR    plugins   here: something\n                     -> do this\n\
                        1 error, 1 check without a finding\n";
        assert_eq!(text, expected);
    }
}
