//! Why a queue cannot be used, with the remedy.

use super::topology;
use crate::broker::dial::ANSWER_LIMIT;

/// Why a queue cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// It is a stream.
    #[error(
        "queue `{0}` is a stream; a stream keeps its messages when they are acknowledged, Warren needs a classic or quorum queue: configure another name"
    )]
    Stream(String),
    /// The user may not.
    #[error(
        "queue `{queue}`: {why}; Warren needs configure, write and read permission on `{}`, and write on `amq\\.default` (rabbitmqctl set_permissions)",
        topology::permission_pattern(topology::work_queue_of(queue).unwrap_or(queue))
    )]
    Refused {
        queue: String,
        /// The broker's words.
        why: String,
    },
    /// It exists, and as something else than what it has to be.
    #[error(
        "queue `{queue}` exists with other arguments: {why}; delete it when it is empty, or configure another name"
    )]
    Different {
        queue: String,
        /// The broker's words.
        why: String,
    },
    /// AMQP allows 255 bytes.
    #[error("queue `{0}`: the name is longer than the 255 bytes that AMQP allows, `.retry.<ms>` included")]
    NameTooLong(String),
    /// Another error of the channel.
    #[error("queue `{queue}`: {why}")]
    Broker {
        queue: String,
        /// The broker's words.
        why: String,
    },
    /// No answer about this queue, on a connection that may be fine.
    #[error(
        "queue `{queue}`: the broker did not answer in {ANSWER_LIMIT:?}; its node may be down, or a quorum queue without its majority"
    )]
    Silent { queue: String },
    /// The connection is gone: nothing is known of the queue.
    #[error("{0}")]
    Link(String),
}
