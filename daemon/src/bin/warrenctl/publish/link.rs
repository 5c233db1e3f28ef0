//! The link to the broker and the queue at its other end.

use lapin::Connection;
use warren::broker::{DialError, QueueError, connect, declare_work_queue};
use warren::config::{Config, Queue};

use crate::exit::{Code, Failure};

/// Connects, and declares the queue as configured if it does not exist.
pub(super) async fn open(config: &Config, queue: &Queue) -> Result<Connection, Failure> {
    let dialled = connect(&config.broker, "warrenctl publish").await.map_err(|error| {
        let code = match &error {
            DialError::NoAddress | DialError::BadUri | DialError::Certificate { .. } => Code::Config,
            _ => Code::Unavailable,
        };
        Failure::new(code, anyhow::Error::new(error).context("no broker"))
    })?;
    declare_work_queue(&dialled.connection, queue, &dialled.server).await.map_err(|error| {
        let code = match &error {
            QueueError::Stream(_) | QueueError::Different { .. } | QueueError::NameTooLong(_) => Code::Config,
            QueueError::Refused { .. }
            | QueueError::Broker { .. }
            | QueueError::Silent { .. }
            | QueueError::Link(_) => Code::Unavailable,
        };
        Failure::new(code, error)
    })?;
    Ok(dialled.connection)
}
