//! The task a handler is given.

use crate::raw::RawTask;
use crate::{Failure, abi, reject};
use serde::de::DeserializeOwned;

/// One task; borrowed from the host for the call.
pub struct Task<'a> {
    raw: RawTask<'a>,
}

impl<'a> Task<'a> {
    pub(crate) fn new(raw: RawTask<'a>) -> Self {
        Self { raw }
    }

    /// The task's id: the same on every attempt and redelivery, so effects can be keyed by it.
    pub fn id(&self) -> &'a str {
        self.raw.id
    }

    /// The producer gave no id and this one is Warren's. It stays with the task's copies, but a producer that
    /// sends the same task twice gets two ids.
    pub fn id_is_generated(&self) -> bool {
        self.raw.flags & abi::TASK_ID_GENERATED != 0
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.raw.attempt
    }

    /// The broker delivered it before: it may have run, wholly or in part.
    pub fn redelivered(&self) -> bool {
        self.raw.flags & abi::TASK_REDELIVERED != 0
    }

    /// The queue it came from.
    pub fn queue(&self) -> &'a str {
        self.raw.queue
    }

    /// The prefix that matched, or the AMQP `type` that did.
    pub fn prefix(&self) -> &'a str {
        self.raw.prefix
    }

    /// What follows the prefix, trimmed: `#1001` of `Task 1: Process order #1001`.
    pub fn argument(&self) -> &'a str {
        self.raw.argument
    }

    /// AMQP `content_type`; empty when the producer gave none.
    pub fn content_type(&self) -> &'a str {
        self.raw.content_type
    }

    /// The whole body, label and prefix included.
    pub fn body(&self) -> &'a [u8] {
        self.raw.body
    }

    /// The whole body as text; otherwise rejected as `not-utf8`.
    pub fn text(&self) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.raw.body)
            .map_err(|error| reject("not-utf8", format!("the body is not UTF-8: {error}")))
    }

    /// The whole body as JSON; otherwise rejected as `bad-json`. For tasks routed by their AMQP `type`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(self.raw.body)
            .map_err(|error| reject("bad-json", format!("the body is not the JSON expected: {error}")))
    }

    /// The value of a header; one that is not a string is its JSON.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.raw.headers().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All headers, Warren's own left out.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.raw.headers()
    }
}
