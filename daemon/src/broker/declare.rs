//! Queues at the broker: found as they are, declared where they are missing. Every question that the broker may answer
//! with an error is asked on a channel of its own, because the error closes it.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind};

use super::describe::{HowFar, describe};
use super::link::Loss;
use super::server::Server;
use super::topology;
use crate::config::{Queue, QueueType};

/// Bound on every single question to the broker. It answers in milliseconds, or in seconds under load; later than
/// this, what was asked about counts as unusable.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(20);

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
        /// Which.
        queue: String,
        /// The broker's words.
        why: String,
    },
    /// It exists, and as something else than what it has to be.
    #[error(
        "queue `{queue}` exists with other arguments: {why}; delete it when it is empty, or configure another name"
    )]
    Different {
        /// Which.
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
        /// Which.
        queue: String,
        /// The broker's words.
        why: String,
    },
    /// No answer about this queue, on a connection that may be fine.
    #[error(
        "queue `{queue}`: the broker did not answer in {ANSWER_LIMIT:?}; its node may be down, or a quorum queue without its majority"
    )]
    Silent {
        /// Which.
        queue: String,
    },
    /// The connection is gone: nothing is known of the queue.
    #[error("{0}")]
    Link(String),
}

/// Makes sure that the work queue is there: taken as it is when it exists, whatever its arguments, declared durable
/// as configured when it does not.
pub async fn declare_work_queue(
    connection: &Connection,
    queue: &Queue,
    server: &Server,
) -> Result<(), QueueError> {
    if exists(connection, &queue.name).await? {
        refuse_stream(connection, &queue.name).await
    } else {
        declare(connection, &queue.name, topology::work_arguments(queue, server)).await
    }
}

/// A queue that a copy can go to.
#[derive(Debug)]
pub struct Ensured {
    /// Its name.
    pub name: String,
    /// It is a quorum queue: what it confirms is not safe before it is [`super::SETTLE`] old.
    pub is_quorum: bool,
    /// It was declared just now.
    pub is_new: bool,
}

/// Makes sure that `<queue>.dead` is there, taken as it is when it exists.
pub(super) async fn declare_dead_queue(
    connection: &Connection,
    queue: &Queue,
    server: &Server,
) -> Result<Ensured, QueueError> {
    let name = topology::dead_name(&queue.name);
    let is_new = !exists(connection, &name).await?;
    if is_new {
        declare(connection, &name, topology::dead_arguments(queue, server)).await?;
    }
    Ok(Ensured { name, is_quorum: queue.dead_type == Some(QueueType::Quorum), is_new })
}

/// Makes sure that the delay queue of `target` is there. One that another configuration or another version of the
/// broker left as the other type is used as it is; another delay or another way back is refused.
pub async fn declare_delay_queue(
    connection: &Connection,
    target: &str,
    configured: Option<QueueType>,
    rung: Duration,
    server: &Server,
) -> Result<Ensured, QueueError> {
    let name = topology::delay_name(target, rung);
    let wanted = topology::delay_type(configured, server);
    let other = match wanted {
        QueueType::Classic => QueueType::Quorum,
        QueueType::Quorum => QueueType::Classic,
    };
    let is_new = !exists(connection, &name).await?;
    match declare(connection, &name, topology::delay_arguments(target, rung, wanted, server)).await {
        Err(QueueError::Different { queue, why }) => {
            match declare(connection, &name, topology::delay_arguments(target, rung, other, server)).await {
                Ok(()) => {
                    tracing::warn!(
                        QUEUE = name,
                        "the delay queue exists with another type ({why}); it is used as it is"
                    );
                    Ok(Ensured { name, is_quorum: other == QueueType::Quorum, is_new })
                }
                Err(QueueError::Different { .. }) => Err(QueueError::Different { queue, why }),
                Err(error) => Err(error),
            }
        }
        declared => declared.map(|()| Ensured { name, is_quorum: wanted == QueueType::Quorum, is_new }),
    }
}

/// Whether a queue of this name is there, of any kind.
pub(super) async fn exists(connection: &Connection, name: &str) -> Result<bool, QueueError> {
    Ok(look(connection, name).await?.is_some())
}

/// The messages that are ready in a queue of any kind; `None`: there is no such queue.
pub(super) async fn depth(connection: &Connection, name: &str) -> Result<Option<u32>, QueueError> {
    Ok(look(connection, name).await?.map(|queue| queue.message_count()))
}

/// The consumers of a queue of any kind; `None`: there is no such queue.
pub(super) async fn consumers(connection: &Connection, name: &str) -> Result<Option<u32>, QueueError> {
    Ok(look(connection, name).await?.map(|queue| queue.consumer_count()))
}

async fn look(connection: &Connection, name: &str) -> Result<Option<lapin::Queue>, QueueError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match ask(connection, name, options, FieldTable::default()).await {
        Ok(queue) => Ok(Some(queue)),
        Err(Answer::Missing) => Ok(None),
        Err(answer) => Err(answer.about(name)),
    }
}

/// Whether a queue was declared with exactly these arguments. To be asked only of one that is there.
pub(super) async fn is_declared_as(connection: &Connection, name: &str, arguments: FieldTable) -> bool {
    declare(connection, name, arguments).await.is_ok()
}

async fn declare(connection: &Connection, name: &str, arguments: FieldTable) -> Result<(), QueueError> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    ask(connection, name, options, arguments).await.map(drop).map_err(|answer| answer.about(name))
}

