//! Publishes numbered tasks while faults run, and counts only what the broker has confirmed.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};

use super::work::{Task, Work};
use crate::ledger::now;

/// Between two tasks: what two cores keep up with beside a broker, two daemons and their hosts.
const EVERY: Duration = Duration::from_millis(25);
/// For a connection, a channel, a confirm. What takes longer counts as not confirmed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before the next try to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// The producer's thread. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Producer {
    orders: watch::Sender<Order>,
    tasks: Arc<Mutex<Vec<Task>>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Publish,
    Pause,
    End,
}

impl Producer {
    /// Publishes to `queue`, which is there, from now on. The seed decides what.
    pub(super) fn start(uri: &str, queue: &str, seed: u64) -> Self {
        let orders = watch::Sender::new(Order::Publish);
        let tasks = Arc::<Mutex<Vec<Task>>>::default();
        let thread = std::thread::spawn({
            let (uri, queue, tasks, orders) =
                (uri.to_owned(), queue.to_owned(), tasks.clone(), orders.subscribe());
            move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(publish(&uri, &queue, seed, &tasks, orders));
            }
        });
        Self { orders, tasks, thread: Some(thread) }
    }

    /// Publishes nothing until [`Self::resume`].
    pub(super) fn pause(&self) {
        self.orders.send_replace(Order::Pause);
    }

    /// Publishes again.
    pub(super) fn resume(&self) {
        self.orders.send_replace(Order::Publish);
    }

    /// What was published so far.
    pub(super) fn tasks(&self) -> Vec<Task> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.orders.send_replace(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn publish(
    uri: &str,
    queue: &str,
    seed: u64,
    tasks: &Mutex<Vec<Task>>,
    mut orders: watch::Receiver<Order>,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut link = None;
    let mut number = 0_u64;
    loop {
        let Ok(order) = orders.wait_for(|order| *order != Order::Pause).await.map(|order| *order) else {
            return;
        };
        if order == Order::End {
            return;
        }
        every.tick().await;
        let Some((_, channel)) = &link else {
            match connect(uri).await {
                Ok(opened) => link = Some(opened),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            continue;
        };
        number += 1;
        let work = Work::draw(&mut random);
        let task = Task { id: format!("s-{number}"), at: now(), work, confirmed: false };
        let confirmed = publish_one(channel, queue, &task).await.is_ok();
        if !confirmed {
            link = None;
        }
        tasks.lock().unwrap_or_else(PoisonError::into_inner).push(Task { confirmed, ..task });
    }
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

async fn publish_one(channel: &Channel, queue: &str, task: &Task) -> Result<()> {
    let properties =
        BasicProperties::default().with_delivery_mode(2).with_message_id(task.id.as_str().into());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let text = task.work.to_string();
    let publishing = async {
        channel.basic_publish("".into(), queue.into(), options, text.as_bytes(), properties).await?.await
    };
    let confirmation = timeout(PATIENCE, publishing).await.context("no confirm")??;
    ensure!(matches!(confirmation, Confirmation::Ack(None)), "not taken: {confirmation:?}");
    Ok(())
}
