//! The publishing connection; `supervise.rs` keeps it up. A connection of its own, so that a memory alarm, which stops every
//! write on a connection that publishes, never stops an acknowledgement.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::Stream;
use lapin::types::ShortString;
use lapin::{BasicProperties, ErrorKind};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::confirm::{ConfirmChannel, ConfirmResult, within};
use super::copy::{self, encoded_len};
use super::direct_reply::is_direct;
use super::error::PublishError;
use super::silence::Silence;
use crate::broker::dial::{BrokerConnection, LinkError, describe_error};
use crate::broker::queues::{Ensured, QueueError, declare_dead_queue, declare_delay_queue, exists, topology};
use crate::config::{Queue, QueueType};

/// How long a confirm may take while the broker is not blocked: a quorum queue that lost a member answers late. After
/// this the channel is dropped and the message sent again.
pub(super) const CONFIRM_LIMIT: Duration = Duration::from_secs(30);
/// Questions about queues at one time. Each takes a few round trips, once per queue and connection.
const QUESTIONS_AT_ONCE: usize = 8;
/// A frame's own bytes and the content header's before the properties.
const CONTENT_OVERHEAD: usize = 8 + 12;

/// A message on its way to a queue, through the default exchange.
#[derive(Debug)]
pub struct Outgoing<'a> {
    pub queue: &'a str,
    /// Sent as they are.
    pub properties: BasicProperties,
    pub body: &'a [u8],
}

/// The state of publishing on a link.
#[derive(Clone, Default)]
pub(in crate::broker) struct LinkState {
    /// The connection, while it is up.
    pub(super) connection: Option<Rc<PublishingConnection>>,
    /// The broker takes nothing at the moment.
    pub(in crate::broker) blocked: bool,
}

/// An open publishing connection.
pub(in crate::broker) struct PublishingConnection {
    broker: BrokerConnection,
    /// Confirm channels with nothing in flight.
    idle: RefCell<Vec<ConfirmChannel>>,
    /// One permit per confirm channel that the broker allows, those for questions aside.
    allowed: Semaphore,
    /// One permit per question at a time about a queue, each on a channel of its own.
    questions: Semaphore,
    /// Queues known to be there, and whether each is a quorum queue.
    known: RefCell<BTreeMap<String, bool>>,
    /// Delay queues that confirm nothing.
    pub(super) silence: RefCell<Silence>,
    /// Set when the connection is lost. No answer comes on it any more, and some of lapin's futures never end.
    lost: watch::Sender<bool>,
}

/// Why a publish failed.
pub(in crate::broker) enum PublishFailure {
    /// The publish cannot succeed, however often it is repeated.
    Permanent(PublishError),
    /// The broker ended the connection with an error while the publish was in flight.
    ConnectionError(String),
    /// The publish may succeed another time.
    Temporary(String),
    /// The broker refused the message, and may take it another time.
    NotTaken(String),
    /// The broker did not confirm in time, on a connection that may be in order.
    Silent(String),
}

impl PublishingConnection {
    /// Takes a connection that nobody else publishes on.
    pub(in crate::broker) fn new(broker: BrokerConnection) -> Rc<Self> {
        let channels = broker.channels();
        let questions = (channels / 4).clamp(1, QUESTIONS_AT_ONCE);
        Rc::new(Self {
            broker,
            allowed: Semaphore::new(channels.saturating_sub(questions).max(1)),
            questions: Semaphore::new(questions),
            idle: RefCell::default(),
            known: RefCell::default(),
            silence: RefCell::default(),
            lost: watch::Sender::new(false),
        })
    }

    /// The connection is up.
    pub(in crate::broker) fn is_connected(&self) -> bool {
        self.broker.connection.status().connected()
    }

