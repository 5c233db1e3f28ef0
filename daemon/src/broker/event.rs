//! What the link to the broker tells the engine: its events, and the deliveries among them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::wire::{Alteration, Note};
use crate::model::UnixMs;

/// Where the link's events go: called on the event loop, never while the link is borrowed.
pub type LinkEvents = Rc<dyn Fn(LinkEvent)>;

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
    /// When it came.
    pub received: UnixMs,
    /// The message's properties, headers included.
    pub properties: lapin::BasicProperties,
    /// The message's body.
    pub body: Vec<u8>,
    /// What the filter under the connection noted of it, and the memory that it gave to a large body.
    pub(crate) note: Option<Box<Note>>,
}

impl Delivery {
    /// What was changed in the message, so that it could be read at all. Its headers tell as well.
    pub fn altered(&self) -> Option<&Alteration> {
        self.note.as_ref()?.altered.as_ref()
    }
}

/// What the broker link tells the engine.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every event is a delivery; a box would be an allocation per task"
)]
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
        queue: Arc<str>,
        /// Deliveries that it may have unsettled.
        window: u16,
    },
    Delivery(Delivery),
    /// A subscription ended; its unsettled tags are void, the broker redelivers what they stood for.
    Lost {
        consumer: ConsumerId,
        /// Why, in the broker's or the system's words.
        why: String,
    },
    /// We cancelled it, for a drain or a changed configuration, and every buffered delivery has been handed over: no
    /// more will come. What is still open stays valid and is to be settled.
    Stopped {
        consumer: ConsumerId,
    },
    /// The broker has seen everything that was sent on a subscription's channel before then.
    Seen {
        consumer: ConsumerId,
        before: Instant,
    },
    /// A delivery goes back without having been handed over, because there is no room for its body now.
    Withheld {
        /// By which subscription it came.
        consumer: ConsumerId,
    },
    /// A stopped subscription has come to its end, and the broker has seen every settlement on it.
    Released {
        consumer: ConsumerId,
    },
    /// One queue cannot be consumed; the supervisor keeps trying, the others are not disturbed.
    Unusable {
        queue: Arc<str>,
        /// Why, with the remedy (permission, stream queue).
        why: String,
    },
    /// What comes from one queue ends the connection, and with it every other subscription. It is left alone for a while.
    Quarantined {
        queue: Arc<str>,
        /// What the connection ended with.
        why: String,
        /// It is tried again after this.
        wait: Duration,
    },
    /// No link; the supervisor keeps trying.
    Away {
        /// Why the last attempt failed, with the remedy where one is known (login, vhost, TLS, address).
        why: String,
    },
    /// The publishing connection is gone, or cannot be opened; the supervisor keeps trying.
    NotPublishing {
        /// Why, with the remedy where one is known.
        why: String,
    },
    /// The broker blocked (`true`) or unblocked publishing, e.g. by a memory alarm.
    Blocked(bool),
    /// A delay or dead-letter queue was deleted, with what was in it.
    Vanished {
        queue: String,
    },
    /// The broker did not take a copy; the publisher tries again, and the original stays unacknowledged.
    NotTaken {
        /// The queue it was for.
        queue: String,
        /// Why, with the remedy.
        why: String,
    },
}
