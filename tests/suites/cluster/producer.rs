//! A producer that gives up nothing: a task that is not confirmed is published again, by another node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::time::timeout;

/// For a connection, or a confirm. Leaders are elected in about a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before the next address.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two tasks: less than a daemon with two workers can do.
const EVERY: Duration = Duration::from_millis(10);

/// What tasks do, by their number: every tenth is retried once, every twentieth is rejected.
pub(crate) fn text(number: u32) -> &'static str {
    match number % 20 {
        0 => "Ledger reject",
        5 | 15 => "Ledger until 2",
        _ => "Ledger slow 5",
    }
}

/// Publishes numbered tasks, in a thread of its own.
pub(crate) struct Producer {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Published>,
}

/// What was confirmed.
pub(crate) struct Published {
    /// So many tasks, from 1; the id of each is its number.
    pub(crate) count: u32,
    /// Published more than once, because no confirm came: each may be two tasks.
    pub(crate) repeated: BTreeSet<u32>,
}

impl Producer {
    /// Starts publishing to `queue`, which is there.
    pub(crate) fn start(uris: &[String], queue: &'static str) -> Self {
        let (end, uris) = (Arc::<AtomicBool>::default(), uris.to_owned());
        let thread = std::thread::spawn({
            let end = end.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(publish(&uris, queue, &end))
            }
        });
        Self { end, thread }
    }

    /// Ends it; the task under way is confirmed first.
    pub(crate) fn end(self) -> Published {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("the producer does not panic")
    }
}

impl Published {
    /// The ids of the tasks that are rejected, or of the others.
    pub(crate) fn ids(&self, rejected: bool) -> BTreeSet<String> {
        let ids = (1..=self.count).filter(|number| (text(*number) == "Ledger reject") == rejected);
        ids.map(|number| number.to_string()).collect()
    }
}

async fn publish(uris: &[String], queue: &str, end: &AtomicBool) -> Published {
    let mut uris = uris.iter().cycle();
    let mut every = tokio::time::interval(EVERY);
    let mut published = Published { count: 0, repeated: BTreeSet::new() };
    let mut link = None;
    while !end.load(Ordering::Relaxed) {
        every.tick().await;
        let number = published.count + 1;
        loop {
            if link.is_none() {
                link = connect(uris.next().expect("an address")).await.ok();
            }
            if let Some((_, channel)) = &link {
                if publish_one(channel, queue, number).await.is_ok() {
                    break;
                }
                published.repeated.insert(number);
            }
            link = None;
            tokio::time::sleep(PAUSE).await;
        }
        published.count = number;
    }
    published
}

async fn connect(uri: &str) -> Result<(Connection, Channel)> {
    let connecting = async {
        let link = Connection::connect(uri, ConnectionProperties::default()).await?;
        let channel = link.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok((link, channel))
    };
    timeout(PATIENCE, connecting).await.context("no answer")?
}

async fn publish_one(channel: &Channel, queue: &str, number: u32) -> Result<()> {
    let id = number.to_string();
    let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(id.as_str().into());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publishing = async {
        let body = text(number).as_bytes();
        channel.basic_publish("".into(), queue.into(), options, body, properties).await?.await
    };
    let confirmation = timeout(PATIENCE, publishing).await.context("no confirm")??;
    ensure!(matches!(confirmation, Confirmation::Ack(None)), "not taken: {confirmation:?}");
    Ok(())
}
