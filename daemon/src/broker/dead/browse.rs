//! Looking through a dead queue: letters are fetched one by one and held unacknowledged, so that each is seen once.
//! What is not removed goes back in its old order when the channel closes. That needs nothing but AMQP 0-9-1, and
//! works beside other consumers: what they hold is not seen, what is held here is not seen by them.

use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::time::{sleep, timeout};

use super::DeadLetter;
use crate::broker::dial::{BrokerConnection, answered, open_channel};
use crate::broker::queues::{QueueError, depth, is_declared_as, topology};

/// Letters that one look holds, unless asked otherwise. Fetching one takes the broker a fraction of a millisecond and
/// some hundred bytes: this many take seconds, and nobody else gets at them meanwhile.
pub const HOLD: u32 = 10_000;
/// The most that one look can be asked to hold: some hundred megabytes at the broker.
pub const MAX_HOLD: u32 = 1_000_000;
/// `RabbitMQ` 4 discards what a quorum queue was given back 20 times, unless it is told otherwise. At half of it there
/// is still time to do something.
const WORN_AT: u32 = 10;
/// For a quorum queue to take back what a closed channel held: it learns of the end from a monitor, and answers others
/// meanwhile as if the letters were gone. Milliseconds, unless somebody else takes them at once.
const RETURN_LIMIT: Duration = Duration::from_secs(1);
/// Between two questions whether it has.
const RETURN_PAUSE: Duration = Duration::from_millis(20);
/// For closing the connection politely: what had to be seen has been by then.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// One look through a dead queue, from its oldest letter on.
pub struct Browse {
    broker: BrokerConnection,
    /// `None`: the queue does not exist, so that there is nothing to look at.
    channel: Option<Channel>,
    name: ShortString,
    hold: u32,
    looked: Looked,
    /// Whether looking at a letter wears it out, once that was asked.
    wears: Option<bool>,
}

/// A letter, and the hold on it.
#[derive(Debug)]
pub struct Found {
    /// What [`Browse::remove`] takes.
    pub tag: Tag,
    pub letter: DeadLetter,
}

/// The hold on a letter: used up when the letter is removed, otherwise it goes back.
#[derive(Debug)]
pub struct Tag(u64);

/// How far a look came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Letters that were ready when it began. It ends after so many: a letter that is replayed and dies again at once
    /// comes after them.
    pub depth: u32,
    /// Letters looked at.
    pub seen: u32,
    /// Letters removed.
    pub removed: u32,
    /// It ended because it may not hold more.
    pub bounded: bool,
}

impl Looked {
    /// Letters that were there and were not looked at.
    pub fn unseen(&self) -> u32 {
        self.depth - self.seen
    }
}

impl Browse {
    /// Begins to look through the dead letters of a work queue; at most `hold` of them are held at one time.
    pub async fn open(broker: BrokerConnection, work_queue: &str, hold: u32) -> Result<Self, QueueError> {
        let name = topology::dead_name(work_queue);
        let depth = depth(&broker.connection, &name).await?;
        let name = ShortString::try_new(&name).map_err(|_| QueueError::NameTooLong(name))?;
        let channel = match depth {
            Some(_) => {
                Some(open_channel(&broker.connection).await.map_err(|error| error.about(name.as_str()))?)
            }
            None => None,
        };
        let looked = Looked { depth: depth.unwrap_or(0), ..Looked::default() };
        Ok(Self { broker, channel, name, hold, looked, wears: None })
    }

    /// The next letter. `None`: all that were there have been looked at, or no more can be held.
    pub async fn next(&mut self) -> Result<Option<Found>, QueueError> {
        let Some(channel) = &self.channel else { return Ok(None) };
        if self.looked.seen == self.looked.depth {
            return Ok(None);
        }
        if self.looked.seen - self.looked.removed >= self.hold {
            self.looked.bounded = true;
            return Ok(None);
        }
        let got = answered(channel.basic_get(self.name.clone(), BasicGetOptions::default())).await;
        let Some(got) = got.map_err(|error| error.about(self.name.as_str()))? else {
            // Somebody else took the rest.
            self.looked.depth = self.looked.seen;
            return Ok(None);
        };
        self.looked.seen += 1;
        let (tag, message) = (Tag(got.delivery.delivery_tag), got.delivery);
        Ok(Some(Found { tag, letter: DeadLetter::read(message.properties, message.data) }))
    }

    /// Takes a letter off the queue for good.
    pub async fn remove(&mut self, Tag(tag): Tag) -> Result<(), QueueError> {
        // A tag can only have come from an open channel.
        let Some(channel) = &self.channel else { return Ok(()) };
        let acked = answered(channel.basic_ack(tag, BasicAckOptions::default())).await;
        acked.map_err(|error| error.about(self.name.as_str()))?;
        self.looked.removed += 1;
        Ok(())
    }

    /// The broker will discard this letter if it is looked at some more times: it counts, and its queue sets a limit.
    pub async fn is_wearing_out(&mut self, letter: &DeadLetter) -> bool {
        let server = &self.broker.server;
        if letter.returns < WORN_AT || !server.takes_unlimited_deliveries() {
            return false;
        }
        if self.wears.is_none() {
            let unlimited = topology::quorum_dead_arguments(server);
            let name = self.name.as_str();
            self.wears = Some(!is_declared_as(&self.broker.connection, name, unlimited).await);
        }
        self.wears == Some(true)
    }

    /// How far it has come.
    pub fn looked(&self) -> Looked {
        self.looked
    }

    /// Gives back what is held, when the broker has seen every removal; it has `limit` for its answers. An error: it may
    /// not have seen the last removals, and those letters are then still there.
    pub async fn close(self, limit: Duration) -> Result<(), QueueError> {
        let seen = match &self.channel {
            Some(channel) => {
                let seen = timeout(limit, async {
                    let seen = if self.looked.removed > 0 { self.barrier(channel).await } else { Ok(()) };
                    // Gives back; an error would say that the channel is closed already.
                    let _ = answered(channel.close(200, "done".into())).await;
                    let _ = timeout(RETURN_LIMIT, self.returned()).await;
                    seen
                });
                seen.await.unwrap_or_else(|_| Err(QueueError::Silent { queue: self.name.to_string() }))
            }
            None => Ok(()),
        };
        let closing = self.broker.connection.close(200, "done".into());
        let _ = timeout(CLOSE_LIMIT, closing).await;
        self.broker.socket.shut_down();
        seen
    }

    /// Waits until what was held is ready again, so that whoever looks next sees it.
    async fn returned(&self) {
        let held = self.looked.seen - self.looked.removed;
        while held > 0
            && depth(&self.broker.connection, self.name.as_str())
                .await
                .is_ok_and(|ready| ready.is_some_and(|ready| ready < held))
        {
            sleep(RETURN_PAUSE).await;
        }
    }

    /// A question on the same channel is answered after everything that was sent before it.
    async fn barrier(&self, channel: &Channel) -> Result<(), QueueError> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = channel.queue_declare(self.name.clone(), options, FieldTable::default());
        answered(asked).await.map(drop).map_err(|error| error.about(self.name.as_str()))
    }
}