    /// Awaits an answer of the broker, and fails as soon as the connection is lost.
    pub(super) async fn while_up<T>(&self, asking: impl Future<Output = T>) -> Result<T, QueueError> {
        let mut lost = self.lost.subscribe();
        tokio::select! {
            answer = asking => Ok(answer),
            // It never closes while `self` is there.
            _ = lost.wait_for(|lost| *lost) => Err(QueueError::Link("the connection was lost".to_owned())),
        }
    }

    /// Publishes on a free channel and waits for the confirm.
    pub(in crate::broker) async fn publish(
        &self,
        link: &watch::Sender<LinkState>,
        queue: &ShortString,
        message: &Outgoing<'_>,
    ) -> Result<(), PublishFailure> {
        let limit = self.limit(message.queue);
        let bytes = encoded_len(&message.properties);
        if bytes > limit {
            let queue = message.queue.to_owned();
            return Err(PublishFailure::Permanent(PublishError::TooLarge { queue, bytes, limit }));
        }
        // Neither semaphore is ever closed.
        let _allowed = self.allowed.acquire().await;
        let channel = self.channel().await.map_err(|error| {
            if !matches!(error, LinkError::Silent) {
                self.hang_up();
            }
            PublishFailure::Temporary(error.to_string())
        })?;
        // A client that waits for its reply directly has no queue: the broker would both return the message and deliver it.
        let mandatory = !is_direct(message.queue);
        let publish = channel.publish(queue, mandatory, message.properties.clone(), message.body);
        let result = within(CONFIRM_LIMIT, || link.borrow().blocked, publish).await;
        // A channel on which a quorum queue refused a message because it was full refuses further ones, also when there is
        // room again (seen with 3.10 when the limit is lifted): the next attempt uses another channel.
        if matches!(result, ConfirmResult::Confirmed | ConfirmResult::Returned(_)) {
            self.idle.borrow_mut().push(channel);
        }
        outcome_of(result, message.queue)
    }

    /// What a message to the queue may have in properties and headers.
    fn limit(&self, queue: &str) -> usize {
        let frame = self.broker.connection.configuration().frame_max() as usize;
        frame - CONTENT_OVERHEAD - room_on_the_way(queue)
    }

    /// The properties as far as there is room for them on the way to the queue.
    pub(in crate::broker) fn fit(&self, queue: &str, properties: BasicProperties) -> BasicProperties {
        copy::fit(properties, self.limit(queue))
    }

    /// What the connection reports: blocked, unblocked, its end.
    pub(in crate::broker) fn reports(&self) -> impl Stream<Item = lapin::Event> + Send + 'static {
        self.broker.connection.events_listener()
    }

    /// Ends the connection without asking the broker: the supervisor opens another one.
    pub(super) fn hang_up(&self) {
        self.broker.socket.shut_down();
    }

    /// The connection is gone: whoever waits for an answer on it is told.
    pub(super) fn end_as_lost(&self) {
        self.hang_up();
        self.lost.send_replace(true);
    }

    /// Closes the connection, in an orderly manner if that is possible within `limit`.
    pub(super) async fn close(&self, limit: Duration) {
        let _ = timeout(limit, self.broker.connection.close(200, "done".into())).await;
        self.hang_up();
    }

    /// A confirm channel with nothing in flight.
    async fn channel(&self) -> Result<ConfirmChannel, LinkError> {
        while let Some(channel) = { self.idle.borrow_mut().pop() } {
            if channel.is_open() {
                return Ok(channel);
            }
        }
        ConfirmChannel::open(&self.broker.connection).await
    }

    /// Declares `<queue>.dead` where it is missing.
    pub(super) async fn ensure_dead(&self, queue: &Queue) -> Result<Ensured, PublishError> {
        if let Some(known) = self.known(&topology::dead_name(&queue.name)) {
            return Ok(known);
        }
        let _question = self.questions.acquire().await;
        let ensured = declare_dead_queue(&self.broker.connection, queue, &self.broker.server).await?;
        self.remember(&ensured);
        Ok(ensured)
    }

    /// Declares a delay queue where it is missing. The queue that it leads to has to exist.
    pub(super) async fn ensure_delay(
        &self,
        target: &str,
        kind: Option<QueueType>,
        rung: Duration,
    ) -> Result<Ensured, PublishError> {
        if let Some(known) = self.known(&topology::delay_name(target, rung)) {
            return Ok(known);
        }
        let _question = self.questions.acquire().await;
        // A delay queue without a target ends in nothing, or in a loop.
        if !exists(&self.broker.connection, target).await? {
            let why = "a delayed task needs the queue it is for".to_owned();
            return Err(PublishError::Returned { queue: target.to_owned(), why });
        }
        let server = &self.broker.server;
        let ensured = declare_delay_queue(&self.broker.connection, target, kind, rung, server).await?;
        self.remember(&ensured);
        Ok(ensured)
    }

    /// A queue was deleted.
    pub(super) fn forget(&self, name: &str) {
        self.known.borrow_mut().remove(name);
    }

    fn known(&self, name: &str) -> Option<Ensured> {
        let is_quorum = *self.known.borrow().get(name)?;
        Some(Ensured { name: name.to_owned(), is_quorum, is_new: false })
    }

    fn remember(&self, ensured: &Ensured) {
        self.known.borrow_mut().insert(ensured.name.clone(), ensured.is_quorum);
    }
}

