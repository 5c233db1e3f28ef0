//! The consuming connection: does what the state machine in `link.rs` says, and tells it what happens. Each session
//! belongs to one broker address; a changed address gets a new session, and the old one stays until its tags are
//! settled.
//!
//! Its loop waits for nothing but events: everything that asks the broker is a job beside it, within a bound.

mod connection;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt, LocalBoxFuture, pending};
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::options::BasicCancelOptions;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use self::connection::{Connection, close, failure};
use super::link::{End, SessionAction, SessionEvent, SessionMachine};
use super::subscription::{CONSUMER_TAG, SessionId, Subscriptions};
use crate::broker::dial::{BrokerConnection, CAP, Loss, answered, dial_one};
use crate::broker::event::{ConsumerId, LinkEvent};
use crate::broker::queues::{QueueError, declare_work_queue};
use crate::broker::status::LinkStatus;
use crate::config::{Broker, Queue};

/// How often the connection is looked at, besides its own reports.
const CHECK: Duration = Duration::from_secs(5);

/// What the link asks of its session.
pub(in crate::broker) enum SessionCommand {
    /// Consume exactly these.
    Queues(Vec<Queue>),
    /// Try again at once what was given up for a while.
    Retry,
    /// Cancel every consumer; answer when what was buffered has been handed over.
    Stop(oneshot::Sender<()>),
    /// Cancel every consumer, and end when every tag is settled.
    Retire,
    /// Let the broker see all that was sent, close, and end; within this time.
    Close(Duration, oneshot::Sender<()>),
}

/// The link's hold on a session.
pub(in crate::broker) struct Session {
    pub(in crate::broker) commands: mpsc::UnboundedSender<SessionCommand>,
    /// A subscription was settled to its end.
    pub(in crate::broker) settled: Rc<Notify>,
}

/// The task behind it.
struct Supervisor {
    id: SessionId,
    broker: Arc<Broker>,
    subscriptions: Rc<Subscriptions>,
    status: Rc<LinkStatus>,
    /// `None` when the link is gone.
    commands: Option<mpsc::UnboundedReceiver<SessionCommand>>,
    settled: Rc<Notify>,
    ends: mpsc::UnboundedReceiver<(ConsumerId, End)>,
    /// For the consumers to come.
    ended: mpsc::UnboundedSender<(ConsumerId, End)>,
    started: Instant,
    machine: SessionMachine,
    /// Not yet given to the machine.
    events: VecDeque<SessionEvent>,
    /// What the broker is being asked. They belong to the connection, and go with it.
    jobs: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    connection: Option<Connection>,
    /// Who waits for the end of the consumers.
    stopping: Option<oneshot::Sender<()>>,
    /// The time to close in, and who waits for it.
    closing: Option<(Duration, oneshot::Sender<()>)>,
}

/// The end of a job.
enum Done {
    Dialled(usize, Box<BrokerConnection>),
    /// The connection is gone, as far as the job was told.
    Lost(String),
    /// Whatever the machine is to know of it.
    Event(Option<SessionEvent>),
}

impl Session {
    /// Starts the supervisor on the current `LocalSet`.
    pub(in crate::broker) fn start(
        id: SessionId,
        broker: Arc<Broker>,
        queues: &[Queue],
        subscriptions: Rc<Subscriptions>,
        status: Rc<LinkStatus>,
    ) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (ended, ends) = mpsc::unbounded_channel();
        let settled = Rc::new(Notify::new());
        let supervisor = Supervisor {
            id,
            machine: SessionMachine::new(broker.uris.len(), queues),
            broker,
            subscriptions,
            status,
            commands: Some(receiver),
            settled: settled.clone(),
            ends,
            ended,
            started: Instant::now(),
            events: VecDeque::from([SessionEvent::Time]),
            jobs: FuturesUnordered::new(),
            connection: None,
            stopping: None,
            closing: None,
        };
        tokio::task::spawn_local(supervisor.run());
        Self { commands, settled }
    }
}

impl Supervisor {
    async fn run(mut self) {
        let mut check = tokio::time::interval(CHECK);
        loop {
            while let Some(event) = self.events.pop_front() {
                for action in self.machine.on(event, self.started.elapsed()) {
                    if action == SessionAction::End {
                        return self.end().await;
                    }
                    self.perform(action);
                }
            }
            let wake = self.started + self.machine.wake(self.started.elapsed());
            let settled = self.settled.clone();
            tokio::select! {
                command = next_command(&mut self.commands) => self.on_command(command),
                Some(done) = self.jobs.next() => self.on_done(done),
                Some((id, end)) = self.ends.recv() => self.on_end(id, end),
                () = settled.notified() => self.note_settled(),
                loss = failure(self.connection.as_mut()) => self.on_report(loss),
                _ = check.tick() => {
                    self.look("the connection is gone");
                    self.ask_what_was_seen();
                    self.ask_for_idle();
                }
                () = sleep_until(wake) => self.events.push_back(SessionEvent::Time),
            }
        }
    }

