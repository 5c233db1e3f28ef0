//! What is published before a task is acknowledged: its copy, its follow-ups, the reply to whoever sent it. Each publication
//! is a future of its own, which reports to the core as events.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::broker::copy::{DeadCopy, Failure, Parent, RetryCopy};
use crate::broker::reply::{Ended, Ending};
use crate::broker::{Backoff, PublishError, Publisher};
use crate::failpoint::failpoint;
use crate::model::{FollowUp, TaskError, TaskResult};

use super::super::core::{Copy, CopyKind, CopyResult, Event};
use super::{Driver, DriverInput};

/// The shortest pause before a copy that the broker refused is tried again; the backoff's jitter may say none at all.
const REFUSED: Duration = Duration::from_millis(100);
/// The same where the broker refuses it for what the message is: an operator has to change something first.
const UNACCEPTABLE: Duration = Duration::from_secs(30);

/// One publication.
struct Publication {
    publisher: Publisher,
    sender: mpsc::UnboundedSender<DriverInput>,
    copy: Copy,
}

impl Driver {
    /// Starts a publication.
    pub(super) fn publish(&self, copy: Copy) {
        let (publisher, sender) = (self.publisher.clone(), self.sender.clone());
        let publication = Publication { publisher, sender, copy };
        tokio::task::spawn_local(async move {
            match &publication.copy.kind {
                CopyKind::FollowUps { follow_ups, result } => {
                    publication.publish_follow_ups_and_reply(follow_ups, result.as_ref()).await;
                }
                _ => publication.publish_until_taken().await,
            }
        });
    }
}

impl Publication {
    fn report(&self, result: CopyResult) {
        let event = Event::Copy { entry: self.copy.entry, result };
        // The loop may have ended: the broker redelivers the original.
        let _ = self.sender.send(DriverInput::Event(event));
    }

    /// Publishes a copy until the broker took it; the original stays unacknowledged until then.
    async fn publish_until_taken(&self) {
        failpoint!("settle::before-copy");
        let mut backoff = Backoff::default();
        while let Err(error) = self.publish_copy().await {
            let why = error.to_string();
            let pause = match (error, &self.copy.kind) {
                (PublishError::Closed, _) => return, // the daemon ends: the broker redelivers the original
                // It was to be a dead letter, and stays unacknowledged: lost is worse.
                (PublishError::Unacceptable { .. }, CopyKind::Dead { .. }) => UNACCEPTABLE,
                (PublishError::Unacceptable { .. }, _) => return self.report(CopyResult::Unacceptable(why)),
                _ => backoff.failed().max(REFUSED),
            };
            self.report(CopyResult::Refused(why));
            tokio::time::sleep(pause).await;
        }
        failpoint!("settle::after-copy");
        self.report(CopyResult::Confirmed);
    }

    async fn publish_copy(&self) -> Result<(), PublishError> {
        let Copy { delivery, queue, id, attempt, redeliveries, kind, .. } = &self.copy;
        match kind {
            CopyKind::Again(again) => {
                let retry = RetryCopy {
                    delay: again.delay,
                    attempt: again.attempt,
                    redeliveries: again.redeliveries,
                    id,
                    failure: again.failure.as_ref().map(|error| self.failure(error)),
                };
                self.publisher.retry(queue, delivery, retry).await
            }
            CopyKind::Onward(wait) => {
                let copy = RetryCopy {
                    delay: Duration::ZERO,
                    attempt: *attempt,
                    redeliveries: *redeliveries,
                    id,
                    failure: None,
                };
                self.publisher.send_on(queue, delivery, copy, *wait).await
            }
            CopyKind::Dead { reason, error } => {
                let failure = self.failure(error);
                let dead =
                    DeadCopy { reason: *reason, attempt: *attempt, redeliveries: *redeliveries, id, failure };
                self.publisher.dead(queue, delivery, dead).await?;
                self.reply(Ending::Dead(*reason, failure)).await
            }
            CopyKind::FollowUps { .. } => unreachable!("follow-ups are published once, in order"),
        }
    }

    /// Follow-ups in order, each confirmed before the next, and at the end the reply, which then is final.
    async fn publish_follow_ups_and_reply(&self, follow_ups: &[FollowUp], result: Option<&TaskResult>) {
        let Copy { delivery, queue, id, .. } = &self.copy;
        let parent = Parent { id: &id.text, properties: &delivery.properties };
        let publish = async {
            for (n, follow_up) in follow_ups.iter().enumerate() {
                failpoint!("settle::before-copy");
                self.publisher.follow_up(queue, parent, n + 1, follow_up).await?;
                failpoint!("settle::after-copy");
            }
            self.reply(Ending::Done(result)).await
        };
        match publish.await {
            Ok(()) => self.report(CopyResult::Confirmed),
            Err(PublishError::Closed) => {} // the daemon ends: the broker redelivers the original
            Err(error) => self.report(CopyResult::FollowUpFailed(error.to_string())),
        }
    }

    /// Tells the sender how its task ended, if it asked. A sender that went away, or whose queue is full, is no reason
    /// to keep the task; the end of the daemon is.
    async fn reply(&self, ending: Ending<'_>) -> Result<(), PublishError> {
        let Copy { delivery, id, attempt, .. } = &self.copy;
        let ended = Ended { id, handler: self.handler(), attempt: *attempt, ending };
        match self.publisher.reply(delivery, ended).await {
            Err(error) if !matches!(error, PublishError::Closed) => {
                tracing::info!(task_id = %id.text, %error, "the reply was not deliverable; settling the task without it");
                Ok(())
            }
            sent => sent,
        }
    }

    fn handler(&self) -> &str {
        self.copy.handler.as_deref().unwrap_or_default()
    }

    fn failure<'a>(&'a self, error: &'a TaskError) -> Failure<'a> {
        Failure { handler: self.handler(), code: &error.code, message: &error.message }
    }
}
