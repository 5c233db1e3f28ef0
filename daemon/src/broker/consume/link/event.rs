//! What goes into the state machine, and what comes out.

use std::sync::Arc;
use std::time::Duration;

use super::End;
use crate::broker::dial::Loss;
use crate::broker::event::ConsumerId;
use crate::config::Queue;

#[derive(Debug, Clone, PartialEq)]
pub(in crate::broker::consume) enum SessionEvent {
    /// Nothing but time.
    Time,
    /// The address answered.
    Dialled,
    /// It did not.
    DialFailed(String),
    /// The connection is gone, or does not answer.
    Lost(Loss),
    /// The broker confirmed the consumer.
    Consuming(Arc<str>, ConsumerId),
    /// The queue cannot be consumed.
    Unusable(Arc<str>, String),
    /// A consumer's stream ended, or the channel of a stopped one did.
    Ended {
        id: ConsumerId,
        end: End,
        /// The connection still stands.
        connected: bool,
    },
    /// The broker lost this consumer without a `basic.cancel`; with the reason. The consumer may have been cancelled since
    /// the question was sent.
    Forgotten(ConsumerId, String),
    /// Every delivery of a stopped consumer is settled.
    Settled(ConsumerId),
    /// The broker has seen the last settlement on the consumer's channel, or the channel is gone.
    Released(ConsumerId),
    /// Consume exactly these.
    Queues(Vec<Queue>),
    /// Try again what was given up for a while.
    Retry,
    /// Cancel every consumer; say when none is left. The connection stays until all is settled.
    Stop,
    /// The same, and nobody waits.
    Retire,
    /// End now.
    Close,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::broker::consume) enum SessionAction {
    /// Dial the address at this index.
    Dial(usize),
    /// Cut the connection; every tag on it is void.
    HangUp(String),
    /// Declare the queue and consume it.
    Subscribe(Queue),
    /// Cancel it; its stream ends when what is buffered has been read.
    Cancel(ConsumerId),
    /// Say that it has stopped: what is open stays valid.
    Stopped(ConsumerId),
    /// Say that it is lost: what is open is void.
    Void(ConsumerId, String),
    /// Make sure that the broker has seen its last acknowledgement, and let its channel go.
    Release(ConsumerId),
    /// Say why there is no connection.
    Away(String),
    /// Say why a queue is not consumed.
    Unusable(Arc<str>, String),
    /// Say that what comes from a queue ended the connection, how, and how long it is left alone.
    Quarantine(Arc<str>, String, Duration),
    /// Tell whoever asked to stop that no consumer is left.
    NoneLeft,
    /// Close what is open, in an orderly manner, and end.
    End,
}
