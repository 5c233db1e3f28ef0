//! Sending dead letters on their way again: each one published and confirmed before its dead copy may be removed.

use std::pin::Pin;
use std::rc::Rc;

use futures_util::{Stream, StreamExt};
use lapin::Event;
use lapin::types::ShortString;
use tokio::sync::watch;

use super::DeadLetter;
use crate::broker::dial::{BrokerConnection, describe_error};
use crate::broker::publish::{LinkState, Outgoing, PublishError, PublishFailure, PublishingConnection, copy};
use crate::broker::queues::QueueError;
use crate::failpoint::failpoint;

/// Why a letter was not replayed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReplayError {
    /// This letter cannot be, whenever it is tried; others may.
    #[error(transparent)]
    Never(PublishError),
    /// The broker has not taken it, and may another time.
    #[error("{0}")]
    NotTaken(String),
    /// The link was lost on the way: it may or may not have been published.
    #[error("{0}")]
    Lost(String),
}

impl From<PublishFailure> for ReplayError {
    fn from(failed: PublishFailure) -> Self {
        match failed {
            PublishFailure::Permanent(error) => Self::Never(error),
            PublishFailure::NotTaken(why) => Self::NotTaken(why),
            PublishFailure::ConnectionError(why)
            | PublishFailure::Temporary(why)
            | PublishFailure::Silent(why) => Self::Lost(why),
        }
    }
}

/// A connection for replays: not the one that letters are fetched from, because a broker that blocks publishers stops
/// reading from it.
pub struct Replay {
    connection: Rc<PublishingConnection>,
    link: watch::Sender<LinkState>,
    reports: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

impl Replay {
    /// Takes the connection over.
    pub fn new(broker: BrokerConnection) -> Self {
        let connection = PublishingConnection::new(broker);
        let reports = Box::pin(connection.reports());
        Self { connection, link: watch::Sender::new(LinkState::default()), reports }
    }

    /// Publishes a letter to a queue as a task that was never tried, and waits for the confirm; as long as it takes
    /// while the broker blocks publishers, which `blocked` is told. After `Ok` the dead copy may go.
    pub async fn publish(
        &mut self,
        queue: &str,
        letter: &DeadLetter,
        blocked: impl Fn(),
    ) -> Result<(), ReplayError> {
        let name = ShortString::try_new(queue)
            .map_err(|_| ReplayError::Never(QueueError::NameTooLong(queue.to_owned()).into()))?;
        failpoint!("replay::before-copy");
        let mut message =
            Outgoing { queue, properties: copy::replay(&letter.properties), body: &letter.body };
        message.properties = self.connection.fit(queue, message.properties);
        let publishing = self.connection.publish(&self.link, &name, &message);
        tokio::pin!(publishing);
        loop {
            tokio::select! {
                published = &mut publishing => {
                    published?;
                    failpoint!("replay::after-copy");
                    return Ok(());
                }
                Some(report) = self.reports.next() => match report {
                    Event::ConnectionBlocked(_) => {
                        self.link.send_modify(|state| state.blocked = true);
                        blocked();
                    }
                    Event::ConnectionUnblocked => {
                        self.link.send_modify(|state| state.blocked = false);
                    }
                    // The confirm of a lost connection may never come.
                    Event::Error(error) if !self.connection.is_connected() => {
                        return Err(ReplayError::Lost(describe_error(&error)));
                    }
                    _ => {}
                },
            }
        }
    }
}
