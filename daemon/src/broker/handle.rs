//! The engine's access to the broker: both connections, and what the engine asks of them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::consume::{Session, SessionCommand, SessionId, Subscriptions};
use super::event::{ConsumerId, LinkEvents};
use super::publish::{PublishCommand, Publisher, supervise};
use super::status::LinkStatus;
use crate::config::{Broker, Queue};

/// How long a drain waits for the end of the consumers: a cancel and what was on its way, at most `prefetch × workers`
/// deliveries each.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The link to the broker: two connections and their supervisors, which run as tasks of the current `LocalSet` and
/// never block. Events arrive through the callback given at the start.
pub struct Link {
    subscriptions: Rc<Subscriptions>,
    events: LinkEvents,
    broker: Arc<Broker>,
    publisher: Publisher,
    /// The newest one first; the others settle what they still hold.
    sessions: Vec<Sessions>,
    next_session: SessionId,
}

/// Both supervisors of one broker address.
struct Sessions {
    consuming: Session,
    publishing: mpsc::UnboundedSender<PublishCommand>,
}

impl Link {
    /// Starts connecting. Must be called on a `LocalSet` of a current-thread runtime.
    pub fn start(broker: &Broker, queues: &[Queue], max_task_bytes: u64, events: LinkEvents) -> Self {
        let subscriptions = Rc::new(Subscriptions::new(events.clone(), max_task_bytes));
        let publisher = Publisher::new(broker.publish_channels, events.clone());
        publisher.0.consumes(queues);
        let mut link = Self {
            subscriptions,
            events,
            broker: Arc::new(broker.clone()),
            publisher,
            sessions: Vec::new(),
            next_session: 0,
        };
        link.start_session(queues);
        link
    }

    /// Notes a delivery as done with. Nothing is sent before [`Link::flush`]. A consumer that was lost is ignored: the
    /// broker redelivers.
    pub fn ack(&mut self, consumer: ConsumerId, tag: u64) {
        self.subscriptions.ack(consumer, tag);
    }

    /// Notes a delivery to go back to its queue.
    pub fn requeue(&mut self, consumer: ConsumerId, tag: u64) {
        self.subscriptions.requeue(consumer, tag);
    }

    /// Sends what was noted, with as few frames as the protocol allows. To be called at the end of every turn of the
    /// event loop.
    pub fn flush(&mut self) {
        if self.subscriptions.flush() {
            for session in &self.sessions {
                session.consuming.settled.notify_one();
            }
        }
    }

    /// Publishes copies and follow-ups; stays valid when the broker's address changes.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Takes a new configuration. A queue that was added, removed or got another window is subscribed to or cancelled,
    /// the others go on. A changed broker gets a new link; the old one stays until its tags are settled.
    pub fn reconfigure(&mut self, broker: &Broker, queues: &[Queue]) {
        self.publisher.0.consumes(queues);
        self.sessions.retain(|session| !session.consuming.commands.is_closed());
        if *broker == *self.broker && !self.sessions.is_empty() {
            self.sessions[0].tell(SessionCommand::Queues(queues.to_vec()));
            return;
        }
        self.publisher.0.resize(self.broker.publish_channels, broker.publish_channels);
        self.broker = Arc::new(broker.clone());
        for old in &self.sessions {
            old.tell(SessionCommand::Retire);
            // Closed: that supervisor ended already.
            let _ = old.publishing.send(PublishCommand::Retire);
        }
        self.start_session(queues);
    }

    /// A larger body has only as much memory as it takes to refuse a few at a time.
    pub fn set_max_task_bytes(&self, bytes: u64) {
        self.subscriptions.room.set_max_task_bytes(bytes);
    }

    /// Tries again at once every queue that is left alone because of what it delivers.
    pub fn retry_quarantined(&self) {
        for session in &self.sessions {
            session.tell(SessionCommand::Retry);
        }
    }

    /// Cancels every consumer. Returns when what the broker had already sent has been handed over as deliveries (the
    /// engine gives them back) and each consumer has ended, or after a bound. What is open can still be settled.
    pub fn stop_consuming(&self) -> impl Future<Output = ()> + use<> {
        let stopped: Vec<_> = self
            .sessions
            .iter()
            .map(|session| {
                let (done, ended) = oneshot::channel();
                session.tell(SessionCommand::Stop(done));
                ended
            })
            .collect();
        async {
            // An error: that supervisor had ended.
            let _ = timeout(STOP_LIMIT, futures_util::future::join_all(stopped)).await;
        }
    }

    /// Sends what was noted, waits until the broker has seen it, and closes; all within `limit`. What was not seen is
    /// redelivered. Publishes that wait end with `Closed`.
    pub async fn close(mut self, limit: Duration) {
        self.flush();
        self.publisher.0.close();
        let closed = self.sessions.iter().flat_map(|session| {
            let (consuming, first) = oneshot::channel();
            let (publishing, second) = oneshot::channel();
            session.tell(SessionCommand::Close(limit, consuming));
            // Closed: that supervisor ended already.
            let _ = session.publishing.send(PublishCommand::Close(limit, publishing));
            [first, second]
        });
        let _ = timeout(limit, futures_util::future::join_all(closed)).await;
    }

    fn start_session(&mut self, queues: &[Queue]) {
        let id = self.next_session;
        self.next_session += 1;
        let status = LinkStatus::new(self.events.clone());
        let (publishing, commands) = mpsc::unbounded_channel();
        tokio::task::spawn_local(supervise(
            self.broker.clone(),
            self.publisher.0.clone(),
            status.clone(),
            commands,
        ));
        let consuming = Session::start(id, self.broker.clone(), queues, self.subscriptions.clone(), status);
        self.sessions.insert(0, Sessions { consuming, publishing });
    }
}

impl Sessions {
    fn tell(&self, command: SessionCommand) {
        // Closed: it ended already, and there is nothing left to do for it.
        let _ = self.consuming.commands.send(command);
    }
}
