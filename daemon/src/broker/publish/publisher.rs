//! Confirmed publishing: copies of tasks and follow-ups. A pool of confirm channels on the publishing connection, ONE
//! publish in flight on each: lapin pairs confirms and returns wrongly when there are more.
//!
//! Nothing is lost and nothing is given up: a publish waits while the link is away or blocked, and is repeated when no
//! confirm came. A repeat may be a duplicate; the caller's original stays unacknowledged until the end.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::connection::{Failed, Open, Outgoing, Standing};
use super::copy;
use super::error::PublishError;
use crate::broker::dial::Backoff;
use crate::broker::event::{LinkEvent, LinkEvents};
use crate::broker::queues::{Ensured, QueueError, SETTLE};
use crate::config::{Queue, QueueType};
use crate::task::own::{self, HEADER_DROPPED};

/// A message that ends the connection this often is refused: it would take every other one down with it.
const MAX_HARD_ERRORS: u32 = 3;

/// Publishes on a link. Clones share its channels.
#[derive(Clone)]
pub struct Publisher(pub(in crate::broker) Rc<Pool>);

/// What the publishing supervisor and the publishers share.
pub(in crate::broker) struct Pool {
    /// One permit per channel.
    pub(super) permits: Semaphore,
    /// Queues that this daemon consumes: only there is somebody who sends a task on that is not due yet.
    pub(super) consumed: RefCell<BTreeSet<Arc<str>>>,
    pub(super) link: watch::Sender<Standing>,
    events: LinkEvents,
    /// From when on each quorum queue of ours counts as safe. One that was found is no older than that as far as is
    /// known: another daemon may have declared it just now.
    settled: RefCell<BTreeMap<String, Instant>>,
}

impl Publisher {
    pub(in crate::broker) fn new(channels: u16, events: LinkEvents) -> Self {
        let permits = Semaphore::new(usize::from(channels.max(1)));
        Self(Rc::new(Pool {
            permits,
            consumed: RefCell::default(),
            link: watch::Sender::new(Standing::default()),
            events,
            settled: RefCell::default(),
        }))
    }

    /// Publishes to a queue that has to exist, and waits until the broker confirms it; waits for the link when it is
    /// away or blocked. An error means that it can never succeed.
    pub async fn publish(&self, message: Outgoing<'_>) -> Result<(), PublishError> {
        self.publish_with(Patience::Endless, &message).await
    }

