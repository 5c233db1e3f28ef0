//! Dead letters: what a message in `<queue>.dead` says of itself. Pure; [`Browse`] looks through the queue, [`Replay`]
//! sends a letter on its way again.

mod browse;
mod replay;
#[cfg(test)]
mod tests;

use lapin::BasicProperties;

pub use browse::{Browse, Found, HOLD, Looked, MAX_HOLD, Tag};
pub use replay::{Replay, ReplayError};

use crate::model::{TaskId, UnixMs};
use crate::task::known_id;
use crate::task::own::{self, HEADER_ATTEMPT, HEADER_DROPPED, HEADER_QUEUE, HEADER_REASON, RecordedFailure};

/// A dead letter. What it does not say, or says in a way that cannot be read, is absent: anybody can publish to a dead
/// queue.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    pub id: Option<TaskId>,
    /// The work queue it came from.
    pub queue: Option<String>,
    /// Why it is dead: the word of a [`DeadReason`](crate::model::DeadReason), or of another version's.
    pub reason: Option<String>,
    /// The handler that failed last.
    pub handler: Option<String>,
    pub error_code: Option<String>,
    /// The last failure's message.
    pub error: Option<String>,
    pub attempts: Option<u32>,
    /// When it failed for the first time, to the second.
    pub first_failure: Option<UnixMs>,
    /// When it failed for the last time, to the second.
    pub last_failure: Option<UnixMs>,
    /// The producer's headers that there was no room for, by name.
    pub headers_dropped: Option<String>,
    /// How often it was given back to its queue, where the broker counts that (quorum queues).
    pub returns: u32,
    /// The original's properties, with the headers that the above was read from.
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl DeadLetter {
    pub fn read(properties: BasicProperties, body: Vec<u8>) -> Self {
        let headers = properties.headers().as_ref();
        let text = |name: &str| own::note(&properties, name);
        let failure = RecordedFailure::read(&properties);
        Self {
            id: known_id(&properties),
            queue: text(HEADER_QUEUE),
            reason: text(HEADER_REASON),
            handler: failure.handler,
            error_code: failure.code,
            error: failure.message,
            attempts: Some(own::count(headers, HEADER_ATTEMPT)).filter(|&attempts| attempts > 0),
            first_failure: failure.first,
            last_failure: failure.last,
            headers_dropped: text(HEADER_DROPPED),
            returns: own::count(headers, HEADER_RETURNS),
            properties,
            body,
        }
    }

    /// The queue it goes back to: the one it came from, else the one whose dead letters are looked at.
    pub fn origin<'a>(&'a self, work_queue: &'a str) -> &'a str {
        self.queue.as_deref().unwrap_or(work_queue)
    }
}

/// How often a quorum queue has handed the message out before.
const HEADER_RETURNS: &str = "x-delivery-count";