/// A passive declare succeeds on a stream as well: the broker is asked for the type.
async fn refuse_stream(connection: &Connection, name: &str) -> Result<(), QueueError> {
    match describe(connection, name, HowFar::Type).await {
        Ok(described) if described.kind.as_deref() == Some("stream") => {
            Err(QueueError::Stream(name.to_owned()))
        }
        Err(answer @ (Answer::Link(_) | Answer::Silent)) => Err(answer.about(name)),
        // Not ours to configure, or not durable: it works, or consuming says why not.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What the broker said instead of yes.
#[derive(Debug)]
pub(super) enum Answer {
    Missing,
    Refused(String),
    Different(String),
    Other(String),
    Link(String),
    Silent,
    NameTooLong,
}

impl Answer {
    pub(super) fn about(self, queue: &str) -> QueueError {
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
pub(super) async fn ask(
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

pub(super) fn sort(error: &LinkError) -> Answer {
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

/// An open channel, within the bound.
///
/// lapin 4.12 keeps the error that ended a channel with the channel's number, and gives it to the next channel of that
/// number, when all 2047 of a connection have had their turn: an answer to a question that nobody asked.
pub(super) async fn open_channel(connection: &Connection) -> Result<Channel, LinkError> {
    let opened = answered(connection.create_channel()).await;
    opened.map_err(|error| match error {
        // What the broker says to the opening of a channel ends the connection.
        LinkError::Lapin(error) if error.is_amqp_soft_error() => LinkError::Spent,
        error => error,
    })
}

/// Awaits lapin within [`ANSWER_LIMIT`]: some of its futures never end when the connection does.
pub(super) async fn answered<T>(future: impl Future<Output = lapin::Result<T>>) -> Result<T, LinkError> {
    match tokio::time::timeout(ANSWER_LIMIT, future).await {
        Ok(answer) => answer.map_err(LinkError::Lapin),
        Err(_) => Err(LinkError::Silent),
    }
}

/// Why the broker gave no answer, or which error it gave.
#[derive(Debug, Clone)]
pub(super) enum LinkError {
    Lapin(lapin::Error),
    Silent,
    /// The connection has to be replaced.
    Spent,
}

impl LinkError {
    /// The same as an error about a queue.
    pub(super) fn about(&self, queue: &str) -> QueueError {
        sort(self).about(queue)
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lapin(error) => f.write_str(&words(error)),
            Self::Silent => write!(f, "the broker did not answer in {ANSWER_LIMIT:?}"),
            Self::Spent => f.write_str("the connection has used up its channel numbers; a new one is opened"),
        }
    }
}

/// An error in the broker's own words where it gave some.
pub(super) fn words(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => amqp.get_message().as_str().to_owned(),
        ErrorKind::IOError(error) => format!("the connection broke: {error}"),
        ErrorKind::MissingHeartbeatError => "the broker's heartbeats stopped".to_owned(),
        ErrorKind::ParsingError(error) => format!("what the broker sent cannot be read as AMQP: {error}"),
        _ => error.to_string(),
    }
}

/// What the end of a connection with this error says.
pub(super) fn loss_of(error: &lapin::Error) -> Loss {
    let by_content = match error.kind() {
        // Our own stream refuses what the library must not see.
        ErrorKind::IOError(error) => error.kind() == std::io::ErrorKind::InvalidData,
        ErrorKind::ParsingError(_) => true,
        ErrorKind::ProtocolError(amqp) => match amqp.kind() {
            AMQPErrorKind::Hard(error) => match error {
                AMQPHardError::FRAMEERROR
                | AMQPHardError::SYNTAXERROR
                | AMQPHardError::COMMANDINVALID
                | AMQPHardError::CHANNELERROR
                | AMQPHardError::UNEXPECTEDFRAME
                | AMQPHardError::NOTIMPLEMENTED
                | AMQPHardError::INTERNALERROR => true,
                // An operator's doing, or the broker's own trouble.
                AMQPHardError::CONNECTIONFORCED
                | AMQPHardError::INVALIDPATH
                | AMQPHardError::RESOURCEERROR
                | AMQPHardError::NOTALLOWED => false,
            },
            AMQPErrorKind::Soft(_) => false,
        },
        _ => false,
    };
    Loss { why: words(error), by_content }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    #[test]
    fn only_what_came_over_a_connection_is_held_against_its_queues() {
        use std::io::ErrorKind as Io;
        let io = |kind: Io| lapin::Error::from(std::io::Error::from(kind));
        let hard = |id| {
            let error = AMQPError::from_id(id, "words".into()).expect("known");
            lapin::Error::from(ErrorKind::ProtocolError(error))
        };
        let table = [
            (io(Io::ConnectionReset), false),
            (io(Io::ConnectionAborted), false),
            (io(Io::BrokenPipe), false),
            (io(Io::UnexpectedEof), false),
            (io(Io::TimedOut), false),
            (io(Io::InvalidData), true),
            (ErrorKind::MissingHeartbeatError.into(), false),
            (hard(320), false),
            (hard(402), false),
            (hard(501), true),
            (hard(502), true),
            (hard(503), true),
            (hard(504), true),
            (hard(505), true),
            (hard(506), false),
            (hard(530), false),
            (hard(540), true),
            (hard(541), true),
            (hard(404), false),
            (hard(406), false),
        ];
        for (error, expected) in table {
            assert_eq!(loss_of(&error).by_content, expected, "{error}");
        }
    }
}
