//! One question about a queue: a declaration, passive or not, on a channel of its own, because an answer that is an error
//! closes the channel.

use lapin::options::QueueDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{FieldTable, ShortString};
use lapin::{Connection, ErrorKind};

use super::error::QueueError;
use crate::broker::dial::{LinkError, answered, open_channel};

/// What the broker said instead of yes.
#[derive(Debug)]
pub(in crate::broker) enum Answer {
    Missing,
    Refused(String),
    Different(String),
    Other(String),
    Link(String),
    Silent,
    NameTooLong,
}

impl Answer {
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

/// Declares, or asks; the answer knows how many messages are ready, and how many consumers there are.
pub(in crate::broker) async fn ask(
    connection: &Connection,
    name: &str,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> Result<lapin::Queue, Answer> {
    let name = ShortString::try_new(name).map_err(|_| Answer::NameTooLong)?;
    let channel = open_channel(connection).await.map_err(|error| sort(&error))?;
    let answer = answered(channel.queue_declare(name, options, arguments)).await;
    match answer {
        Ok(queue) => {
            // Dropping it would do, but lapin would warn; an error here is of no interest.
            let _ = answered(channel.close(200, "done".into())).await;
            Ok(queue)
        }
        Err(error) => Err(sort(&error)),
    }
}

pub(in crate::broker) fn sort(error: &LinkError) -> Answer {
    let lapin = match error {
        LinkError::Lapin(lapin) => lapin,
        LinkError::Silent => return Answer::Silent,
        LinkError::Spent => return Answer::Link(error.to_string()),
    };
    let amqp = match lapin.kind() {
        ErrorKind::ProtocolError(amqp) => amqp,
        ErrorKind::ChannelsLimitReached => {
            return Answer::Other("the broker allows no more channels; raise its channel_max".to_owned());
        }
        _ => return Answer::Link(error.to_string()),
    };
    let why = amqp.get_message().as_str().to_owned();
    match amqp.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Answer::Missing,
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Answer::Refused(why),
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => Answer::Different(why),
        AMQPErrorKind::Soft(_) => Answer::Other(why),
        AMQPErrorKind::Hard(_) => Answer::Link(why),
    }
}

impl LinkError {
    /// The same as an error about a queue.
    pub(in crate::broker) fn about(&self, queue: &str) -> QueueError {
        sort(self).about(queue)
    }
}