    /// The same of a copy: where a frame has no room for all of the producer's headers, without the largest.
    pub(super) async fn publish_fitted(
        &self,
        patience: Patience,
        message: Outgoing<'_>,
    ) -> Result<(), PublishError> {
        match self.publish_with(patience, &message).await {
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
                self.publish_with(patience, &Outgoing { queue, properties, body }).await
            }
            published => published,
        }
    }

    /// Given up when the patience is at its end.
    async fn publish_with(&self, patience: Patience, message: &Outgoing<'_>) -> Result<(), PublishError> {
        let queue = ShortString::try_new(message.queue)
            .map_err(|_| QueueError::NameTooLong(message.queue.to_owned()))?;
        let (mut backoff, mut hard, mut tried) = (Backoff::default(), 0, 0_u32);
        loop {
            let failed = {
                let _permit = self.0.permits.acquire().await.map_err(|_| PublishError::Closed)?;
                let open = self.open().await?;
                match open.while_up(open.publish(&self.0.link, &queue, message)).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(failed)) => failed,
                    Err(lost) => Failed::Now(lost.to_string()),
                }
            };
            let why = match failed {
                Failed::Never(error) => return Err(error),
                Failed::Hard(why) => {
                    hard += 1;
                    if hard == MAX_HARD_ERRORS {
                        let why = format!("the connection ended each of {hard} times it was sent ({why})");
                        return Err(PublishError::Unacceptable { queue: message.queue.to_owned(), why });
                    }
                    why
                }
                Failed::Now(why) => why,
                Failed::NotTaken(why) => {
                    self.tell(patience, message.queue, &why);
                    why
                }
                Failed::Silent(why) => {
                    self.tell(patience, message.queue, &why);
                    if matches!(patience, Patience::UntilSilent) {
                        return Err(PublishError::Silent { why });
                    }
                    why
                }
            };
            tried = tried.saturating_add(1);
            if matches!(patience, Patience::Tries(tries) if tried >= tries) {
                return Err(PublishError::Refused { queue: message.queue.to_owned(), why });
            }
            self.wait(&mut backoff, message.queue, &why).await;
        }
    }

    /// Makes sure of a queue of ours, and publishes to it; once more from the start when it was deleted meanwhile, and
    /// to the queue of a longer delay when that of its own says nothing.
    pub(super) async fn publish_to(
        &self,
        place: Place<'_>,
        loss: Loss,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let patience = match place {
            Place::Dead(_) => Patience::Endless,
            Place::Delay { .. } => Patience::UntilSilent,
        };
        let mut was_returned = false;
        loop {
            let name = self.ensure(&place).await?;
            let message = Outgoing { queue: &name, properties: properties.clone(), body };
            let published = match loss {
                Loss::Headers => self.publish_fitted(patience, message).await,
                Loss::Nothing => self.publish_with(patience, &message).await,
            };
            match published {
                Ok(()) => {
                    self.note(|open| open.silence.borrow_mut().end(&name));
                    if self.has_settled(&name).await {
                        return Ok(());
                    }
                }
                Err(PublishError::Returned { .. }) if !was_returned => {
                    was_returned = true;
                    (self.0.events)(LinkEvent::Vanished { queue: name.clone() });
                    self.note(|open| open.forget(&name));
                    self.0.settled.borrow_mut().remove(&name);
                }
                Err(PublishError::Silent { .. }) => {
                    self.note(|open| open.silence.borrow_mut().begin(&name, Instant::now()));
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
    fn note(&self, remember: impl FnOnce(&Open)) {
        if let Some(open) = &self.0.link.borrow().open {
            remember(open);
        }
    }

    /// What the broker did not take is told, but not of a message that is soon given up.
    fn tell(&self, patience: Patience, queue: &str, why: &str) {
        if !matches!(patience, Patience::Tries(_)) {
            (self.0.events)(LinkEvent::NotTaken { queue: queue.to_owned(), why: why.to_owned() });
        }
    }

    /// Waits until a copy in this queue can be relied on. False: the link was lost meanwhile, the copy may be as well.
    async fn has_settled(&self, name: &str) -> bool {
        let settled = self.0.settled.borrow().get(name).copied();
        let Some(settled) = settled.filter(|settled| *settled > Instant::now()) else { return true };
        let Some(open) = self.0.link.borrow().open.clone() else { return false };
        open.while_up(tokio::time::sleep_until(settled)).await.is_ok()
    }

    /// The queue's name, once it is known to be there.
    async fn ensure(&self, place: &Place<'_>) -> Result<String, PublishError> {
        let mut backoff = Backoff::default();
        loop {
            let open = self.open().await?;
            let ensuring = async {
                match place {
                    Place::Dead(queue) => open.ensure_dead(queue).await,
                    Place::Delay { target, kind, delay } => {
                        let rung = open.silence.borrow_mut().rung(target, *delay, Instant::now());
                        open.ensure_delay(target, *kind, rung).await
                    }
                }
            };
            match open.while_up(ensuring).await.map_err(PublishError::Queue).flatten() {
                Ok(ensured) => {
                    self.0.found(&ensured);
                    return Ok(ensured.name);
                }
                Err(PublishError::Queue(error @ (QueueError::Link(_) | QueueError::Silent { .. }))) => {
                    if matches!(error, QueueError::Link(_)) {
                        open.hang_up();
                    }
                    drop(open);
                    self.wait(&mut backoff, place.target(), &error.to_string()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The connection, once there is one that takes messages.
    async fn open(&self) -> Result<Rc<Open>, PublishError> {
        let mut link = self.0.link.subscribe();
        tokio::select! {
            standing = link.wait_for(|standing| standing.open.is_some() && !standing.blocked) => {
                standing.ok().and_then(|standing| standing.open.clone()).ok_or(PublishError::Closed)
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
        // Told elsewhere: the link by its supervisor, and what the broker does not take by an event.
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
        self.link.send_modify(|standing| standing.open = None);
    }
}

/// When a publish is given up although it might succeed another time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// Never.
    Endless,
    /// After so many tries on an open link.
    Tries(u32),
    /// When its queue says nothing: there is another one for it.
    UntilSilent,
}

/// What a message may lose to fit into a frame.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loss {
    /// It is published whole or not at all: whoever made it can make a smaller one.
    Nothing,
    /// Those of the producer's headers that there is no room for.
    Headers,
}

/// Where a copy goes.
pub(super) enum Place<'a> {
    Dead(&'a Queue),
    Delay { target: &'a str, kind: Option<QueueType>, delay: Duration },
}

impl Place<'_> {
    fn target(&self) -> &str {
        match self {
            Self::Dead(queue) => &queue.name,
            Self::Delay { target, .. } => target,
        }
    }
}
