//! Why a task did not get done: the SDK's one error type.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why a task did not get done, and what should become of it. Made by [`retry`], by [`reject`], by `?` on any
/// error (which means retry), or by [`crate::Call::check`] when the task should stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    kind: Kind,
    code: String,
    message: String,
    retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Retry,
    Reject,
    Cancelled,
    Fault,
}

/// The task should be tried again: what stopped it may pass. `code` is a short kebab-case word for machines, e.g.
/// `server-busy`; `message` is a line for people.
pub fn retry(code: impl Into<String>, message: impl Into<String>) -> Failure {
    Failure::new(Kind::Retry, code, message)
}

/// The task should never be tried again: it cannot succeed as it is. It becomes a dead letter with this reason.
pub fn reject(code: impl Into<String>, message: impl Into<String>) -> Failure {
    Failure::new(Kind::Reject, code, message)
}

impl Failure {
    pub(crate) fn new(kind: Kind, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, code: code.into(), message: message.into(), retry_after: None }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Asks for this delay before the next attempt, in place of the configured one (which still bounds it). Says
    /// nothing on a rejection.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The word for machines: the handler's own, `error` for a converted error, or one of [`crate::abi::fault`].
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The line for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the task is to be tried again.
    pub fn is_retry(&self) -> bool {
        self.kind == Kind::Retry
    }

    /// Whether the task is never to be tried again.
    pub fn is_reject(&self) -> bool {
        self.kind == Kind::Reject
    }

    /// Whether the handler stopped because it was asked to or its deadline had passed.
    pub fn is_cancelled(&self) -> bool {
        self.kind == Kind::Cancelled
    }

    /// Whether the handler itself is broken: it panicked, or broke a bound. Seen only in tests.
    pub fn is_fault(&self) -> bool {
        self.kind == Kind::Fault
    }

    /// The delay asked for by [`after`](Self::after).
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// `?` on any error means retry: code `error`, and the error with all its causes as the message. `Failure` itself
/// is therefore not an [`Error`].
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        retry("error", chain(&error))
    }
}

/// The error and its causes, joined by `: `. A cause that its outer error already quotes is not repeated.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &dyn Error)
        }
    }

    #[test]
    fn a_converted_error_tells_its_causes_once() {
        let cause = || Some(Box::new(Layer("disk full", None)));
        let plain = Failure::from(Layer("cannot write", cause()));
        assert_eq!((plain.code(), plain.message()), ("error", "cannot write: disk full"));
        let quoting = Failure::from(Layer("cannot write: disk full", cause()));
        assert_eq!(quoting.message(), "cannot write: disk full");
    }

    #[test]
    fn a_failure_is_exactly_one_kind() {
        let kinds = |f: &Failure| [f.is_retry(), f.is_reject(), f.is_cancelled(), f.is_fault()];
        assert_eq!(kinds(&retry("busy", "later")), [true, false, false, false]);
        assert_eq!(kinds(&reject("bad", "never")), [false, true, false, false]);
        assert_eq!(retry("busy", "later").to_string(), "busy: later");
        assert_eq!(retry("busy", "later").after(Duration::ZERO).retry_after(), Some(Duration::ZERO));
    }
}
