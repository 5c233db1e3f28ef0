//! Publishes copies of tasks and follow-ups, each until the broker has confirmed it.
//!
//! A publish waits while there is no connection or the broker blocks publishers, and is repeated when no confirm came. A
//! repeated message may be a duplicate. No message is lost, because the delivery that was copied stays unacknowledged until
//! its copy is confirmed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::connection::{LinkState, Outgoing, PublishFailure, PublishingConnection};
use super::copy;
use super::error::PublishError;
use crate::broker::dial::Backoff;
use crate::broker::event::{LinkEvent, LinkEvents};
use crate::broker::queues::{Ensured, QueueError, SETTLE};
use crate::config::{Queue, QueueType};
use crate::task::own::{self, HEADER_DROPPED};

/// A message that ends the connection this often is refused: each time, the other publishes in flight fail as well.
const MAX_HARD_ERRORS: u32 = 3;

/// Publishes on a link. Clones share its channels.
#[derive(Clone)]
pub struct Publisher(pub(in crate::broker) Rc<Pool>);

/// What the publishing supervisor and the publishers share.
pub(in crate::broker) struct Pool {
    /// One permit per channel.
    pub(super) permits: Semaphore,
    /// Queues that this daemon consumes. Only there a daemon sends on a task that is not due yet.
    pub(super) consumed: RefCell<BTreeSet<Arc<str>>>,
    pub(super) link: watch::Sender<LinkState>,
    events: LinkEvents,
    /// From when on each quorum queue that Warren declares counts as safe. The age of a queue that was found is not known:
    /// another daemon may have declared it just now.
    settled: RefCell<BTreeMap<String, Instant>>,
}

impl Publisher {
    pub(in crate::broker) fn new(channels: u16, events: LinkEvents) -> Self {
        let permits = Semaphore::new(usize::from(channels.max(1)));
        Self(Rc::new(Pool {
            permits,
            consumed: RefCell::default(),
            link: watch::Sender::new(LinkState::default()),
            events,
            settled: RefCell::default(),
        }))
    }

    /// Publishes to a queue that has to exist, and waits until the broker has confirmed the message. Waits for the link when
    /// there is none, or when the broker blocks publishers. An error means that the publish can never succeed.
    pub async fn publish(&self, message: Outgoing<'_>) -> Result<(), PublishError> {
        self.publish_with(GiveUp::Never, &message).await
    }

    /// Publishes a copy. Where a frame has no room for all of the producer's headers, the largest are left out.
    pub(super) async fn publish_fitted(
        &self,
        give_up: GiveUp,
        message: Outgoing<'_>,
    ) -> Result<(), PublishError> {
        match self.publish_with(give_up, &message).await {
            Err(PublishError::TooLarge { bytes, limit, .. }) => {
                let Outgoing { queue, properties, body } = message;
                let properties = copy::fit(properties, limit);
                let dropped = own::note(&properties, HEADER_DROPPED).unwrap_or_default();
                tracing::warn!(
                    QUEUE = queue,
                    dropped,
                    bytes,
                    limit,
                    "a copy has no room for all headers of its task"
                );
                self.publish_with(give_up, &Outgoing { queue, properties, body }).await
            }
            published => published,
        }
    }

