//! The newest errors, for `warrenctl status`.

use std::collections::VecDeque;

use crate::model::UnixMs;
use crate::model::status::RecentError;

/// Errors kept.
const MAX: usize = 16;

/// Newest first.
#[derive(Debug, Default)]
pub(super) struct RecentErrors(VecDeque<RecentError>);

impl RecentErrors {
    /// Keeps an error. One that comes again and again stands there once, with its last time.
    pub(super) fn add(&mut self, at: UnixMs, handler: Option<&str>, task_id: Option<&str>, message: &str) {
        self.0.retain(|one| one.message != message || one.handler.as_deref() != handler);
        self.0.truncate(MAX - 1);
        self.0.push_front(RecentError {
            at_ms: at.0,
            handler: handler.map(str::to_owned),
            task_id: task_id.map(str::to_owned),
            message: message.to_owned(),
        });
    }

    pub(super) fn all(&self) -> Vec<RecentError> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_one_that_repeats_stands_there_once() {
        let mut errors = RecentErrors::default();
        for n in 0..40 {
            errors.add(UnixMs(n), Some("h"), None, &format!("error {}", n % 30));
        }
        let all = errors.all();
        assert_eq!(all.len(), MAX);
        assert_eq!((all[0].at_ms, &*all[0].message), (39, "error 9"));
        let again = all.iter().filter(|error| error.message == "error 9").count();
        assert_eq!(again, 1);
        errors.add(UnixMs(50), Some("g"), None, "error 9");
        assert_eq!(errors.all()[1].message, "error 9", "of another handler it is another error");
    }
}
