//! One question about a queue: a declaration, passive or not, on a channel of its own, because an answer that is an error
//! closes the channel.

use lapin::options::QueueDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{FieldTable, ShortString};
use lapin::{Connection, ErrorKind};

use super::error::QueueError;
use crate::broker::dial::{LinkError, answered, open_channel};

/// Why the broker did not declare or find a queue.
#[derive(Debug)]
pub(in crate::broker) enum QuestionError {
    /// There is no such queue.
    Missing,
    /// The user may not.
    Refused(String),
    /// The queue exists with other arguments, or the arguments are invalid.
    Different(String),
    /// Another error of the channel.
    Other(String),
    /// The connection is gone.
    Link(String),
    /// No answer within the bound.
    Silent,
    /// AMQP allows 255 bytes.
    NameTooLong,
}

impl QuestionError {
    /// The error with the name of the queue.
    pub(in crate::broker) fn about(self, queue: &str) -> QueueError {
        let queue = queue.to_owned();
        match self {
            Self::Missing => QueueError::Broker { queue, why: "it does not exist".to_owned() },
            Self::Refused(why) => QueueError::Refused { queue, why },
            Self::Different(why) => QueueError::Different { queue, why },
            Self::Other(why) => QueueError::Broker { queue, why },
            Self::Link(why) => QueueError::Link(why),
            Self::Silent => QueueError::Silent { queue },
            Self::NameTooLong => QueueError::NameTooLong(queue),
        }
    }
}

/// Declares a queue; with `passive`, only asks for it. The answer has the number of ready messages and of consumers.
pub(in crate::broker) async fn ask(
    connection: &Connection,
    name: &str,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> Result<lapin::Queue, QuestionError> {
    let name = ShortString::try_new(name).map_err(|_| QuestionError::NameTooLong)?;
    let channel = open_channel(connection).await.map_err(|error| QuestionError::from(&error))?;
    let declared = answered(channel.queue_declare(name, options, arguments)).await;
    match declared {
        Ok(queue) => {
            // Dropping it would do, but lapin would warn; an error here is of no interest.
            let _ = answered(channel.close(200, "done".into())).await;
            Ok(queue)
        }
        Err(error) => Err(QuestionError::from(&error)),
    }
}

impl From<&LinkError> for QuestionError {
    fn from(error: &LinkError) -> Self {
        let lapin = match error {
            LinkError::Lapin(lapin) => lapin,
            LinkError::Silent => return Self::Silent,
            LinkError::Spent => return Self::Link(error.to_string()),
        };
        let amqp = match lapin.kind() {
            ErrorKind::ProtocolError(amqp) => amqp,
            ErrorKind::ChannelsLimitReached => {
                return Self::Other("the broker allows no more channels; raise its channel_max".to_owned());
            }
            _ => return Self::Link(error.to_string()),
        };
        let why = amqp.get_message().as_str().to_owned();
        match amqp.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Self::Missing,
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Self::Refused(why),
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => Self::Different(why),
            AMQPErrorKind::Soft(_) => Self::Other(why),
            AMQPErrorKind::Hard(_) => Self::Link(why),
        }
    }
}

impl LinkError {
    /// The same error as one about a queue.
    pub(in crate::broker) fn about(&self, queue: &str) -> QueueError {
        QuestionError::from(self).about(queue)
    }
}
