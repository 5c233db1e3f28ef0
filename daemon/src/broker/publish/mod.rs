//! The publishing connection: copies of tasks, follow-ups and replies, each confirmed by the broker.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `outgoing` | what is published of a task: its copies, its follow-ups, the reply to its sender |
//! | `supervise` | keeps the publishing connection up |
//! | `publisher` | [`Publisher`]: repeats a publish until the broker has confirmed it |
//! | `connection` | the open connection: its confirm channels, and the queues known to be there |
//! | [`confirm`] | one publish and the broker's answer to it; `warrenctl` publishes with it as well |
//! | `silence` | which delay queues do not confirm, and where a copy goes instead |
//! | [`reply`] | properties and body of a reply |
//! | [`copy`] | properties of copies and follow-ups: what is kept, dropped and added |
//! | `direct_reply` | the names by which clients wait for a reply without a queue |
//! | `error` | why a message cannot be published |

pub mod confirm;
mod connection;
pub mod copy;
mod direct_reply;
mod error;
mod outgoing;
mod publisher;
pub mod reply;
mod silence;
mod supervise;

pub use self::connection::Outgoing;
pub(super) use self::connection::{LinkState, PublishFailure, PublishingConnection};
pub use self::error::PublishError;
pub use self::publisher::Publisher;
pub(super) use self::supervise::{PublishCommand, supervise};
