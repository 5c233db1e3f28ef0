//! The link to the broker and the queue at its other end.

use warren::broker::{BrokerConnection, connect, declare_work_queue};
use warren::config::{Config, Queue};

use crate::exit::VerbError;

/// Connects, and declares the queue as configured if it does not exist.
pub(super) async fn open(config: &Config, queue: &Queue) -> Result<BrokerConnection, VerbError> {
    let dialled = connect(&config.broker, "warrenctl publish").await?;
    declare_work_queue(&dialled.connection, queue, &dialled.server).await?;
    Ok(dialled)
}
