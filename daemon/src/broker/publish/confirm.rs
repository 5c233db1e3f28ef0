//! One publish with a publisher confirm: on which channel, and what the broker answers.
//!
//! A channel has one publish in flight at a time. With more, lapin 4.12 gives a returned message to another publish than
//! its own (see "Traps: lapin" in `docs/ARCHITECTURE.md`). Several publishes at a time need several channels.

use std::pin::pin;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::time::timeout;

use crate::broker::dial::{LinkError, answered, open_channel};

/// A channel in confirm mode.
#[derive(Debug)]
pub struct ConfirmChannel(Channel);

/// What became of a published message.
#[derive(Debug)]
pub enum ConfirmResult {
    /// The broker has taken it.
    Confirmed,
    /// It was mandatory, and there is no such queue: the broker's reply code and text.
    Returned(String),
    /// The broker has not taken it: the queue is full, or a quorum queue has no majority.
    Nacked,
    /// The channel or the connection ended with this error. Whether the broker has taken the message is not known.
    Failed(lapin::Error),
    /// There was no answer in time. Whether the broker has taken the message is not known.
    TimedOut,
}

impl ConfirmChannel {
    /// Opens a channel and switches it to confirm mode.
    pub async fn open(connection: &Connection) -> Result<Self, LinkError> {
        let channel = open_channel(connection).await?;
        answered(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self(channel))
    }

    /// Whether the channel is open.
    pub fn is_open(&self) -> bool {
        self.0.status().connected()
    }

    /// Publishes a message to a queue, through the default exchange, and waits for the broker's answer without a bound:
    /// see [`within`]. A `mandatory` message is returned when there is no such queue. After [`ConfirmResult::Failed`] and
    /// [`ConfirmResult::TimedOut`] the channel is not to be used again.
    pub async fn publish(
        &self,
        queue: &ShortString,
        mandatory: bool,
        properties: BasicProperties,
        body: &[u8],
    ) -> ConfirmResult {
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let published =
            async { self.0.basic_publish("".into(), queue.clone(), options, body, properties).await?.await };
        match published.await {
            Ok(Confirmation::Ack(None)) => ConfirmResult::Confirmed,
            Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
                ConfirmResult::Returned(format!("{} {}", returned.reply_code, returned.reply_text))
            }
            // `NotRequested` does not happen on a channel in confirm mode. It would be no confirm.
            Ok(Confirmation::Nack(None) | Confirmation::NotRequested) => ConfirmResult::Nacked,
            Err(error) => ConfirmResult::Failed(error),
        }
    }

    /// Closes the channel.
    pub async fn close(self) {
        // An error would say that the channel is closed already.
        let _ = answered(self.0.close(200, "done".into())).await;
    }
}

/// Waits for the result of a publish, for `limit` at most. The limit begins anew when it is over while the broker blocks
/// publishers, as far as `is_blocked` knows.
pub async fn within(
    limit: Duration,
    is_blocked: impl Fn() -> bool,
    publish: impl Future<Output = ConfirmResult>,
) -> ConfirmResult {
    let mut publish = pin!(publish);
    loop {
        match timeout(limit, &mut publish).await {
            Ok(result) => return result,
            Err(_) if is_blocked() => {}
            Err(_) => return ConfirmResult::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn the_bound_begins_anew_while_the_broker_blocks_publishers() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let limit = Duration::from_millis(1);
        for blocked_for in [0, 1, 3] {
            let asked = Cell::new(0);
            let is_blocked = || asked.replace(asked.get() + 1) < blocked_for;
            let result = runtime.block_on(within(limit, is_blocked, pending()));
            assert!(matches!(result, ConfirmResult::TimedOut), "{result:?}");
            assert_eq!(asked.get(), blocked_for + 1);
        }
        let result = runtime.block_on(within(limit, || false, ready(ConfirmResult::Nacked)));
        assert!(matches!(result, ConfirmResult::Nacked), "{result:?}");
    }
}
