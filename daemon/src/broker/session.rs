//! The consuming connection and its supervisor: dials, subscribes, and starts over when anything ends, until told to
//! stop. Each session belongs to one broker address; a changed address gets a new session, and the old one stays until
//! its tags are settled.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{Stream, StreamExt};
use lapin::options::BasicCancelOptions;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff::{Backoff, CAP};
use super::declare::{QueueError, answered, declare_work_queue};
use super::dial::{Dialled, dial_one};
use super::link::{End, Next, State, Wanted, next, replan};
use super::status::Status;
use super::subscription::{CONSUMER_TAG, SessionId, Subscriptions};
use super::{ConsumerId, LinkEvent};
use crate::config::{Broker, Queue};

/// How often the connection is looked at, besides its own reports.
const CHECK: Duration = Duration::from_secs(5);

/// What the link asks of its session.
pub(super) enum Command {
    /// Consume exactly these.
    Queues(Vec<Queue>),
    /// Cancel every consumer; answer when what was buffered has been handed over.
    Stop(oneshot::Sender<()>),
    /// Cancel every consumer, and end when every tag is settled.
    Retire,
    /// Let the broker see all that was sent, close, and end; within this time.
    Close(Duration, oneshot::Sender<()>),
}

/// The link's hold on a session.
pub(super) struct Session {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    /// A subscription was settled to its end.
    pub(super) settled: Rc<Notify>,
}

/// The task behind it.
struct Supervisor {
    id: SessionId,
    broker: Arc<Broker>,
    subscriptions: Rc<Subscriptions>,
    status: Rc<Status>,
    commands: mpsc::UnboundedReceiver<Command>,
    settled: Rc<Notify>,
    started: Instant,
    wanted: Vec<Wanted>,
    /// Consumers we cancelled whose stream has not ended yet.
    cancelled: Vec<ConsumerId>,
    /// Who waits for `cancelled` to be empty.
    stopping: Option<oneshot::Sender<()>>,
    /// No queue is wanted any more, and no new connection.
    retiring: bool,
}

/// Why a connection is not served any longer.
enum Leave {
    Lost(String),
    Settled,
    Close(Duration, oneshot::Sender<()>),
}

impl Session {
    /// Starts the supervisor on the current `LocalSet`.
    pub(super) fn start(
        id: SessionId,
        broker: Arc<Broker>,
        queues: &[Queue],
        subscriptions: Rc<Subscriptions>,
        status: Rc<Status>,
    ) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let settled = Rc::new(Notify::new());
        let (_, wanted) = replan(Vec::new(), queues, Duration::ZERO);
        let supervisor = Supervisor {
            id,
            broker,
            subscriptions,
            status,
            commands: receiver,
            settled: settled.clone(),
            started: Instant::now(),
            wanted,
            cancelled: Vec::new(),
            stopping: None,
            retiring: false,
        };
        tokio::task::spawn_local(supervisor.run());
        Self { commands, settled }
    }
}

