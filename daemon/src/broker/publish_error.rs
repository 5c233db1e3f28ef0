//! Why a message cannot be published.

use super::declare::QueueError;

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
    /// The broker refuses it.
    #[error("the broker refuses the message for `{queue}`: {why}")]
    Refused {
        /// Where it was to go.
        queue: String,
        /// The broker's words.
        why: String,
    },
    /// Its headers do not fit into one frame.
    #[error(
        "the headers of the message for `{queue}` have {bytes} bytes, one frame has {limit}; raise the broker's `frame_max`"
    )]
    TooLarge {
        /// Where it was to go.
        queue: String,
        /// Upper bound of its properties on the wire.
        bytes: usize,
        /// What fits.
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
