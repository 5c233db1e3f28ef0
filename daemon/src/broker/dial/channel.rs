//! Channels, and answers of the broker within a bound.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use lapin::{Channel, Connection, ErrorKind};

/// Bound on every single question to the broker. It answers in milliseconds, or in seconds under load; later than
/// this, what was asked about counts as unusable.
pub(in crate::broker) const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// An open channel, within the bound.
///
/// lapin 4.12 keeps the error that ended a channel with the channel's number, and gives it to the next channel of that
/// number, when all 2047 of a connection have had their turn: an answer to a question that nobody asked.
pub(in crate::broker) async fn open_channel(connection: &Connection) -> Result<Channel, LinkError> {
    let opened = answered(connection.create_channel()).await;
    opened.map_err(|error| match error {
        // What the broker says to the opening of a channel ends the connection.
        LinkError::Lapin(error) if error.is_amqp_soft_error() => LinkError::Spent,
        error => error,
    })
}

/// Awaits lapin within [`ANSWER_LIMIT`]: some of its futures never end when the connection does.
pub(in crate::broker) async fn answered<T>(
    future: impl Future<Output = lapin::Result<T>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(ANSWER_LIMIT, future).await {
        Ok(answer) => answer.map_err(LinkError::Lapin),
        Err(_) => Err(LinkError::Silent),
    }
}

/// Why the broker gave no answer, or which error it gave.
#[derive(Debug, Clone)]
pub enum LinkError {
    /// The error of the channel or of the connection.
    Lapin(lapin::Error),
    /// No answer within the bound.
    Silent,
    /// The connection has used up its channel numbers, and has to be replaced.
    Spent,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lapin(error) => f.write_str(&describe_error(error)),
            Self::Silent => write!(f, "the broker did not answer in {ANSWER_LIMIT:?}"),
            Self::Spent => f.write_str("the connection has used up its channel numbers; a new one is opened"),
        }
    }
}

/// An error in the broker's own words where it gave some.
pub(in crate::broker) fn describe_error(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => amqp.get_message().as_str().to_owned(),
        ErrorKind::IOError(error) => format!("the connection broke: {error}"),
        ErrorKind::MissingHeartbeatError => "the broker's heartbeats stopped".to_owned(),
        ErrorKind::ParsingError(error) => format!("what the broker sent cannot be read as AMQP: {error}"),
        _ => error.to_string(),
    }
}