impl Supervisor {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut turn = 0;
        while let Some(dialled) = self.connect(&mut backoff, &mut turn).await {
            let since = Instant::now();
            self.status.consuming(Some((dialled.address.clone(), dialled.server.clone())));
            let leave = self.serve(&dialled).await;
            self.status.consuming(None);
            match leave {
                Leave::Lost(why) => {
                    self.drop_all(&why);
                    dialled.line.cut();
                    if self.retiring {
                        return;
                    }
                    self.subscriptions.tell(LinkEvent::Away { why });
                    if self.pause(backoff.lost_after(since.elapsed())).await.is_some() {
                        return;
                    }
                }
                Leave::Settled => {
                    close(&self.subscriptions, self.id, &dialled, CAP).await;
                    return;
                }
                Leave::Close(limit, done) => {
                    close(&self.subscriptions, self.id, &dialled, limit).await;
                    self.drop_all("the link is closed");
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    /// Dials the addresses in turn until one answers. `None`: told to end meanwhile.
    async fn connect(&mut self, backoff: &mut Backoff, turn: &mut usize) -> Option<Dialled> {
        let broker = self.broker.clone();
        let name = format!("warrend[{}] consuming", std::process::id());
        loop {
            if self.retiring {
                return None;
            }
            let uri = &broker.uris[*turn % broker.uris.len()];
            let mut dialling = std::pin::pin!(dial_one(&broker, uri, &name));
            let error = loop {
                tokio::select! {
                    dialled = &mut dialling => match dialled {
                        Ok(dialled) => {
                            self.status.used(*turn);
                            return Some(dialled);
                        }
                        Err(error) => break error,
                    },
                    command = self.commands.recv() => if self.without_link(command) { return None },
                }
            };
            *turn += 1;
            self.subscriptions.tell(LinkEvent::Away { why: error.to_string() });
            // A cluster's other addresses are tried at once.
            if turn.is_multiple_of(broker.uris.len()) && self.pause(backoff.failed()).await.is_some() {
                return None;
            }
        }
    }

    /// Waits, and takes commands meanwhile. `Some`: told to end.
    async fn pause(&mut self, time: Duration) -> Option<()> {
        let until = Instant::now() + time;
        loop {
            tokio::select! {
                () = sleep_until(until) => return None,
                command = self.commands.recv() => if self.without_link(command) { return Some(()) },
            }
        }
    }

    /// Takes a command while there is no connection. True: the session ends.
    fn without_link(&mut self, command: Option<Command>) -> bool {
        match command {
            Some(Command::Queues(queues)) => {
                self.wanted = replan(std::mem::take(&mut self.wanted), &queues, self.started.elapsed()).1;
                false
            }
            Some(Command::Stop(done) | Command::Close(_, done)) => {
                let _ = done.send(());
                self.retiring = true;
                true
            }
            Some(Command::Retire) | None => {
                self.retiring = true;
                true
            }
        }
    }

    /// Subscribes, and looks after the subscriptions until the connection or the session ends.
    async fn serve(&mut self, dialled: &Dialled) -> Leave {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut reports = std::pin::pin!(dialled.connection.events_listener());
        let settled = self.settled.clone();
        let mut check = tokio::time::interval(CHECK);
        loop {
            if let Err(why) = self.subscribe_due(dialled, &ended).await {
                return Leave::Lost(why);
            }
            self.release().await;
            if self.retiring && self.stopping.is_none() && self.subscriptions.of(self.id).is_empty() {
                return Leave::Settled;
            }
            let due = self.next_due();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Queues(queues)) => self.change(&queues).await,
                    Some(Command::Stop(done)) => {
                        self.retiring = true;
                        self.stopping = Some(done);
                        self.change(&[]).await;
                    }
                    Some(Command::Retire) | None => {
                        self.retiring = true;
                        self.change(&[]).await;
                    }
                    Some(Command::Close(limit, done)) => return Leave::Close(limit, done),
                },
                Some((id, end)) = ends.recv() => {
                    if let Some(leave) = self.ended(id, end, dialled.connection.status().connected()) {
                        return leave;
                    }
                }
                () = settled.notified() => {}
                Some(why) = failure(&mut reports) => {
                    if !dialled.connection.status().connected() {
                        return Leave::Lost(why);
                    }
                }
                _ = check.tick() => {
                    if !dialled.connection.status().connected() {
                        return Leave::Lost("the connection is gone".to_owned());
                    }
                }
                () = sleep_until(due) => {}
            }
            self.report_stopped();
        }
    }

    /// Subscribes to every queue whose time has come. One that cannot be used is tried again later and disturbs no
    /// other; an error means that the connection is gone.
    async fn subscribe_due(
        &mut self,
        dialled: &Dialled,
        ended: &mpsc::UnboundedSender<(ConsumerId, End)>,
    ) -> Result<(), String> {
        let now = self.started.elapsed();
        for wanted in &mut self.wanted {
            if !matches!(wanted.state, State::Due(at) if at <= now) {
                continue;
            }
            let ended = ended.clone();
            let report = move |id, end| {
                // The session is gone when nobody listens.
                let _ = ended.send((id, end));
            };
            let queue = &wanted.queue;
            let subscribed = match declare_work_queue(&dialled.connection, queue, &dialled.server).await {
                Ok(()) => self.subscriptions.subscribe(self.id, dialled, queue, report).await,
                Err(error) => Err(error),
            };
            match subscribed {
                Ok(id) => {
                    wanted.state = State::Live(id);
                    wanted.since = self.started.elapsed();
                }
                Err(QueueError::Link(why)) => return Err(why),
                Err(error) => {
                    wanted.state = State::Due(self.started.elapsed() + wanted.backoff.failed());
                    let event = LinkEvent::Unusable { queue: queue.name.clone(), why: error.to_string() };
                    self.subscriptions.tell(event);
                }
            }
        }
        Ok(())
    }

