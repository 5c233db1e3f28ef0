//! The producer: fills queues, one persistent task after the other, and asks for their depth.

use std::time::Duration;

use anyhow::Result;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

/// A task's body.
pub(crate) const BODY: &[u8; 30] = b"Noop 4711 with thirty bytes...";

/// The same, of a task that fails.
pub(crate) const FAILING: &[u8; 30] = b"Noop fail, with thirty bytes..";

/// Tasks to publish.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tasks {
    pub(crate) count: u32,
    /// The first of so many fails, and so on; none: no task fails.
    pub(crate) failing: Option<u32>,
}

impl Tasks {
    /// Tasks of which none fails.
    pub(crate) fn good(count: u32) -> Self {
        Self { count, failing: None }
    }

    /// How many of them fail.
    pub(crate) fn failing_count(self) -> u32 {
        self.failing.map_or(0, |every| self.count.div_ceil(every))
    }

    fn body(self, index: u32) -> &'static [u8] {
        if self.failing.is_some_and(|every| index.is_multiple_of(every)) { FAILING } else { BODY }
    }
}

/// A channel to publish on.
pub(crate) struct Producer {
    connection: Connection,
    channel: Channel,
}

impl Producer {
    /// Connects, and declares the queue if need be.
    pub(crate) async fn connect(uri: &str, queue: &str) -> Result<Self> {
        let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), durable, FieldTable::default()).await?;
        Ok(Self { connection, channel })
    }

    /// Publishes one persistent task, unconfirmed.
    pub(crate) async fn publish(&self, queue: &str, body: &[u8]) -> Result<()> {
        let persistent = BasicProperties::default().with_delivery_mode(2);
        self.channel
            .basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body, persistent)
            .await?;
        Ok(())
    }

    pub(crate) async fn purge(&self, queue: &str) -> Result<()> {
        self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
        Ok(())
    }

    /// The broker has seen everything when this returns.
    pub(crate) async fn close(self) -> Result<()> {
        self.connection.close(200, "done".into()).await?;
        Ok(())
    }

    async fn depth(&self, queue: &str) -> Result<u32> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
        Ok(declared.message_count())
    }
}

/// Leaves exactly these tasks in the queue.
pub(crate) async fn fill(uri: &str, queue: &str, tasks: Tasks) -> Result<()> {
    let producer = Producer::connect(uri, queue).await?;
    producer.purge(queue).await?;
    for index in 0..tasks.count {
        producer.publish(queue, tasks.body(index)).await?;
    }
    while producer.depth(queue).await? != tasks.count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    producer.close().await
}
