//! The sending: a pool of confirm channels that take tasks from one input, each with one publish in flight (see
//! `warren::broker::confirm`). Every wait has a bound, but for a broker that says that it blocks publishers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::types::ShortString;
use lapin::{ErrorKind, Event};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;
use warren::broker::confirm::{ConfirmChannel, ConfirmResult, within};
use warren::broker::{BrokerConnection, Ensured, LinkError, SETTLE, declare_delay_queue};
use warren::model::UnixMs;

use super::envelope::Envelope;
use super::input::{InputError, InputTask};
use super::ledger::{Fate, PublishLedger, PublishReport};
use crate::exit::{Code, VerbError};

/// Channels, so publishes in flight: at 1,600 confirms a second each, more than one connection carries.
pub(super) const CHANNELS: usize = 32;
/// From handing a task to the broker to its confirm.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// The same once the run has been stopped, by Ctrl-C or by a failure.
const LAST_CONFIRMS: Duration = Duration::from_secs(5);
/// Opening a channel and asking for confirms.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a run stopped before its input ended. The first reason counts.
#[derive(Debug)]
pub(super) enum Stop {
    /// Ctrl-C or SIGTERM.
    Signal,
    /// The input is at fault.
    Input(InputError),
    /// The broker is.
    Broker(Code, String),
}

/// A queue that tasks are sent to.
#[derive(Debug, Clone)]
struct TargetQueue {
    queue: String,
    /// It was declared just now, and keeps what it confirms from then on only.
    young_until: Option<Instant>,
}

/// A run under way: shared by its channels, the progress bar and whoever stops it.
#[derive(Debug)]
pub(super) struct PublishRun {
    envelope: Envelope,
    input: AsyncMutex<mpsc::Receiver<Result<InputTask, InputError>>>,
    ledger: Mutex<PublishLedger>,
    /// Lines and message ids in order, where they are wanted afterwards.
    ids: Option<Mutex<Vec<(u64, String)>>>,
    /// Delay queues that are there, by how long they keep a task: at most one per rung of the ladder.
    delays: AsyncMutex<BTreeMap<Duration, TargetQueue>>,
    reason: Mutex<Option<Stop>>,
    stopped: watch::Sender<bool>,
    blocked: AtomicBool,
}

