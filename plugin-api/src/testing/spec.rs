//! A task as a test states it, and what the daemon would make of it.

use crate::abi::{self, Bytes};
use crate::hosting::{ends_on_word_boundary, split_label, trim_newline};
use crate::raw::field;

/// A task to run in a [`TestKit`](super::TestKit): a first attempt from queue `tasks` with a generated id, unless
/// said otherwise.
#[derive(Debug, Clone)]
pub struct TaskSpec {
    body: Vec<u8>,
    message_type: Option<String>,
    id: Option<String>,
    attempt: u32,
    redelivered: bool,
    queue: String,
    content_type: String,
    headers: Vec<(String, String)>,
}

impl TaskSpec {
    /// A task of text, routed by its prefix, e.g. `Task 1: Process order #1001`.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            body: text.into().into_bytes(),
            message_type: None,
            id: None,
            attempt: 1,
            redelivered: false,
            queue: "tasks".to_owned(),
            content_type: String::new(),
            headers: Vec::new(),
        }
    }

    /// A task routed by its AMQP `type`, with any body; its argument is empty.
    pub fn typed(message_type: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), message_type: Some(message_type.into()), ..Self::text("") }
    }

    /// The id its producer gave it.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Which attempt it is, from 1.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// The broker delivered it before.
    #[must_use]
    pub fn redelivered(mut self) -> Self {
        self.redelivered = true;
        self
    }

    /// The queue it came from.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = queue.into();
        self
    }

    /// Its MIME type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = content_type.into();
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((key.into(), value.into()));
        self
    }

    /// Finds prefix and argument as the daemon does. `run` numbers the generated id.
    pub(super) fn resolve(self, prefixes: &[String], run: u32) -> Resolved {
        let text = String::from_utf8_lossy(&self.body);
        let (prefix, argument) = match self.message_type.as_deref() {
            Some(name) if prefixes.is_empty() || prefixes.iter().any(|prefix| prefix == name) => (name, ""),
            _ => route(&text, prefixes),
        };
        let (prefix, argument) = (prefix.to_owned(), argument.to_owned());
        let id = self.id.clone().unwrap_or_else(|| format!("kit-{run}"));
        Resolved { id, prefix, argument, spec: self }
    }
}

impl<T: Into<String>> From<T> for TaskSpec {
    fn from(text: T) -> Self {
        Self::text(text)
    }
}

/// A task with its prefix and argument found.
pub(super) struct Resolved {
    spec: TaskSpec,
    id: String,
    prefix: String,
    argument: String,
}

impl Resolved {
    /// Gives `f` the task as the ABI has it. It borrows from `self`, so it must not be kept.
    pub(super) fn with_abi<R>(&self, f: impl FnOnce(&abi::Task) -> R) -> R {
        let spec = &self.spec;
        let headers: Vec<abi::Field> = spec.headers.iter().map(|(key, value)| field(key, value)).collect();
        let redelivered = if spec.redelivered { abi::TASK_REDELIVERED } else { 0 };
        let generated = if spec.id.is_none() { abi::TASK_ID_GENERATED } else { 0 };
        f(&abi::Task {
            struct_size: size_of::<abi::Task>() as u32,
            attempt: spec.attempt,
            flags: redelivered | generated,
            n_headers: headers.len() as u32,
            id: Bytes::of(self.id.as_bytes()),
            queue: Bytes::of(spec.queue.as_bytes()),
            prefix: Bytes::of(self.prefix.as_bytes()),
            argument: Bytes::of(self.argument.as_bytes()),
            content_type: Bytes::of(spec.content_type.as_bytes()),
            body: Bytes::of(&spec.body),
            headers: headers.as_ptr(),
        })
    }
}

/// Prefix and argument of a text, as the daemon finds them: the label is dropped, the longest prefix on a
/// word boundary wins; if none does, a prefix of the whole text may.
fn route<'a>(text: &'a str, prefixes: &'a [String]) -> (&'a str, &'a str) {
    let text = &text[..trim_newline(text.as_bytes()).len()];
    let stripped = &text[text.len() - split_label(text.as_bytes()).len()..];
    if prefixes.is_empty() {
        return ("", stripped.trim_ascii());
    }
    let Some(found) = longest_prefix(stripped, prefixes).or_else(|| longest_prefix(text, prefixes)) else {
        panic!("no prefix of {prefixes:?} takes the task {text:?}");
    };
    found
}

fn longest_prefix<'a>(text: &'a str, prefixes: &'a [String]) -> Option<(&'a str, &'a str)> {
    let takes = |prefix: &'a String| {
        let rest = text.strip_prefix(prefix.as_str())?;
        let takes = ends_on_word_boundary(prefix.as_bytes(), text.as_bytes());
        takes.then_some((prefix.as_str(), rest.trim_ascii()))
    };
    prefixes.iter().filter_map(takes).max_by_key(|(prefix, _)| prefix.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_routed_as_the_daemon_routes_them() {
        let prefixes = ["Process order", "Process", "Task 7: Special", "Send #"].map(str::to_owned);
        let table = [
            ("Task 1: Process order #1001\r\n", "Process order", "#1001"),
            ("Task \t12 :Process order", "Process order", ""),
            ("Process orders now", "Process", "orders now"),
            ("Task 7: Special delivery", "Task 7: Special", "delivery"),
            ("Send #1", "Send #", "1"),
            ("Process\n\n", "Process", ""),
        ];
        for (text, prefix, argument) in table {
            assert_eq!(route(text, &prefixes), (prefix, argument), "{text:?}");
        }
        assert_eq!(route("Task 3:  all of it ", &[]), ("", "all of it"));
        for unlabelled in ["Task: x", "Task1: x", "Task one: x", "Task 1 x", "task 1: x"] {
            assert_eq!(route(unlabelled, &[]), ("", unlabelled));
        }
    }
}
