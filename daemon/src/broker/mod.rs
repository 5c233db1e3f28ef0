//! All that knows AMQP 0-9-1: dialling, topology, consumers, settling by tag, confirmed copies, delay queues.

mod backoff;
pub mod copy;
mod dial;
mod dial_error;
mod server;
mod settler;
pub mod topology;
mod wire;

use std::sync::Arc;

pub use dial::{Dialled, dial};
pub use dial_error::{DialError, Stage};
pub use server::Server;

/// One subscription: one queue on one link. A new one is made at each re-subscription and never reused, so that a
/// tag can never be settled on a link it did not come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u32);

/// One hand-over of a task by the broker.
#[derive(Debug)]
pub struct Delivery {
    /// The subscription it came by.
    pub consumer: ConsumerId,
    /// The delivery tag, valid on that subscription's channel only.
    pub tag: u64,
    /// The broker handed it over before.
    pub redelivered: bool,
    /// The message's properties, headers included.
    pub properties: lapin::BasicProperties,
    /// The message's body.
    pub body: Vec<u8>,
}

/// What the broker link tells the engine.
#[derive(Debug)]
pub enum LinkEvent {
    /// Both connections are up.
    Connected {
        /// Host, port and vhost, without credentials.
        address: String,
        /// Product and version as the broker gives them.
        server: String,
    },
    /// The broker confirmed the consumer: deliveries follow.
    Consuming {
        /// The new subscription.
        consumer: ConsumerId,
        /// Its queue.
        queue: Arc<str>,
    },
    /// A delivery.
    Delivery(Delivery),
    /// A subscription ended; its unsettled tags are void, the broker redelivers what they stood for.
    Lost {
        /// Which.
        consumer: ConsumerId,
        /// Why, in the broker's or the system's words.
        why: String,
    },
    /// No link; the supervisor keeps trying.
    Away {
        /// Why the last attempt failed, with the remedy where one is known (login, vhost, permission, stream queue).
        why: String,
    },
    /// The broker blocked (`true`) or unblocked publishing, e.g. by a memory alarm.
    Blocked(bool),
}
