//! Why a connection ended, and whether what came over it is the cause. Pure.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError};

use super::channel::describe_error;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker) struct Loss {
    /// In the broker's words, the system's or the client library's.
    pub(in crate::broker) why: String,
    /// What came over it was no proper AMQP, to one end or the other. That says something of the messages that were
    /// delivered; a lost network, or a broker that ends, does not.
    pub(in crate::broker) by_content: bool,
}

impl Loss {
    /// Of a connection that just went away.
    pub(in crate::broker) fn plain(why: impl Into<String>) -> Self {
        Self { why: why.into(), by_content: false }
    }
}

/// What the end of a connection with this error says.
pub(in crate::broker) fn loss_of(error: &lapin::Error) -> Loss {
    let by_content = match error.kind() {
        // Our own stream refuses what the library must not see.
        ErrorKind::IOError(error) => error.kind() == std::io::ErrorKind::InvalidData,
        ErrorKind::ParsingError(_) => true,
        ErrorKind::ProtocolError(amqp) => match amqp.kind() {
            AMQPErrorKind::Hard(error) => match error {
                AMQPHardError::FRAMEERROR
                | AMQPHardError::SYNTAXERROR
                | AMQPHardError::COMMANDINVALID
                | AMQPHardError::CHANNELERROR
                | AMQPHardError::UNEXPECTEDFRAME
                | AMQPHardError::NOTIMPLEMENTED
                | AMQPHardError::INTERNALERROR => true,
                // An operator's doing, or the broker's own trouble.
                AMQPHardError::CONNECTIONFORCED
                | AMQPHardError::INVALIDPATH
                | AMQPHardError::RESOURCEERROR
                | AMQPHardError::NOTALLOWED => false,
            },
            AMQPErrorKind::Soft(_) => false,
        },
        _ => false,
    };
    Loss { why: describe_error(error), by_content }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    #[test]
    fn only_what_came_over_a_connection_is_held_against_its_queues() {
        use std::io::ErrorKind as Io;
        let io = |kind: Io| lapin::Error::from(std::io::Error::from(kind));
        let hard = |id| {
            let error = AMQPError::from_id(id, "words".into()).expect("known");
            lapin::Error::from(ErrorKind::ProtocolError(error))
        };
        let table = [
            (io(Io::ConnectionReset), false),
            (io(Io::ConnectionAborted), false),
            (io(Io::BrokenPipe), false),
            (io(Io::UnexpectedEof), false),
            (io(Io::TimedOut), false),
            (io(Io::InvalidData), true),
            (ErrorKind::MissingHeartbeatError.into(), false),
            (hard(320), false),
            (hard(402), false),
            (hard(501), true),
            (hard(502), true),
            (hard(503), true),
            (hard(504), true),
            (hard(505), true),
            (hard(506), false),
            (hard(530), false),
            (hard(540), true),
            (hard(541), true),
            (hard(404), false),
            (hard(406), false),
        ];
        for (error, expected) in table {
            assert_eq!(loss_of(&error).by_content, expected, "{error}");
        }
    }
}
