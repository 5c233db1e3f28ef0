//! The broker as a producer and an onlooker see it. Blocking: tests are not asynchronous.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

use crate::wait;

/// The delays for which a daemon makes queues, where the default retry policy reaches.
const DELAYS_MS: [u32; 9] = [250, 500, 1_000, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000];

/// A connection with one channel. Not the daemon's.
pub struct Broker {
    runtime: tokio::runtime::Runtime,
    uri: String,
    link: Connection,
    channel: Channel,
    /// For what may be answered with an error. That uses up a channel number of lapin's for good, so that this one is
    /// replaced now and then.
    asking: Mutex<Connection>,
}

/// A message taken off a queue.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its properties.
    pub properties: BasicProperties,
    /// Its body; bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl Letter {
    /// A header as text; numbers in decimal.
    pub fn header(&self, name: &str) -> Option<String> {
        let table: BTreeMap<_, _> =
            self.properties.headers().iter().flatten().map(|(key, value)| (key.as_str(), value)).collect();
        table.get(name).map(|value| match value {
            AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
            AMQPValue::ShortString(text) => text.as_str().to_owned(),
            AMQPValue::LongUInt(number) => number.to_string(),
            AMQPValue::LongInt(number) => number.to_string(),
            AMQPValue::LongLongInt(number) => number.to_string(),
            AMQPValue::Timestamp(seconds) => seconds.to_string(),
            other => format!("{other:?}"),
        })
    }

    /// Its `message_id`.
    pub fn id(&self) -> &str {
        self.properties.message_id().as_ref().map_or("", |id| id.as_str())
    }
}

impl Broker {
    /// Connects to a broker that is there. `uri` as [`crate::Node::uri`] gives it.
    pub fn connect(uri: &str) -> Self {
        Self::open(uri).expect("the broker takes a connection")
    }

    /// Connects, or says why not.
    pub fn open(uri: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (link, channel, asking) = runtime.block_on(async {
            let link = Connection::connect(uri, ConnectionProperties::default()).await?;
            let channel = link.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let asking = Connection::connect(uri, ConnectionProperties::default()).await?;
            Ok::<_, lapin::Error>((link, channel, asking))
        })?;
        Ok(Self { runtime, uri: uri.to_owned(), link, channel, asking: Mutex::new(asking) })
    }

    /// Declares a durable queue; `arguments` such as `("x-queue-type", "quorum".into())`.
    pub fn declare(&self, queue: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        self.runtime.block_on(self.channel.queue_declare(queue.into(), options, table)).expect("declare");
    }

    /// Publishes one text, persistent, with a `message_id` when `id` is not empty.
    pub fn publish(&self, queue: &str, id: &str, text: &str) {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let properties = if id.is_empty() { properties } else { properties.with_message_id(id.into()) };
        self.publish_with(queue, properties, text.as_bytes());
    }

    /// Publishes a text with an id and a header, confirmed.
    ///
    /// # Panics
    /// When the broker does not take it.
    pub fn publish_with_header(&self, queue: &str, id: &str, (name, value): (&str, AMQPValue), text: &str) {
        let mut headers = FieldTable::default();
        headers.insert(name.into(), value);
        let properties =
            BasicProperties::default().with_delivery_mode(2).with_message_id(id.into()).with_headers(headers);
        self.publish_with(queue, properties, text.as_bytes());
    }

    /// Publishes bytes with any properties, confirmed.
    ///
    /// # Panics
    /// When the broker does not take it, or no queue has that name.
    pub fn publish_with(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let confirm = self.runtime.block_on(async {
            self.channel.basic_publish("".into(), queue.into(), options, body, properties).await?.await
        });
        let confirm = confirm.expect("published");
        assert!(matches!(confirm, Confirmation::Ack(None)), "{queue} did not take the message: {confirm:?}");
    }

    /// Publishes many texts with the ids `PREFIX-1`, `PREFIX-2` and so on, and waits for all confirms at the end.
    pub fn publish_all(&self, queue: &str, prefix: &str, texts: impl IntoIterator<Item = String>) {
        self.runtime
            .block_on(async {
                for (n, text) in texts.into_iter().enumerate() {
                    let id = format!("{prefix}-{}", n + 1);
                    let properties =
                        BasicProperties::default().with_delivery_mode(2).with_message_id(id.as_str().into());
                    let options = BasicPublishOptions::default();
                    drop(
                        self.channel
                            .basic_publish("".into(), queue.into(), options, text.as_bytes(), properties)
                            .await?,
                    );
                }
                self.channel.wait_for_confirms().await
            })
            .expect("published");
    }

