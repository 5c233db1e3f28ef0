//! What is published before a task is acknowledged: its copy, its follow-ups, the reply to whoever sent it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::copy::{Failure, Grave, Parent, RetryCopy};
use crate::broker::hops::Wait;
use crate::broker::reply::{Ended, Ending};
use crate::broker::{Backoff, Delivery, PublishError, Publisher};
use crate::config;
use crate::failpoint::failpoint;
use crate::host::Report;
use crate::model::{DeadReason, FollowUp, Outcome, TaskError, TaskId};

use super::flight::{Claim, FlightKey, State};
use super::{Engine, Event};

/// The shortest pause before a copy that the broker refused is tried again; the backoff's dice may say none at all.
const COPY_REFUSED: Duration = Duration::from_millis(100);
/// The same where the broker refuses it for what the message is: an operator has to change something first.
const UNACCEPTABLE: Duration = Duration::from_secs(30);

/// What the future that publishes a copy needs of its flight.
struct Copied {
    publisher: Publisher,
    delivery: Rc<Delivery>,
    queue: Arc<config::Queue>,
    handler: Option<Arc<str>>,
    id: TaskId,
    attempt: u32,
    redeliveries: u32,
    error: TaskError,
}

/// Where a copy that is to run again differs from its original.
#[derive(Clone, Copy)]
pub(super) struct Again {
    pub(super) delay: Duration,
    pub(super) attempt: u32,
    pub(super) redeliveries: u32,
    /// It failed; else what failed before stays on record.
    pub(super) failed: bool,
}

/// What becomes of a task whose copy the broker refuses for what the message is.
#[derive(Debug, Clone, Copy)]
enum OnUnacceptable {
    /// A dead letter: it was to run again, as a retry that was counted or for another reason.
    Bury { retried: bool },
    /// It was to be a dead letter, and stays unacknowledged: lost is worse.
    Hold,
}

impl Copied {
    fn failure(&self) -> Failure<'_> {
        Failure {
            handler: self.handler.as_deref().unwrap_or_default(),
            code: &self.error.code,
            message: &self.error.message,
        }
    }

    /// Tells the sender how its task ended, if it asked. A sender that went away, or whose queue is full, is no reason
    /// to keep the task; the end of the daemon is.
    async fn reply(&self, ending: Ending<'_>) -> Result<(), PublishError> {
        let handler = self.handler.as_deref().unwrap_or_default();
        let ended = Ended { id: &self.id, handler, attempt: self.attempt, ending };
        match self.publisher.reply(&self.delivery, ended).await {
            Err(error) if !matches!(error, PublishError::Closed) => {
                let id = &self.id.text;
                tracing::info!(task_id = %id, %error, "nobody takes the task's reply; the task is settled without");
                Ok(())
            }
            sent => sent,
        }
    }
}

impl Engine {
    pub(super) fn publish_again(&mut self, key: FlightKey, again: Again, error: TaskError) {
        let copy = self.copy_of(key, error);
        self.spawn_copy(key, OnUnacceptable::Bury { retried: again.failed }, async move || {
            let retry = RetryCopy {
                delay: again.delay,
                attempt: again.attempt,
                redeliveries: again.redeliveries,
                id: &copy.id,
                failure: again.failed.then(|| copy.failure()),
            };
            copy.publisher.retry(&copy.queue, &copy.delivery, retry).await
        });
    }

    /// Publishes a task that is not due yet to its next wait.
    pub(super) fn publish_on(&mut self, key: FlightKey, wait: Wait) {
        let copy = self.copy_of(key, TaskError::default());
        self.spawn_copy(key, OnUnacceptable::Bury { retried: false }, async move || {
            let retry = RetryCopy {
                delay: Duration::ZERO,
                attempt: copy.attempt,
                redeliveries: copy.redeliveries,
                id: &copy.id,
                failure: None,
            };
            copy.publisher.send_on(&copy.queue, &copy.delivery, retry, wait).await
        });
    }

    pub(super) fn publish_dead(&mut self, key: FlightKey, reason: DeadReason, error: TaskError) {
        let copy = self.copy_of(key, error);
        self.spawn_copy(key, OnUnacceptable::Hold, async move || {
            let grave = Grave {
                reason,
                attempt: copy.attempt,
                redeliveries: copy.redeliveries,
                id: &copy.id,
                failure: copy.failure(),
            };
            copy.publisher.dead(&copy.queue, &copy.delivery, grave).await?;
            copy.reply(Ending::Dead(reason, copy.failure())).await
        });
    }

