//! Bare lapin consumers: the three ways to acknowledge, with nothing between delivery and ack.

use std::fmt;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::{DeliveryTag, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use super::usage::{self, Measured};
use super::{BODY, LIMIT};

/// How a bare consumer acknowledges.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// `delivery.ack().await`, as lapin's documentation shows.
    Awaited,
    /// `channel.basic_ack` polled once: the frame is queued at the first poll.
    Polled,
    /// One `multiple` ack whenever the stream is momentarily empty.
    Multiple,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Awaited, Self::Polled, Self::Multiple];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Awaited => "awaited",
            Self::Polled => "polled-once",
            Self::Multiple => "multiple",
        })
    }
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|mode| mode.to_string() == text).with_context(|| format!("no mode {text}"))
    }
}

/// Declares the queue if need be and leaves exactly `count` tasks in it.
pub(crate) async fn fill(uri: &str, queue: &str, count: u32) -> Result<()> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), durable, FieldTable::default()).await?;
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
    for _ in 0..count {
        publish(&channel, queue, BODY).await?;
    }
    wait_for_depth(&channel, queue, count).await?;
    connection.close(200, "".into()).await?;
    Ok(())
}

/// Publishes one persistent task, unconfirmed.
pub(crate) async fn publish(channel: &Channel, queue: &str, body: &[u8]) -> Result<()> {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body, persistent).await?;
    Ok(())
}

async fn wait_for_depth(channel: &Channel, queue: &str, depth: u32) -> Result<()> {
    let end = Instant::now() + LIMIT;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    loop {
        let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
        if declared.message_count() == depth {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("the queue has {} tasks instead of {depth}", declared.message_count());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a bare consumer in a process of its own and takes over its measurement.
pub(crate) fn run(mode: Mode, prefetch: u16, count: u32, uri: &str, queue: &str) -> Result<Measured> {
    let output = Command::new(std::env::current_exe()?)
        .args(["consume", &mode.to_string(), &prefetch.to_string(), &count.to_string(), uri, queue])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let fields: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [wall, cpu, peak_mib] = fields[..] else { bail!("the bare consumer printed {text:?}") };
    Ok(Measured { wall: Duration::from_secs_f64(wall), cpu: Duration::from_secs_f64(cpu), peak_mib })
}

/// The bare consumer's process: prints wall seconds, CPU seconds and peak MiB.
pub(crate) async fn consume(mode: Mode, prefetch: u16, count: u32, uri: &str, queue: &str) -> Result<()> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let start = Instant::now();
    let mut stream = channel
        .basic_consume(queue.into(), "bare".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;
    let mut seen = 0;
    while seen < count {
        let delivery = stream.next().await.context("the stream ended")??;
        seen += 1;
        let single = BasicAckOptions::default();
        match mode {
            Mode::Awaited => {
                delivery.acker.ack(single).await?;
            }
            Mode::Polled => {
                queue_ack(&channel, delivery.delivery_tag, single);
            }
            Mode::Multiple => {
                let mut last = delivery.delivery_tag;
                while let Some(Some(next)) = stream.next().now_or_never() {
                    last = next?.delivery_tag;
                    seen += 1;
                }
                queue_ack(&channel, last, BasicAckOptions { multiple: true });
            }
        }
    }
    let wall = start.elapsed().as_secs_f64();
    let cpu = usage::cpu_time(std::process::id())?.as_secs_f64();
    println!("{wall} {cpu} {}", usage::peak_mib(std::process::id())?);
    connection.close(200, "".into()).await?;
    Ok(())
}

/// The frame is queued at the first poll. What lapin would wait for after that, the write to the socket, is left to it.
fn queue_ack(channel: &Channel, tag: DeliveryTag, options: BasicAckOptions) {
    let _ = channel.basic_ack(tag, options).now_or_never();
}
