//! Queues at the broker: one that exists is used as it is, a missing one is declared.

use std::time::Duration;

use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::describe::{Detail, describe};
use super::error::QueueError;
use super::question::{QuestionError, ask};
use super::topology;
use crate::broker::server::Server;
use crate::config::{Queue, QueueType};

/// How old a quorum queue of ours must be before a copy in it counts as safe. RabbitMQ writes the registration of a new
/// one to disk some time after it has confirmed both queue and messages: killed within that time (0.7 s was too early, 1 to
/// 2 s was not, with 3.10.8, 4.0.5 and 4.3), it comes up with an empty queue, which before 4.3 takes nothing any more.
/// So the original stays unacknowledged for this long after the first copy.
pub const SETTLE: Duration = Duration::from_secs(3);

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
    pub name: String,
    /// It is a quorum queue: what it confirms is not safe before it is [`SETTLE`] old.
    pub is_quorum: bool,
    /// It was declared just now.
    pub is_new: bool,
}

/// Makes sure that `<queue>.dead` is there, taken as it is when it exists.
pub(in crate::broker) async fn declare_dead_queue(
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
pub(in crate::broker) async fn exists(connection: &Connection, name: &str) -> Result<bool, QueueError> {
    Ok(look(connection, name).await?.is_some())
}

/// The messages that are ready in a queue of any kind; `None`: there is no such queue.
pub(in crate::broker) async fn depth(connection: &Connection, name: &str) -> Result<Option<u32>, QueueError> {
    Ok(look(connection, name).await?.map(|queue| queue.message_count()))
}

/// The consumers of a queue of any kind; `None`: there is no such queue.
pub(in crate::broker) async fn consumers(
    connection: &Connection,
    name: &str,
) -> Result<Option<u32>, QueueError> {
    Ok(look(connection, name).await?.map(|queue| queue.consumer_count()))
}

async fn look(connection: &Connection, name: &str) -> Result<Option<lapin::Queue>, QueueError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match ask(connection, name, options, FieldTable::default()).await {
        Ok(queue) => Ok(Some(queue)),
        Err(QuestionError::Missing) => Ok(None),
        Err(error) => Err(error.about(name)),
    }
}

/// Whether a queue was declared with exactly these arguments. To be asked only of one that is there.
pub(in crate::broker) async fn is_declared_as(
    connection: &Connection,
    name: &str,
    arguments: FieldTable,
) -> bool {
    declare(connection, name, arguments).await.is_ok()
}

async fn declare(connection: &Connection, name: &str, arguments: FieldTable) -> Result<(), QueueError> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    ask(connection, name, options, arguments).await.map(drop).map_err(|error| error.about(name))
}

/// A passive declare succeeds on a stream as well: the broker is asked for the type.
async fn refuse_stream(connection: &Connection, name: &str) -> Result<(), QueueError> {
    match describe(connection, name, Detail::Type).await {
        Ok(described) if described.kind.as_deref() == Some("stream") => {
            Err(QueueError::Stream(name.to_owned()))
        }
        Err(error @ (QuestionError::Link(_) | QuestionError::Silent)) => Err(error.about(name)),
        // Not ours to configure, or not durable: it works, or consuming says why not.
        Ok(_) | Err(_) => Ok(()),
    }
}
