//! What is wrong with a configuration, said so that an operator can mend it: the place, the key, the fault and
//! the remedy. No credential ever gets into one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a value was stated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file. Line and column count from 1, columns in characters; line 0 means the file as a whole.
    File {
        path: Arc<Path>,
        /// Line, from 1; 0: the whole file.
        line: usize,
        /// Column in characters, from 1; 0: the whole line.
        column: usize,
    },
    /// In this environment variable.
    Variable(String),
}

impl Place {
    /// A whole file.
    pub(super) fn file(path: &Path) -> Self {
        Self::File { path: path.into(), line: 0, column: 0 }
    }

    /// The directory against which a relative path stated here is taken: the file's own.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => path.parent(),
            Self::Variable(_) => None,
        }
    }

    /// `file:line`, without the column.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::File { path, line, .. } if *line > 0 => format!("{}:{line}", path.display()),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column: 0 } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where it was stated.
    pub place: Place,
    /// The dotted key, e.g. `queues.mail.prefetch`; empty when it concerns the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do, the allowed values included.
    pub remedy: String,
}

impl Diagnostic {
    /// For `--json` output; `file` and `line` are null where there are none.
    pub fn to_json(&self) -> serde_json::Value {
        let (file, line, column, variable) = match &self.place {
            Place::File { path, line, column } => {
                let at = |n: usize| (n > 0).then_some(n);
                (Some(path.display().to_string()), at(*line), at(*column), None)
            }
            Place::Variable(name) => (None, None, None, Some(name)),
        };
        serde_json::json!({
            "file": file, "line": line, "column": column, "variable": variable,
            "key": self.key, "message": self.message, "remedy": self.remedy,
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration, in the order of the files. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Diagnostic>);

impl fmt::Display for ConfigErrors {
    /// One line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects faults while the rest of the configuration is still being checked.
#[derive(Debug, Default)]
pub(super) struct Problems {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Problems {
    /// Whether nothing is wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn error(
        &mut self,
        place: &Place,
        key: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.errors.push(diagnostic(place, key, &message.into(), &remedy.into()));
    }

    pub(super) fn warning(
        &mut self,
        place: &Place,
        key: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.warnings.push(diagnostic(place, key, &message.into(), &remedy.into()));
    }

    /// The errors, or the warnings when there are none. Files stay in the order given, lines are sorted.
    pub(super) fn finish(mut self, files: &[PathBuf]) -> Result<Vec<Diagnostic>, ConfigErrors> {
        let rank = |d: &Diagnostic| match &d.place {
            Place::File { path, line, column } => {
                (files.iter().position(|f| **f == **path).unwrap_or(files.len()), *line, *column)
            }
            Place::Variable(_) => (usize::MAX, 0, 0),
        };
        self.errors.sort_by_key(rank);
        self.warnings.sort_by_key(rank);
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(ConfigErrors(self.errors)) }
    }
}

fn diagnostic(place: &Place, key: &str, message: &str, remedy: &str) -> Diagnostic {
    Diagnostic { place: place.clone(), key: clean(key), message: clean(message), remedy: clean(remedy) }
}

/// Makes text fit to print: one line, and what stands between `://` and `@` is masked wherever it appears.
/// The checks do not put credentials into messages; this is for a URI that was written under the wrong key.
pub(super) fn clean(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in mask_userinfo(text).chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Replaces the user and password of every URI in `text` by `***`.
pub(super) fn mask_userinfo(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        out.push_str(before);
        // A password may hold unescaped slashes: everything up to the last `@` of the word is masked.
        let word = after.find(char::is_whitespace).unwrap_or(after.len());
        rest = match after[..word].rfind('@') {
            Some(at) => {
                out.push_str("***");
                &after[at..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    out
}

/// The candidate that `word` was probably meant to be.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let normal = |s: &str| s.to_lowercase().replace('-', "_");
    let word = normal(word);
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&word, &normal(c)), c))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userinfo_is_masked_wherever_it_stands() {
        let table = [
            ("amqp://u:p@host/v", "amqp://***@host/v"),
            ("a amqp://u:p/q?r#s@host b amqps://x@y", "a amqp://***@host b amqps://***@y"),
            ("amqp://host:5672/v", "amqp://host:5672/v"),
            ("://@", "://***@"),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(mask_userinfo(text), expected);
        }
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        assert_eq!(clean("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
    }

    #[test]
    fn suggestions_are_near_and_case_and_dashes_do_not_count() {
        assert_eq!(did_you_mean("prefech", ["prefetch", "workers"]), Some("prefetch"));
        assert_eq!(did_you_mean("Max-Tasks", ["max_tasks", "max_rss"]), Some("max_tasks"));
        assert_eq!(did_you_mean("colour", ["prefetch", "workers"]), None);
        assert_eq!(did_you_mean("", ["uri"]), None);
    }
}
