//! The consuming connection: subscriptions, their deliveries and settlements, and what follows from each loss.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `session` | one broker address: performs the actions of `link` and reports events to it |
//! | `link` | the state machine: when to dial, which queues to consume, which to leave alone (`link/probation.rs`) |
//! | `subscription` | the consumers of all sessions, and what is settled on each channel |
//! | `settler` | which tags of a channel are settled, with how few frames |
//! | `presence` | whether the broker still has a consumer that gets nothing |

mod link;
mod presence;
mod session;
mod settler;
mod subscription;

pub(super) use self::session::{Session, SessionCommand};
pub(super) use self::subscription::{SessionId, Subscriptions};
