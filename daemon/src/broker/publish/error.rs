//! Why a message cannot be published.

use crate::broker::queues::QueueError;

/// Why a publish is given up: mostly because it cannot succeed, however often it is tried.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// The broker gave it back: there is no such queue.
    #[error("there is no queue `{queue}` ({why}); declare it, or configure it under [queues]")]
    Returned {
        /// Where it was to go.
        queue: String,
        /// The broker's words.
        why: String,
    },
    /// The broker refuses it, and may take it another time.
    #[error("the broker refuses the message for `{queue}`: {why}")]
    Refused {
        /// Where it was to go.
        queue: String,
        /// The broker's words.
        why: String,
    },
    /// The broker refuses it for what it is: as it stands it is never taken.
    #[error("the broker refuses this message for `{queue}`: {why}")]
    Unacceptable {
        /// Where it was to go.
        queue: String,
        /// The broker's words.
        why: String,
    },
    /// Its headers do not fit into one frame.
    #[error(
        "properties and headers of the message for `{queue}` have {bytes} bytes, one frame has room for {limit}; give it fewer headers, or keep their data in the body"
    )]
    TooLarge {
        /// Where it was to go.
        queue: String,
        /// Its properties on the wire.
        bytes: usize,
        limit: usize,
    },
    /// The broker says nothing to it, and there is another queue it can go to.
    #[error("{why}")]
    Silent {
        /// What was waited for, and the remedy.
        why: String,
    },
    /// What it was to go to cannot be made sure of.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// It is not something AMQP can carry.
    #[error("{0}")]
    Malformed(String),
    /// The link was closed meanwhile.
    #[error("the link to the broker is closed")]
    Closed,
}
