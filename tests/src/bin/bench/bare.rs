//! Bare lapin consumers: nothing between delivery and ack. Each runs in a process of its own, started as
//! `bench bare drain MODE WINDOW COUNT URI QUEUE` or `bench bare serve URI QUEUE FIFO`.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::{DeliveryTag, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, Consumer as Deliveries};
use tokio::runtime::Runtime;

use super::process::Process;
use super::queue::{FAILING, Tasks};
use super::usage::{self, Measured};
use super::{failing, limit, within};

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

/// A bare consumer that serves until it is dropped: window 1, a byte into a FIFO per task, then the ack, polled once.
/// When its connection ends it makes a new one every second, which is what such loops usually do.
pub(crate) struct Consumer {
    _process: Process,
}

/// How long the serving consumer waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);

/// How long it gives one attempt.
const CONNECT: Duration = Duration::from_secs(10);

/// The process of a bare consumer.
pub(crate) fn main(runtime: &Runtime, arguments: &[&str]) -> Result<()> {
    match *arguments {
        ["drain", mode, window, count, uri, queue] => {
            let count = count.parse()?;
            within(runtime, limit(count), drain_here(mode.parse()?, window.parse()?, count, uri, queue))
        }
        ["serve", uri, queue, fifo] => runtime.block_on(serve(uri, queue, Path::new(fifo))),
        _ => bail!("started by `bench` only"),
    }
}

/// Drains what stands in the queue.
pub(crate) fn drain(mode: Mode, window: u16, tasks: Tasks, uri: &str, queue: &str) -> Result<Measured> {
    let (window, count) = (window.to_string(), tasks.count.to_string());
    let arguments = ["bare", "drain", &mode.to_string(), &window, &count, uri, queue];
    let mut process = Process::start(&std::env::current_exe()?, &arguments, Stdio::piped())?;
    let status = process.wait(limit(tasks.count))?;
    ensure!(status.success(), "the bare consumer: {status}");
    let mut text = String::new();
    process.child.stdout.take().context("stdout")?.read_to_string(&mut text)?;
    let fields: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [wall, cpu, peak_mib] = fields[..] else { bail!("the bare consumer printed {text:?}") };
    let (wall, cpu) = (Duration::from_secs_f64(wall), Duration::from_secs_f64(cpu));
    Ok(Measured { tasks: tasks.count, wall, cpu, peak_mib })
}

impl Consumer {
    pub(crate) fn start(uri: &str, queue: &str, fifo: &Path) -> Result<Self> {
        let fifo = fifo.to_str().context("a path in UTF-8")?;
        let process =
            Process::start(&std::env::current_exe()?, &["bare", "serve", uri, queue, fifo], Stdio::null())?;
        Ok(Self { _process: process })
    }
}

/// Prints wall seconds, CPU seconds and peak MiB.
async fn drain_here(mode: Mode, window: u16, count: u32, uri: &str, queue: &str) -> Result<()> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let copies = connection.create_channel().await?;
    copies.confirm_select(ConfirmSelectOptions::default()).await?;
    let channel = connection.create_channel().await?;
    let (start, cpu) = (Instant::now(), usage::cpu_time(std::process::id())?);
    let mut stream = consume(&channel, window, queue).await?;
    let mut seen = 0;
    while seen < count {
        let delivery = stream.next().await.context("the stream ended")??;
        seen += 1;
        if delivery.data == FAILING {
            retry(&copies, &delivery).await?;
        }
        match mode {
            Mode::Awaited => drop(delivery.acker.ack(BasicAckOptions::default()).await?),
            Mode::Polled => queue_ack(&channel, delivery.delivery_tag, false),
            Mode::Multiple => {
                let mut last = delivery.delivery_tag;
                while let Some(Some(next)) = stream.next().now_or_never() {
                    last = next?.delivery_tag;
                    seen += 1;
                }
                queue_ack(&channel, last, true);
            }
        }
    }
    let wall = start.elapsed().as_secs_f64();
    let cpu = usage::cpu_time(std::process::id())?.saturating_sub(cpu).as_secs_f64();
    println!("{wall} {cpu} {}", usage::peak_mib(std::process::id())?);
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// Serves until it is ended.
async fn serve(uri: &str, queue: &str, fifo: &Path) -> Result<()> {
    let mut fifo = File::options().append(true).open(fifo)?;
    loop {
        // Whatever ended it, the broker's restart most likely.
        let _ = serve_once(uri, queue, &mut fifo).await;
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn serve_once(uri: &str, queue: &str, fifo: &mut File) -> Result<()> {
    let properties = ConnectionProperties::default();
    let connection = tokio::time::timeout(CONNECT, Connection::connect(uri, properties)).await??;
    let channel = connection.create_channel().await?;
    let mut stream = consume(&channel, 1, queue).await?;
    while let Some(delivery) = stream.next().await {
        let delivery = delivery?;
        fifo.write_all(b".")?;
        queue_ack(&channel, delivery.delivery_tag, false);
    }
    Ok(())
}

async fn consume(channel: &Channel, window: u16, queue: &str) -> Result<Deliveries> {
    channel.basic_qos(window, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    Ok(channel.basic_consume(queue.into(), "bare".into(), options, FieldTable::default()).await?)
}

/// The frame is queued at the first poll. What lapin would wait for after that, the write to the socket, is left to it.
fn queue_ack(channel: &Channel, tag: DeliveryTag, multiple: bool) {
    let _ = channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never();
}

/// A task that failed: a confirmed copy on the delay queue that Warren uses as well.
async fn retry(copies: &Channel, delivery: &Delivery) -> Result<()> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = delivery.properties.clone();
    copies
        .basic_publish("".into(), failing::DELAY_QUEUE.into(), options, &delivery.data, properties)
        .await?
        .await?;
    Ok(())
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