    fn copy_of(&mut self, key: FlightKey, error: TaskError) -> Copied {
        let flight = &mut self.flights[key];
        flight.publishing = Some(self.now);
        let flight = &*flight;
        Copied {
            publisher: self.publisher.clone(),
            delivery: flight.delivery.clone(),
            queue: self.queues[flight.queue].config.clone(),
            handler: self.lanes.all.get(&flight.lane).map(|lane| lane.generation.handler.clone()),
            id: flight.id.clone(),
            attempt: flight.attempt,
            redeliveries: flight.redeliveries,
            error,
        }
    }

    /// Publishes a copy until the broker took it; the original stays unacknowledged until then.
    fn spawn_copy(
        &self,
        key: FlightKey,
        on_unacceptable: OnUnacceptable,
        publish: impl AsyncFn() -> Result<(), PublishError> + 'static,
    ) {
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            failpoint!("settle::before-copy");
            let mut backoff = Backoff::default();
            while let Err(error) = publish().await {
                let pause = match (&error, on_unacceptable) {
                    (PublishError::Closed, _) => return, // the daemon ends: the broker redelivers the original
                    (PublishError::Unacceptable { .. }, OnUnacceptable::Bury { retried }) => {
                        let _ =
                            sender.send(Event::Unacceptable { flight: key, retried, why: error.to_string() });
                        return;
                    }
                    (PublishError::Unacceptable { .. }, OnUnacceptable::Hold) => UNACCEPTABLE,
                    _ => backoff.failed().max(COPY_REFUSED),
                };
                let _ = sender.send(Event::CopyRefused(key, error.to_string()));
                tokio::time::sleep(pause).await;
            }
            failpoint!("settle::after-copy");
            let _ = sender.send(Event::Copied(key, Ok(())));
        });
    }

    /// A copy cannot be published at the moment. It is tried again, without limit.
    pub(super) fn on_copy_refused(&mut self, key: FlightKey, why: &str) {
        let flight = &mut self.flights[key];
        flight.refused = Some(why.to_owned());
        let id = flight.id.text.clone();
        tracing::error!(task_id = %id, error = why, "a copy cannot be published; the task stays unacknowledged, trying again");
        let handler = self.lanes.all.get(&flight.lane).map(|lane| lane.generation.handler.clone());
        self.remember(handler.as_deref(), Some(&id), why);
    }

    /// The broker never takes the copy that is to run again: the task is a dead letter instead.
    pub(super) fn on_unacceptable(&mut self, key: FlightKey, retried: bool, why: String) {
        self.log.refused(self.task_ref(key), DeadReason::Refused);
        self.count(key, |counts| {
            counts.retried -= u64::from(retried);
            counts.dead += 1;
        });
        let handler = self.lanes.all.get(&self.flights[key].lane).map(|lane| lane.generation.handler.clone());
        let id = self.flights[key].id.text.clone();
        self.remember(handler.as_deref(), Some(&id), &why);
        let error =
            TaskError { code: DeadReason::Refused.as_str().to_owned(), message: why, retry_after: None };
        self.publish_dead(key, DeadReason::Refused, error);
    }

    /// Follow-ups in order, each confirmed before the next, and at the end the reply, which then is final. A follow-up
    /// that the broker refuses fails the task.
    pub(super) fn publish_what_comes_of(&mut self, key: FlightKey, follow_ups: Vec<FollowUp>) {
        let result = self.flights[key].result.take();
        let copy = self.copy_of(key, TaskError::default());
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            let parent = Parent { id: &copy.id.text, properties: &copy.delivery.properties };
            let mut published = Ok(());
            for (n, follow_up) in follow_ups.into_iter().enumerate() {
                failpoint!("settle::before-copy");
                published = copy.publisher.follow_up(&copy.queue, parent, n + 1, &follow_up).await;
                if published.is_err() {
                    break;
                }
                failpoint!("settle::after-copy");
            }
            if published.is_ok() {
                published = copy.reply(Ending::Done(result.as_ref())).await;
            }
            let _ = sender.send(Event::Copied(key, published));
        });
    }

    /// The copies of a flight are confirmed: now, and only now, the original is acknowledged.
    pub(super) fn on_copied(&mut self, key: FlightKey, result: Result<(), PublishError>) {
        let flight = &mut self.flights[key];
        if let Err(error) = result {
            let message = format!("a follow-up task was refused: {error}");
            let error = Some(TaskError { code: "publish-failed".to_owned(), message, retry_after: None });
            flight.done = false;
            self.count(key, |counts| counts.done -= 1);
            let report = Report {
                seq: 0,
                outcome: Outcome::Retry,
                error,
                result: None,
                follow_ups: Vec::new(),
                duration: Duration::ZERO,
            };
            self.conclude(key, report);
            return;
        }
        if flight.done {
            self.remember_done(key);
        }
        let flight = &mut self.flights[key];
        match flight.claim {
            Claim::Held(..) => {
                failpoint!("settle::before-ack");
                self.acknowledge(key);
            }
            Claim::Orphan(_) => flight.state = State::Copied,
        }
    }
}