    /// Messages ready in a queue: neither delivered nor waiting elsewhere. `None`: no such queue.
    pub fn depth(&self, queue: &str) -> Option<u32> {
        self.counts(queue).map(|(messages, _)| messages)
    }

    /// Consumers of a queue. `None`: no such queue.
    pub fn consumers(&self, queue: &str) -> Option<u32> {
        self.counts(queue).map(|(_, consumers)| consumers)
    }

    /// Waits until a queue has exactly one consumer.
    pub fn wait_one_consumer(&self, queue: &str) {
        wait::until(&format!("one consumer of {queue}"), || (self.consumers(queue) == Some(1)).then_some(()));
    }

    /// Messages ready, and consumers.
    fn counts(&self, queue: &str) -> Option<(u32, u32)> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        self.runtime.block_on(async {
            let channel = if let Ok(channel) = asking.create_channel().await {
                channel
            } else {
                let properties = ConnectionProperties::default();
                *asking = Connection::connect(&self.uri, properties).await.expect("the broker is there");
                asking.create_channel().await.expect("a channel")
            };
            let options = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
            let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
            let counts = declared.ok().map(|queue| (queue.message_count(), queue.consumer_count()));
            let _ = channel.close(200, "".into()).await;
            counts
        })
    }

    /// Waits until a queue has exactly `count` messages ready.
    pub fn wait_depth(&self, queue: &str, count: u32) {
        wait::until(&format!("{count} messages in {queue}"), || {
            (self.depth(queue) == Some(count)).then_some(())
        });
    }

    /// As [`Self::wait_depth`]; a queue that is not there holds nothing.
    pub fn wait_depth_or_none(&self, queue: &str, count: u32) {
        wait::until(&format!("{count} messages in {queue}"), || {
            (self.depth(queue).unwrap_or(0) == count).then_some(())
        });
    }

    /// Messages ready in a work queue and in all delay queues of it.
    pub fn family_depth(&self, queue: &str) -> u32 {
        let delays = DELAYS_MS.iter().map(|ms| self.depth(&format!("{queue}.retry.{ms}")).unwrap_or(0));
        delays.sum::<u32>() + self.depth(queue).unwrap_or(0)
    }

    /// Waits for one message and takes it off the queue.
    pub fn take(&self, queue: &str) -> Letter {
        wait::until(&format!("a message in {queue}"), || {
            self.depth(queue)?;
            self.get(queue)
        })
    }

    /// Takes all messages that are ready now.
    pub fn take_all(&self, queue: &str) -> Vec<Letter> {
        if self.depth(queue).is_none() {
            return Vec::new();
        }
        std::iter::from_fn(|| self.get(queue)).collect()
    }

    /// Empties a queue.
    pub fn purge(&self, queue: &str) {
        self.runtime
            .block_on(self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()))
            .expect("purge");
    }

    /// Deletes a queue with its messages; one that is not there is fine.
    pub fn delete(&self, queue: &str) {
        let _ = self.runtime.block_on(self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()));
    }

    /// Deletes a queue if no message is in it. Whether it did.
    pub fn delete_if_empty(&self, queue: &str) -> bool {
        self.runtime.block_on(async {
            // A channel of its own: the broker closes it when something is in there.
            let channel = self.link.create_channel().await.expect("a channel");
            let options = QueueDeleteOptions { if_empty: true, ..QueueDeleteOptions::default() };
            let deleted = channel.queue_delete(queue.into(), options).await;
            let _ = channel.close(200, "".into()).await;
            deleted.is_ok()
        })
    }

    /// Deletes a work queue with what a daemon made for it: dead letters and delay queues.
    pub fn delete_family(&self, queue: &str) {
        self.delete(queue);
        self.delete(&format!("{queue}.dead"));
        for ms in DELAYS_MS {
            self.delete(&format!("{queue}.retry.{ms}"));
        }
    }

    /// A further channel on this connection, and the runtime to use it on: for consumers beside the daemon.
    pub fn channel(&self) -> (Channel, &tokio::runtime::Runtime) {
        (self.runtime.block_on(self.link.create_channel()).expect("a channel"), &self.runtime)
    }

    fn get(&self, queue: &str) -> Option<Letter> {
        self.runtime.block_on(async {
            let got = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("get");
            let BasicGetMessage { delivery, .. } = got?;
            self.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.expect("ack");
            let text = String::from_utf8_lossy(&delivery.data).into_owned();
            Some(Letter { properties: delivery.properties, text })
        })
    }
}