    /// A command; `None`: the link was dropped.
    fn on_command(&mut self, command: Option<SessionCommand>) {
        let event = match command {
            Some(SessionCommand::Queues(queues)) => SessionEvent::Queues(queues),
            Some(SessionCommand::Retry) => SessionEvent::Retry,
            Some(SessionCommand::Stop(done)) => {
                self.stopping = Some(done);
                SessionEvent::Stop
            }
            Some(SessionCommand::Close(limit, done)) => {
                self.closing = Some((limit, done));
                SessionEvent::Close
            }
            Some(SessionCommand::Retire) => SessionEvent::Retire,
            None => {
                self.commands = None;
                SessionEvent::Retire
            }
        };
        self.events.push_back(event);
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Dialled(turn, dialled) => {
                self.status.used(turn);
                self.status.consuming(Some((dialled.address.clone(), dialled.server.clone())));
                self.connection = Some(Connection::new(Rc::from(dialled)));
                self.events.push_back(SessionEvent::Dialled);
                // It may have ended before there was a listener.
                self.look("the connection is gone");
            }
            Done::Lost(why) => self.lost(Loss::plain(why)),
            Done::Event(event) => self.events.extend(event),
        }
    }

    /// The connection is gone. Its own reports say why: whoever noticed may only know that it is, or what came before.
    fn lost(&mut self, mut loss: Loss) {
        while let Some(report) = failure(self.connection.as_mut()).now_or_never() {
            if !loss.by_content {
                loss = report;
            }
        }
        self.events.push_back(SessionEvent::Lost(loss));
    }

    /// A consumer's stream has ended.
    fn on_end(&mut self, id: ConsumerId, end: End) {
        if self.subscriptions.get(id).is_none() {
            return; // of a connection that was lost before
        }
        match end {
            end if self.is_connected() => {
                self.events.push_back(SessionEvent::Ended { id, end, connected: true });
            }
            End::Connection(loss) => self.lost(loss),
            End::Channel(why) => self.lost(Loss::plain(why)),
            End::Cancelled => self.lost(Loss::plain("the connection is gone")),
        }
    }

    /// An error of the connection's, or of one of its channels.
    fn on_report(&mut self, loss: Loss) {
        if self.is_connected() {
            self.look(&loss.why);
        } else {
            self.lost(loss);
        }
    }

    /// Looks whether the connection, and the channels that nobody reads from any more, are still there.
    fn look(&mut self, why: &str) {
        if self.connection.is_some() && !self.is_connected() {
            return self.lost(Loss::plain(why));
        }
        for id in self.machine.kept() {
            let event = match self.subscriptions.get(id) {
                Some(one) if one.channel.status().connected() => continue,
                Some(_) => SessionEvent::Ended { id, end: End::Channel(why.to_owned()), connected: true },
                None => SessionEvent::Released(id),
            };
            self.events.push_back(event);
        }
    }

    /// Has the broker say that it has seen the settlements up to here: those of a lost link are in doubt otherwise.
    fn ask_what_was_seen(&self) {
        for (id, one) in self.subscriptions.unseen(self.id) {
            let (subscriptions, before) = (self.subscriptions.clone(), std::time::Instant::now());
            self.jobs.push(Box::pin(async move {
                if one.round_trip().await.is_ok() {
                    subscriptions.tell(LinkEvent::Seen { consumer: id, before });
                }
                Done::Event(None)
            }));
        }
    }

    /// Asks the broker for the consumers that got nothing for a while.
    fn ask_for_idle(&self) {
        let Some(Connection { dialled, .. }) = &self.connection else { return };
        for (id, one) in self.subscriptions.idle(self.id) {
            let dialled = dialled.clone();
            self.jobs.push(Box::pin(async move {
                let forgotten = one.forgotten(&dialled.connection).await;
                Done::Event(forgotten.map(|why| SessionEvent::Forgotten(id, why.to_owned())))
            }));
        }
    }

    /// Tells the machine of every stopped consumer that has nothing left to settle.
    fn note_settled(&mut self) {
        let finished = self.subscriptions.of(self.id).into_iter().filter(|(_, one)| one.is_finished());
        self.events.extend(finished.map(|(id, _)| SessionEvent::Settled(id)));
    }

    fn perform(&mut self, action: SessionAction) {
        match action {
            SessionAction::Dial(turn) => self.dial(turn),
            SessionAction::HangUp(why) => self.hang_up(&why),
            SessionAction::Subscribe(queue) => self.subscribe(queue),
            SessionAction::Cancel(id) => self.cancel(id),
            SessionAction::Stopped(id) => {
                self.subscriptions.stopped(id);
                self.note_settled();
            }
            SessionAction::Void(id, why) => self.subscriptions.lost(id, &why),
            SessionAction::Release(id) => self.release(id),
            SessionAction::Away(why) => self.subscriptions.tell(LinkEvent::Away { why }),
            SessionAction::Unusable(queue, why) => {
                self.subscriptions.tell(LinkEvent::Unusable { queue, why });
            }
            SessionAction::Quarantine(queue, why, wait) => {
                self.subscriptions.tell(LinkEvent::Quarantined { queue, why, wait });
            }
            SessionAction::NoneLeft => {
                // Whoever asked may have stopped waiting.
                let _ = self.stopping.take().map(|done| done.send(()));
            }
            SessionAction::End => unreachable!("it is the last one, and ends the loop"),
        }
    }

    fn dial(&self, turn: usize) {
        let (broker, room) = (self.broker.clone(), self.subscriptions.room.clone());
        self.jobs.push(Box::pin(async move {
            let name = format!("warrend[{}] consuming", std::process::id());
            match dial_one(&broker, &broker.uris[turn], &name, Some(room)).await {
                Ok(dialled) => Done::Dialled(turn, Box::new(dialled)),
                Err(error) => Done::Event(Some(SessionEvent::DialFailed(error.to_string()))),
            }
        }));
    }

    /// Declares and consumes a queue. One that cannot be used, or whose questions are not answered, disturbs no other.
    fn subscribe(&self, queue: Queue) {
        let Some(Connection { dialled, .. }) = &self.connection else { return };
        let (dialled, subscriptions, session) = (dialled.clone(), self.subscriptions.clone(), self.id);
        let ended = self.ended.clone();
        self.jobs.push(Box::pin(async move {
            let subscribed = match declare_work_queue(&dialled.connection, &queue, &dialled.server).await {
                Ok(()) => subscriptions.subscribe(session, &dialled, &queue, ended).await,
                Err(error) => Err(error),
            };
            match subscribed {
                Ok(id) => Done::Event(Some(SessionEvent::Consuming(queue.name, id))),
                Err(QueueError::Link(why)) => Done::Lost(why),
                // Without heartbeats nothing else tells that the broker is gone.
                Err(QueueError::Silent { .. }) if dialled.connection.configuration().heartbeat() == 0 => {
                    Done::Lost("the broker does not answer".to_owned())
                }
                Err(error) => Done::Event(Some(SessionEvent::Unusable(queue.name, error.to_string()))),
            }
        }));
    }

    /// Cancels a consumer, whose stream then ends; or its channel, when the broker does not answer.
    fn cancel(&self, id: ConsumerId) {
        let (Some(Connection { dialled, .. }), Some(one)) = (&self.connection, self.subscriptions.get(id))
        else {
            return;
        };
        let dialled = dialled.clone();
        self.jobs.push(Box::pin(async move {
            let options = BasicCancelOptions::default();
            let cancelled = answered(one.channel.basic_cancel(CONSUMER_TAG.into(), options)).await;
            Done::Event(cancelled.err().map(|error| SessionEvent::Ended {
                id,
                end: End::Channel(error.to_string()),
                connected: dialled.connection.status().connected(),
            }))
        }));
    }

    /// Lets go of a channel that is settled to its end. A failure means that the broker redelivers.
    fn release(&self, id: ConsumerId) {
        let subscriptions = self.subscriptions.clone();
        self.jobs.push(Box::pin(async move {
            if let Some(one) = subscriptions.get(id) {
                match one.barrier().await {
                    Ok(()) => subscriptions.released(id),
                    Err(error) => subscriptions.lost(id, &error.to_string()),
                }
            }
            Done::Event(Some(SessionEvent::Released(id)))
        }));
    }

    /// The connection is gone, and with it every tag and every question.
    fn hang_up(&mut self, why: &str) {
        self.jobs.clear();
        self.status.consuming(None);
        for (id, _) in self.subscriptions.of(self.id) {
            self.subscriptions.lost(id, why);
        }
        if let Some(connection) = self.connection.take() {
            connection.dialled.socket.shut_down();
        }
    }

    async fn end(mut self) {
        self.jobs.clear();
        let (limit, done) = self.closing.take().unzip();
        if let Some(connection) = &self.connection {
            close(&self.subscriptions, self.id, &connection.dialled, limit.unwrap_or(CAP)).await;
        }
        self.hang_up("the link is closed");
        // Whoever asked may have stopped waiting.
        let _ = done.map(|done: oneshot::Sender<()>| done.send(()));
    }

    fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(|one| one.dialled.connection.status().connected())
    }
}

/// The next command; `None` once, when the link was dropped.
async fn next_command(
    commands: &mut Option<mpsc::UnboundedReceiver<SessionCommand>>,
) -> Option<SessionCommand> {
    match commands {
        Some(commands) => commands.recv().await,
        None => pending().await,
    }
}