/// The broker adds to a message's headers that it was dead-lettered, when and from where, and how often it was delivered.
/// It sends that to its consumer in one frame, however large: one that is too large ends the consumer's connection.
fn room_on_the_way(queue: &str) -> usize {
    // `x-death`, the three `x-first-death-…` and the three `x-last-death-…` name the queue four times; the broker
    // dead-letters to a routing key of ours, which is shorter.
    const BROKER_HEADERS: usize = 512;
    BROKER_HEADERS + 4 * queue.len()
}

/// What the result of a publish means for its repetition.
fn outcome_of(result: ConfirmResult, queue: &str) -> Result<(), PublishFailure> {
    match result {
        ConfirmResult::Confirmed => Ok(()),
        ConfirmResult::Returned(why) => {
            Err(PublishFailure::Permanent(PublishError::Returned { queue: queue.to_owned(), why }))
        }
        ConfirmResult::Nacked => Err(PublishFailure::NotTaken(format!(
            "queue `{queue}` does not take the message: it is full (empty it, or raise its x-max-length), or a quorum queue without its majority"
        ))),
        ConfirmResult::Failed(error) => Err(fault(&error, queue)),
        ConfirmResult::TimedOut => Err(PublishFailure::Silent(format!(
            "queue `{queue}` has not confirmed a message in {CONFIRM_LIMIT:?}: its node is down or busy, or it is a quorum queue without its majority; when it stays so although the broker is well, delete it (rabbitmqctl delete_queue {queue})"
        ))),
    }
}

fn fault(error: &lapin::Error, queue: &str) -> PublishFailure {
    let mut why = describe_error(error);
    if error.is_amqp_soft_error() {
        let queue = queue.to_owned();
        if why.starts_with("PRECONDITION_FAILED") {
            if why.contains("max size") {
                why += "; raise the broker's `max_message_size` again";
            }
            return PublishFailure::Permanent(PublishError::Unacceptable { queue, why });
        }
        if why.starts_with("ACCESS_REFUSED") {
            why += "; grant write permission on `amq\\.default` (rabbitmqctl set_permissions)";
        }
        return PublishFailure::Permanent(PublishError::Refused { queue, why });
    }
    match error.kind() {
        // A broker that shuts down says 320.
        ErrorKind::ProtocolError(amqp) if error.is_amqp_hard_error() && amqp.get_id() != 320 => {
            PublishFailure::ConnectionError(why)
        }
        _ => PublishFailure::Temporary(why),
    }
}