impl PublishRun {
    /// `keep_ids`: for a few tasks; else a run's memory does not grow with its input.
    pub(super) fn new(
        envelope: Envelope,
        input: mpsc::Receiver<Result<InputTask, InputError>>,
        keep_ids: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            envelope,
            input: AsyncMutex::new(input),
            ledger: Mutex::default(),
            ids: keep_ids.then(Mutex::default),
            delays: AsyncMutex::default(),
            reason: Mutex::default(),
            stopped: watch::Sender::new(false),
            blocked: AtomicBool::new(false),
        })
    }

    /// Takes no further task; those in flight are waited for.
    pub(super) fn stop(&self, why: Stop) {
        lock(&self.reason).get_or_insert(why);
        self.stopped.send_replace(true);
    }

    /// Tasks confirmed so far.
    pub(super) fn confirmed(&self) -> u64 {
        lock(&self.ledger).confirmed()
    }

    /// The broker blocks publishers at the moment.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Sends everything over `channels` channels; ends when the input is used up, or soon after [`PublishRun::stop`].
    pub(super) async fn send(self: &Arc<Self>, link: &Arc<BrokerConnection>, channels: usize) {
        let mut events = link.connection.events_listener();
        let mut workers = JoinSet::new();
        // One stays free for the questions about a delay queue.
        for _ in 0..channels.min(link.channels() - 1).clamp(1, CHANNELS) {
            match tokio::time::timeout(OPEN_TIMEOUT, ConfirmChannel::open(&link.connection)).await {
                Ok(Ok(channel)) => {
                    workers.spawn(Arc::clone(self).work(Arc::clone(link), channel));
                }
                Ok(Err(error)) => {
                    let (code, why) = match &error {
                        LinkError::Lapin(error) => explain(error),
                        LinkError::Silent | LinkError::Spent => (Code::TryAgain, error.to_string()),
                    };
                    self.stop(Stop::Broker(code, format!("cannot open a channel: {why}")));
                    break;
                }
                Err(_) => {
                    self.stop(Stop::Broker(Code::TryAgain, "the broker does not open a channel".to_owned()));
                    break;
                }
            }
        }
        let mut stopped = self.stopped.subscribe();
        let too_late = async {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(LAST_CONFIRMS).await;
        };
        tokio::pin!(too_late);
        loop {
            tokio::select! {
                worker = workers.join_next() => match worker {
                    Some(_) => {}
                    None => return,
                },
                Some(event) = events.next() => self.note(&event),
                () = &mut too_late => return,
            }
        }
    }

    /// The lines and message ids of what was taken, if they were to be kept.
    pub(super) fn ids(&self) -> Vec<(u64, String)> {
        self.ids.as_ref().map(|ids| std::mem::take(&mut *lock(ids))).unwrap_or_default()
    }

    /// The report, and why the run stopped early, if it did. To be called after [`PublishRun::send`] has ended.
    pub(super) fn close(&self) -> (PublishReport, Option<Stop>) {
        let reason = lock(&self.reason).take();
        let why = match &reason {
            Some(Stop::Broker(_, why)) => why.as_str(),
            _ => "no confirm came in time",
        };
        let report = std::mem::take(&mut *lock(&self.ledger)).report(why);
        (report, reason)
    }

    fn note(&self, event: &Event) {
        match event {
            Event::ConnectionBlocked(_) => self.blocked.store(true, Ordering::Relaxed),
            Event::ConnectionUnblocked => self.blocked.store(false, Ordering::Relaxed),
            // A channel's own error is met where the channel is used: one that asked for a queue ends by a "no".
            Event::Error(error) if !error.is_amqp_soft_error() => {
                let (code, why) = explain(error);
                self.stop(Stop::Broker(code, why));
            }
            _ => {}
        }
    }

    async fn work(self: Arc<Self>, link: Arc<BrokerConnection>, channel: ConfirmChannel) {
        let mut stopped = self.stopped.subscribe();
        loop {
            let next = async {
                let mut input = self.input.lock().await;
                let task = input.recv().await?;
                // Still under the lock, so that the ledger sees the lines in order.
                Some(task.map(|task| {
                    let id = self.envelope.id.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
                    lock(&self.ledger).take(task.line, &id);
                    if let Some(ids) = &self.ids {
                        lock(ids).push((task.line, id.clone()));
                    }
                    (task, id)
                }))
            };
            let next = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                next = next => next,
            };
            match next {
                None => return,
                Some(Err(error)) => return self.stop(Stop::Input(error)),
                Some(Ok((task, id))) => {
                    let (fate, stop) = self.publish(&link, &channel, &task.body, &id).await;
                    lock(&self.ledger).close(task.line, fate);
                    if let Some(stop) = stop {
                        return self.stop(stop);
                    }
                }
            }
        }
    }

    /// Where a task goes first: the delay queue that keeps it for so long, or its own. A delay queue is declared when
    /// the first task needs it; the others wait.
    async fn place(&self, link: &BrokerConnection, wait: Duration) -> Result<TargetQueue, VerbError> {
        let queue = &self.envelope.queue;
        if wait.is_zero() {
            return Ok(TargetQueue { queue: queue.name.to_string(), young_until: None });
        }
        let mut known = self.delays.lock().await;
        if let Some(place) = known.get(&wait) {
            return Ok(place.clone());
        }
        let Ensured { name, is_quorum, is_new } =
            declare_delay_queue(&link.connection, &queue.name, queue.delay_type, wait, &link.server).await?;
        let place =
            TargetQueue { queue: name, young_until: (is_quorum && is_new).then(|| Instant::now() + SETTLE) };
        known.insert(wait, place.clone());
        Ok(place)
    }

    async fn publish(
        &self,
        link: &BrokerConnection,
        channel: &ConfirmChannel,
        body: &[u8],
        id: &str,
    ) -> (Fate, Option<Stop>) {
        let (properties, wait) = self.envelope.seal(id, UnixMs::now());
        let place = match self.place(link, wait).await {
            Ok(place) => place,
            Err(error) => {
                let why = error.to_string();
                return (Fate::Refused(why.clone()), Some(Stop::Broker(error.code(), why)));
            }
        };
        let queue = ShortString::from(place.queue.as_str());
        let publish = channel.publish(&queue, true, properties, body);
        let refused = |why: String| (Fate::Refused(why.clone()), Some(Stop::Broker(Code::TryAgain, why)));
        let unknown = |code, why: String| (Fate::Unknown(why.clone()), Some(Stop::Broker(code, why)));
        match within(CONFIRM_TIMEOUT, || self.is_blocked(), publish).await {
            ConfirmResult::Confirmed => place.has_kept_it(channel).await,
            ConfirmResult::Returned(why) => refused(format!("returned: {why}")),
            ConfirmResult::Nacked => {
                refused("refused; the queue is full, or the broker cannot store it".to_owned())
            }
            ConfirmResult::Failed(error) => {
                let (code, why) = explain(&error);
                unknown(code, why)
            }
            ConfirmResult::TimedOut => {
                unknown(Code::TryAgain, format!("no confirm in {} s", CONFIRM_TIMEOUT.as_secs()))
            }
        }
    }
}

impl TargetQueue {
    /// The queue confirmed a task; in a young one that may be forgotten with the queue, if the broker dies now.
    async fn has_kept_it(&self, channel: &ConfirmChannel) -> (Fate, Option<Stop>) {
        let Some(until) = self.young_until else { return (Fate::Confirmed, None) };
        tokio::time::sleep_until(until).await;
        if channel.is_open() {
            return (Fate::Confirmed, None);
        }
        let why = "the link to the broker was lost soon after the delay queue was made".to_owned();
        (Fate::Unknown(why.clone()), Some(Stop::Broker(Code::TryAgain, why)))
    }
}

/// The broker's words, and what a script should make of them.
fn explain(error: &lapin::Error) -> (Code, String) {
    match error.kind() {
        ErrorKind::ProtocolError(said) => {
            let code = match said.get_id() {
                // content-too-large, precondition-failed, frame-error (headers over one frame): this message will
                // never be taken.
                311 | 406 | 501 => Code::Data,
                403 => Code::Unavailable,
                _ => Code::TryAgain,
            };
            (code, format!("the broker says {} {}", said.get_id(), said.get_message()))
        }
        _ => (Code::TryAgain, format!("the link to the broker is lost: {error}")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while it holds one of these; if it did, what it guards would still be the best there is.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