    /// Brings the consumers in line with a new list of queues.
    async fn change(&mut self, queues: &[Queue]) {
        let wanted = std::mem::take(&mut self.wanted);
        let (cancel, wanted) = replan(wanted, queues, self.started.elapsed());
        self.wanted = wanted;
        let cancel: Vec<_> =
            cancel.into_iter().filter_map(|id| Some((id, self.subscriptions.get(id)?))).collect();
        self.cancelled.extend(cancel.iter().map(|(id, _)| *id));
        // A failure ends the stream as well, and is dealt with there.
        join_all(cancel.iter().map(|(_, subscription)| {
            answered(subscription.channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default()))
        }))
        .await;
    }

    /// Lets go of the channels that are settled to their end. A failure means that the broker redelivers.
    async fn release(&self) {
        let mut finished = self.subscriptions.of(self.id);
        finished.retain(|(_, subscription)| subscription.is_finished());
        join_all(finished.iter().map(|(_, subscription)| subscription.barrier())).await;
        for (id, _) in finished {
            self.subscriptions.remove(id);
        }
    }

    /// A consumer's stream ended.
    fn ended(&mut self, id: ConsumerId, end: End, connected: bool) -> Option<Leave> {
        let cancelled = self.cancelled.iter().position(|&one| one == id);
        let cancelled = cancelled.map(|index| self.cancelled.swap_remove(index)).is_some();
        match next(end, cancelled, connected) {
            Next::Stopped => self.subscriptions.stopped(id),
            Next::Resubscribe { why } => {
                self.subscriptions.lost(id, &why);
                let now = self.started.elapsed();
                for wanted in self.wanted.iter_mut().filter(|one| one.state == State::Live(id)) {
                    let lasted = now.saturating_sub(wanted.since);
                    wanted.state = State::Due(now + wanted.backoff.lost_after(lasted));
                }
            }
            Next::Reconnect { why } => return Some(Leave::Lost(why)),
        }
        None
    }

    fn report_stopped(&mut self) {
        if self.cancelled.is_empty()
            && let Some(done) = self.stopping.take()
        {
            let _ = done.send(());
        }
    }

    /// The connection is gone: every tag on it is void, every queue is due at once on the next one.
    fn drop_all(&mut self, why: &str) {
        for (id, _) in self.subscriptions.of(self.id) {
            self.subscriptions.lost(id, why);
        }
        self.cancelled.clear();
        for wanted in &mut self.wanted {
            wanted.state = State::Due(Duration::ZERO);
        }
        if let Some(done) = self.stopping.take() {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }

    fn next_due(&self) -> Instant {
        let due = self.wanted.iter().filter_map(|wanted| match wanted.state {
            State::Due(at) => Some(at),
            State::Live(_) => None,
        });
        self.started + due.min().unwrap_or_else(|| self.started.elapsed() + CAP)
    }
}

/// The next error that the connection reports.
pub(super) async fn failure(reports: &mut (impl Stream<Item = lapin::Event> + Unpin)) -> Option<String> {
    while let Some(report) = reports.next().await {
        if let lapin::Event::Error(error) = report {
            return Some(super::declare::words(&error));
        }
    }
    None
}

/// Waits until the broker has seen each acknowledgement, then closes; within the bound. Errors are of no interest: whatever was not seen is redelivered.
async fn close(subscriptions: &Subscriptions, session: SessionId, dialled: &Dialled, limit: Duration) {
    let closing = async {
        let subscriptions = subscriptions.of(session);
        join_all(subscriptions.iter().map(|(_, subscription)| subscription.barrier())).await;
        dialled.connection.close(200, "done".into()).await
    };
    let _ = timeout(limit, closing).await;
    dialled.line.cut();
}
