//! The words that every part of the daemon uses, defined once. Nothing here depends on another module of the crate.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `outcome` | how an attempt ended: [`Outcome`], [`FaultCause`], its error, result and follow-ups |
//! | `reason` | why a task is dead-lettered or was asked to stop |
//! | `id` | the identity of a task |
//! | `moment` | points in time as messages carry them |
//! | [`duration`] | durations and sizes as text |
//! | [`queue_name`] | the names of the queues that belong to a work queue |
//! | [`status`] | what the control socket says, as JSON |

pub mod duration;
mod id;
mod moment;
mod outcome;
pub mod queue_name;
mod reason;
pub mod status;
mod words;

pub use id::TaskId;
pub use moment::{UnixMs, rfc3339};
pub use outcome::{FaultCause, FollowUp, Outcome, TaskError, TaskResult};
pub use reason::{CancelCause, DeadReason};
