//! Whether the broker may take deliveries away from handlers that are only slow.
//!
//! The plugins' own limits are not in the files: [`Config::load`] checks the handlers whose `timeout` is stated,
//! [`Config::consumer_timeout_risks`] checks what is loaded.

use std::time::Duration;

use super::{Config, Limits, Queue};
use crate::model::duration::format_duration;

/// What an operator can do about it.
pub(super) const REMEDY: &str = "shorten timeout, lower prefetch or workers of the queue, or raise consumer_timeout here and at the broker";

impl Config {
    /// Warnings for an operator: why this handler, loaded with these bounds and this limit on a task's time in
    /// force, can hold a delivery longer than the broker's `consumer_timeout`. Empty when it cannot, and when
    /// [`Config::load`] has warned of it already. `queues` of `None` means all.
    pub fn consumer_timeout_risks(
        &self,
        handler: &str,
        queues: Option<&[String]>,
        limits: &Limits,
        timeout: Duration,
    ) -> Vec<String> {
        if self.was_checked(handler, queues, limits, timeout) {
            return Vec::new();
        }
        let takes =
            |queue: &&Queue| queues.is_none_or(|names| names.iter().any(|name| **name == *queue.name));
        let risk = |queue: &Queue| {
            let why = queue.consumer_timeout_risk(limits, timeout, self.broker.consumer_timeout)?;
            Some(format!("handler {handler:?}: {why}: {REMEDY}"))
        };
        self.queues.iter().filter(takes).filter_map(risk).collect()
    }

    /// Whether the files state all that matters here, so that it was checked with them. A handler that a failed
    /// reload left running may have other bounds than the files now give it.
    fn was_checked(&self, name: &str, queues: Option<&[String]>, limits: &Limits, timeout: Duration) -> bool {
        self.handlers.iter().any(|stated| {
            &*stated.name == name
                && stated.queues.as_deref() == queues
                && stated.limits.timeout == Some(timeout)
                && stated.limits.workers == limits.workers
                && stated.limits.grace == limits.grace
        })
    }
}

impl Queue {
    /// Why a handler with these bounds can hold a delivery of this queue longer than the broker's
    /// `consumer_timeout`, which then closes the channel and redelivers everything on it; `None`: it cannot.
    /// The worst case is a window full of this handler's tasks. A `consumer_timeout` of zero means: none.
    pub fn consumer_timeout_risk(
        &self,
        limits: &Limits,
        timeout: Duration,
        consumer_timeout: Duration,
    ) -> Option<String> {
        let at_once = limits.workers.unwrap_or(self.workers).min(self.workers).max(1);
        let rounds = self.window().div_ceil(at_once);
        let worst = (timeout + limits.grace).saturating_mul(u32::from(rounds));
        (!consumer_timeout.is_zero() && worst > consumer_timeout).then(|| {
            format!(
                "queue {:?} may hold a delivery for {} ({} × {} unacknowledged, {at_once} at once, {} each), \
                 the broker's consumer_timeout is {}",
                &*self.name,
                format_duration(worst),
                self.prefetch,
                self.workers,
                format_duration(timeout + limits.grace),
                format_duration(consumer_timeout),
            )
        })
    }
}