    /// Publishes until the broker has confirmed, or until the message is given up.
    async fn publish_with(&self, give_up: GiveUp, message: &Outgoing<'_>) -> Result<(), PublishError> {
        let queue = ShortString::try_new(message.queue)
            .map_err(|_| QueueError::NameTooLong(message.queue.to_owned()))?;
        let (mut backoff, mut hard, mut tried) = (Backoff::default(), 0, 0_u32);
        loop {
            let failed = {
                let _permit = self.0.permits.acquire().await.map_err(|_| PublishError::Closed)?;
                let connection = self.connection().await?;
                match connection.while_up(connection.publish(&self.0.link, &queue, message)).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(failed)) => failed,
                    Err(lost) => PublishFailure::Temporary(lost.to_string()),
                }
            };
            let why = match failed {
                PublishFailure::Permanent(error) => return Err(error),
                PublishFailure::ConnectionError(why) => {
                    hard += 1;
                    if hard == MAX_HARD_ERRORS {
                        let why = format!("the connection ended each of {hard} times it was sent ({why})");
                        return Err(PublishError::Unacceptable { queue: message.queue.to_owned(), why });
                    }
                    why
                }
                PublishFailure::Temporary(why) => why,
                PublishFailure::NotTaken(why) => {
                    self.tell(give_up, message.queue, &why);
                    why
                }
                PublishFailure::Silent(why) => {
                    self.tell(give_up, message.queue, &why);
                    if matches!(give_up, GiveUp::WhenSilent) {
                        return Err(PublishError::Silent { why });
                    }
                    why
                }
            };
            tried = tried.saturating_add(1);
            if matches!(give_up, GiveUp::AfterTries(tries) if tried >= tries) {
                return Err(PublishError::Refused { queue: message.queue.to_owned(), why });
            }
            self.wait(&mut backoff, message.queue, &why).await;
        }
    }

    /// Declares a queue where it is missing, and publishes to it. Once more from the start, when the queue was deleted
    /// meanwhile. To the queue of a longer delay, when a delay queue does not confirm.
    pub(super) async fn publish_to(
        &self,
        place: Destination<'_>,
        may_drop: MayDrop,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let give_up = match place {
            Destination::Dead(_) => GiveUp::Never,
            Destination::Delay { .. } => GiveUp::WhenSilent,
        };
        let mut was_returned = false;
        loop {
            let name = self.ensure(&place).await?;
            let message = Outgoing { queue: &name, properties: properties.clone(), body };
            let published = match may_drop {
                MayDrop::Headers => self.publish_fitted(give_up, message).await,
                MayDrop::Nothing => self.publish_with(give_up, &message).await,
            };
            match published {
                Ok(()) => {
                    self.note(|connection| connection.silence.borrow_mut().end(&name));
                    if self.has_settled(&name).await {
                        return Ok(());
                    }
                }
                Err(PublishError::Returned { .. }) if !was_returned => {
                    was_returned = true;
                    (self.0.events)(LinkEvent::Vanished { queue: name.clone() });
                    self.note(|connection| connection.forget(&name));
                    self.0.settled.borrow_mut().remove(&name);
                }
                Err(PublishError::Silent { .. }) => {
                    self.note(|connection| connection.silence.borrow_mut().begin(&name, Instant::now()));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether this daemon consumes the queue.
    pub(super) fn consumes(&self, queue: &str) -> bool {
        self.0.consumed.borrow().contains(queue)
    }

    /// Remembers something for as long as the connection lasts.
    fn note(&self, remember: impl FnOnce(&PublishingConnection)) {
        if let Some(connection) = &self.0.link.borrow().connection {
            remember(connection);
        }
    }

    /// Reports that the broker did not take a message, unless the message is given up after a few attempts.
    fn tell(&self, give_up: GiveUp, queue: &str, why: &str) {
        if !matches!(give_up, GiveUp::AfterTries(_)) {
            (self.0.events)(LinkEvent::NotTaken { queue: queue.to_owned(), why: why.to_owned() });
        }
    }

    /// Waits until a copy in this queue can be relied on. False: the link was lost meanwhile, the copy may be as well.
    async fn has_settled(&self, name: &str) -> bool {
        let settled = self.0.settled.borrow().get(name).copied();
        let Some(settled) = settled.filter(|settled| *settled > Instant::now()) else { return true };
        let Some(connection) = self.0.link.borrow().connection.clone() else { return false };
        connection.while_up(tokio::time::sleep_until(settled)).await.is_ok()
    }

    /// The queue's name, once it is known to be there.
    async fn ensure(&self, place: &Destination<'_>) -> Result<String, PublishError> {
        let mut backoff = Backoff::default();
        loop {
            let connection = self.connection().await?;
            let ensuring = async {
                match place {
                    Destination::Dead(queue) => connection.ensure_dead(queue).await,
                    Destination::Delay { target, kind, delay } => {
                        let rung = connection.silence.borrow_mut().rung(target, *delay, Instant::now());
                        connection.ensure_delay(target, *kind, rung).await
                    }
                }
            };
            match connection.while_up(ensuring).await.map_err(PublishError::Queue).flatten() {
                Ok(ensured) => {
                    self.0.found(&ensured);
                    return Ok(ensured.name);
                }
                Err(PublishError::Queue(error @ (QueueError::Link(_) | QueueError::Silent { .. }))) => {
                    if matches!(error, QueueError::Link(_)) {
                        connection.hang_up();
                    }
                    drop(connection);
                    self.wait(&mut backoff, place.target(), &error.to_string()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The connection, once there is one that takes messages.
    async fn connection(&self) -> Result<Rc<PublishingConnection>, PublishError> {
        let mut link = self.0.link.subscribe();
        tokio::select! {
            state = link.wait_for(|state| state.connection.is_some() && !state.blocked) => {
                state.ok().and_then(|state| state.connection.clone()).ok_or(PublishError::Closed)
            }
            () = self.closed() => Err(PublishError::Closed),
        }
    }

    /// Ends when the pool is closed.
    async fn closed(&self) {
        let mut link = self.0.link.subscribe();
        while !self.0.permits.is_closed() {
            if link.changed().await.is_err() {
                return;
            }
        }
    }

    async fn wait(&self, backoff: &mut Backoff, queue: &str, why: &str) {
        // Reported elsewhere: a lost link by its supervisor, a refused message by an event.
        tracing::debug!(QUEUE = queue, "publishing again: {why}");
        tokio::time::sleep(backoff.failed().max(Duration::from_millis(10))).await;
    }
}

impl Pool {
    /// Takes note of what is consumed now.
    pub(in crate::broker) fn consumes(&self, queues: &[Queue]) {
        *self.consumed.borrow_mut() = queues.iter().map(|queue| queue.name.clone()).collect();
    }

    /// Takes note of a queue that a copy can go to.
    fn found(&self, ensured: &Ensured) {
        let mut settled = self.settled.borrow_mut();
        if ensured.is_quorum && (ensured.is_new || !settled.contains_key(&ensured.name)) {
            settled.insert(ensured.name.clone(), Instant::now() + SETTLE);
        }
    }

    /// Changes the number of channels. Fewer: as far as they are free; one in use stays in the pool.
    pub(in crate::broker) fn resize(&self, from: u16, to: u16) {
        if to > from {
            self.permits.add_permits(usize::from(to - from));
        } else {
            self.permits.forget_permits(usize::from(from - to));
        }
    }

    /// Everything that waits ends with [`PublishError::Closed`].
    pub(in crate::broker) fn close(&self) {
        self.permits.close();
        self.link.send_modify(|state| state.connection = None);
    }
}

/// When a publish is given up although it might succeed another time.
#[derive(Debug, Clone, Copy)]
pub(super) enum GiveUp {
    /// Not at all.
    Never,
    /// After so many tries on an open link.
    AfterTries(u32),
    /// When its queue does not confirm: there is another queue for it.
    WhenSilent,
}

/// What may be dropped from a message, so that it fits into a frame.
#[derive(Debug, Clone, Copy)]
pub(super) enum MayDrop {
    /// It is published whole or not at all: whoever made it can make a smaller one.
    Nothing,
    /// Those of the producer's headers that there is no room for.
    Headers,
}

/// Where a copy goes.
pub(super) enum Destination<'a> {
    Dead(&'a Queue),
    Delay { target: &'a str, kind: Option<QueueType>, delay: Duration },
}

impl Destination<'_> {
    fn target(&self) -> &str {
        match self {
            Self::Dead(queue) => &queue.name,
            Self::Delay { target, .. } => target,
        }
    }
}
