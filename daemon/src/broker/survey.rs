//! What can be learned of the broker and of its queues without changing anything there: for `warrenctl doctor`.
//!
//! AMQP has no question "may I?". So it is put as a request that the broker can only refuse, because something in it is
//! wrong: `RabbitMQ` looks at the permission first, and which of the two reasons it gives is the answer. Nothing is
//! declared, consumed or published to any queue by that.
//!
//! | permission | the request | refused as forbidden: no; refused as |
//! | --- | --- | --- |
//! | configure a queue | declare it with a time to live of -1 | wrong: yes |
//! | read a queue | consume it with a priority that is no number | wrong, or no such queue: yes |
//! | write to the default exchange | publish to a queue that nobody has | unroutable: yes |

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Connection};
use tokio::time::timeout;

use super::dial::{BrokerConnection, DialError, LinkError, answered, connect, dial_one, open_channel};
use super::publish::confirm::{ConfirmChannel, ConfirmResult};
use super::queues::{
    Description, Detail, QuestionError, QueueError, ask, describe, is_declared_as, topology,
};
use super::server::Server;
use crate::config::{Broker, Queue, QueueType};

/// Queues that are looked at. Each takes some fifty questions, a fraction of a second together: with more, whoever waits
/// would rather look at some of them.
const MAX_SURVEYED: usize = 100;
/// For the broker's word on a message for nobody. It takes milliseconds, unless it takes no messages at all.
const PROBE_CONFIRM_LIMIT: Duration = Duration::from_secs(5);
/// For closing a connection politely.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// One of the configured addresses.
#[derive(Debug)]
pub struct Address {
    /// Host, port and vhost, without credentials.
    pub address: String,
    /// `amqps://`.
    pub is_tls: bool,
    /// Who answers there, or why nobody does.
    pub answer: Result<Server, DialError>,
}

#[derive(Debug)]
pub struct Survey {
    pub server: Server,
    /// Whether the user may publish to queues.
    pub publish: May,
    /// The queues that were looked at, in the order of the configuration.
    pub queues: Vec<QueueSurvey>,
    /// How many were not.
    pub passed_over: usize,
}

/// A configured queue and those that belong to it.
#[derive(Debug)]
pub struct QueueSurvey {
    pub queue: Arc<str>,
    pub work: SurveyedQueue,
    /// Its dead letters.
    pub dead: SurveyedQueue,
    /// Whether the daemon could declare and use delay queues.
    pub delay: Rights,
    /// The delay queues that exist.
    pub delays: Vec<SurveyedDelayQueue>,
}

/// What is known of one queue.
#[derive(Debug)]
pub struct SurveyedQueue {
    pub name: String,
    /// The queue, if there is one.
    pub there: Option<ExistingQueue>,
    /// What the user may do with it.
    pub rights: Rights,
}

/// A queue that exists, or may: `RabbitMQ` 4.3 does not even tell that to a user without a permission on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExistingQueue {
    /// Messages that wait in it; 0 where the user may not know.
    pub ready: u32,
    /// Its consumers; 0 where the user may not know.
    pub consumers: u32,
    /// How it was declared, where the user may know.
    pub described: Option<Description>,
}

/// What the user may do with a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    pub configure: May,
    pub read: May,
}

/// Whether the user may do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum May {
    Yes,
    /// It is not, in the broker's words.
    No(String),
    /// The broker takes no messages at the moment.
    Blocked,
    /// Not known, for this reason.
    Unknown(String),
}

/// A delay queue that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedDelayQueue {
    pub name: String,
    /// Tasks that wait in it.
    pub ready: u32,
    /// How it compares with what the daemon would declare.
    pub form: Form,
}

/// How a delay queue compares with what the daemon would declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Wanted,
    /// The other type: the daemon uses it as it is.
    OtherType(QueueType),
    /// Another delay or another way back: the daemon refuses it.
    Unusable,
    /// The user may not declare it.
    Unknown,
}

/// Dials every configured address at the same time, each within `connect_timeout`.
pub async fn addresses(broker: &Broker, name: &str) -> Vec<Address> {
    let shown = broker.addresses();
    let dials = broker.uris.iter().zip(shown).map(|(uri, address)| async move {
        let answer = match dial_one(broker, uri, name, None).await {
            Ok(dialled) => {
                let server = dialled.server.clone();
                close(dialled).await;
                Ok(server)
            }
            Err(error) => Err(error),
        };
        Address { address, is_tls: uri.0.starts_with("amqps://"), answer }
    });
    join_all(dials).await
}

/// Looks at the broker and at these queues.
pub async fn survey(broker: &Broker, queues: &[Queue], name: &str) -> Result<Survey, SurveyError> {
    let dialled = connect(broker, name).await?;
    let server = dialled.server.clone();
    let publish = may_publish(&dialled.connection).await;
    close(dialled).await;
    let mut seen = Vec::new();
    for queue in queues.iter().take(MAX_SURVEYED) {
        // A connection each: every answer that is an error uses up one of its channel numbers for good.
        let dialled = connect(broker, name).await?;
        let looked = look(&dialled.connection, queue, &server).await;
        close(dialled).await;
        seen.push(looked?);
    }
    Ok(Survey { server, publish, passed_over: queues.len().saturating_sub(seen.len()), queues: seen })
}

/// Why the broker could not be looked at to the end.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// It did not take a connection that it took a moment ago.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It did not answer about a queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

