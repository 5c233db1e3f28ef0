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