async fn look(connection: &Connection, queue: &Queue, server: &Server) -> Result<QueueSurvey, QueueError> {
    let work = sight(connection, &queue.name, server).await?;
    let dead = sight(connection, &topology::dead_name(&queue.name), server).await?;
    let mut delays = Vec::new();
    for rung in topology::rungs() {
        delays.extend(delay(connection, queue, rung, server).await?);
    }
    // One stands for all of them: permissions go by patterns.
    let name = topology::delay_name(&queue.name, topology::rung(Duration::from_secs(5)));
    let delay = Rights {
        configure: may_configure(connection, &name, server).await,
        read: may_read(connection, &name, server).await,
    };
    Ok(QueueSurvey { queue: queue.name.clone(), work, dead, delay, delays })
}

async fn sight(connection: &Connection, name: &str, server: &Server) -> Result<SurveyedQueue, QueueError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let there = match ask(connection, name, options, FieldTable::default()).await {
        Ok(queue) => Some(ExistingQueue {
            ready: queue.message_count(),
            consumers: queue.consumer_count(),
            described: match describe(connection, name, Detail::All).await {
                Ok(described) => Some(described),
                Err(error @ (QuestionError::Link(_) | QuestionError::Silent)) => {
                    return Err(error.about(name));
                }
                Err(_) => None,
            },
        }),
        Err(QuestionError::Missing) => None,
        Err(QuestionError::Refused(_)) => Some(ExistingQueue::default()),
        Err(error) => return Err(error.about(name)),
    };
    let rights = Rights {
        configure: may_configure(connection, name, server).await,
        read: may_read(connection, name, server).await,
    };
    Ok(SurveyedQueue { name: name.to_owned(), there, rights })
}

async fn delay(
    connection: &Connection,
    queue: &Queue,
    rung: Duration,
    server: &Server,
) -> Result<Option<SurveyedDelayQueue>, QueueError> {
    let name = topology::delay_name(&queue.name, rung);
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let ready = match ask(connection, &name, options, FieldTable::default()).await {
        Ok(queue) => queue.message_count(),
        Err(QuestionError::Missing | QuestionError::Refused(_)) => return Ok(None),
        Err(error) => return Err(error.about(&name)),
    };
    let wanted = topology::delay_type(queue.delay_type, server);
    let other = match wanted {
        QueueType::Classic => QueueType::Quorum,
        QueueType::Quorum => QueueType::Classic,
    };
    let arguments = |kind| topology::delay_arguments(&queue.name, rung, kind, server);
    let form = if is_declared_as(connection, &name, arguments(wanted)).await {
        Form::Wanted
    } else if is_declared_as(connection, &name, arguments(other)).await {
        Form::OtherType(other)
    } else if may_configure(connection, &name, server).await == May::Yes {
        Form::Unusable
    } else {
        Form::Unknown
    };
    Ok(Some(SurveyedDelayQueue { name, ready, form }))
}

/// No broker makes a queue whose messages live for less than no time.
async fn may_configure(connection: &Connection, name: &str, server: &Server) -> May {
    if server.rabbitmq().is_none() {
        return not_asked();
    }
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(-1));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    match ask(connection, name, options, arguments).await {
        Ok(_) | Err(QuestionError::Different(_)) => May::Yes,
        Err(error) => refused(error, name),
    }
}

async fn may_read(connection: &Connection, name: &str, server: &Server) -> May {
    if server.rabbitmq().is_none() {
        return not_asked();
    }
    match try_to_consume(connection, name).await {
        Ok(()) => May::Yes,
        Err(error) => match QuestionError::from(&error) {
            QuestionError::Missing | QuestionError::Different(_) => May::Yes,
            error => refused(error, name),
        },
    }
}

async fn try_to_consume(connection: &Connection, name: &str) -> Result<(), LinkError> {
    let Ok(name) = ShortString::try_new(name) else { return Ok(()) };
    let channel = open_channel(connection).await?;
    // If a broker accepts the argument: one message at most, which goes back when the channel closes.
    answered(channel.basic_qos(1, BasicQosOptions::default())).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("none".into()));
    let options = BasicConsumeOptions::default();
    answered(channel.basic_consume(name, "warrenctl-doctor".into(), options, arguments)).await?;
    answered(channel.close(200, "done".into())).await
}

/// A message for a queue that nobody has: it comes back.
async fn may_publish(connection: &Connection) -> May {
    let nobody = format!("warrenctl-doctor-{}", uuid::Uuid::now_v7());
    let publishing = async {
        let channel = ConfirmChannel::open(connection).await?;
        let result = channel.publish(&nobody.as_str().into(), true, BasicProperties::default(), b"").await;
        if let ConfirmResult::Failed(error) = result {
            return Err(LinkError::Lapin(error));
        }
        channel.close().await;
        Ok(result)
    };
    match timeout(PROBE_CONFIRM_LIMIT, publishing).await {
        Ok(Ok(ConfirmResult::Confirmed | ConfirmResult::Returned(_))) => May::Yes,
        Ok(Ok(_)) => May::Unknown("the broker refused a probe message".to_owned()),
        Ok(Err(error)) => refused(QuestionError::from(&error), &nobody),
        Err(_) if connection.status().blocked() => May::Blocked,
        Err(_) => May::Unknown(format!("no confirm in {PROBE_CONFIRM_LIMIT:?}")),
    }
}

fn refused(error: QuestionError, name: &str) -> May {
    match error {
        QuestionError::Refused(why) => May::No(why),
        error => May::Unknown(error.about(name).to_string()),
    }
}

fn not_asked() -> May {
    May::Unknown("only RabbitMQ can be asked without changing anything".to_owned())
}

async fn close(dialled: BrokerConnection) {
    // What was to be learned has been; an error here is of no interest.
    let _ = timeout(CLOSE_LIMIT, dialled.connection.close(200, "done".into())).await;
}
