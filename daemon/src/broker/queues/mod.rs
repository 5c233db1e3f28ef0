//! The queues that Warren uses: what they are called, how they are declared, what is known of them.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `declare` | finds a queue as it is, declares it where it is missing |
//! | `describe` | the type and the arguments of a queue that somebody else declared |
//! | `question` | one declaration on a channel of its own, and the kinds of refusal |
//! | `error` | why a queue cannot be used, with the remedy |
//! | [`hops`] | how a message is delayed over several delay queues |
//! | [`topology`] | names and arguments of every queue that Warren declares |

mod declare;
mod describe;
mod error;
pub mod hops;
mod question;
pub mod topology;

pub use self::declare::{Ensured, SETTLE, declare_delay_queue, declare_work_queue};
pub(super) use self::declare::{consumers, declare_dead_queue, depth, exists, is_declared_as};
pub use self::describe::Description;
pub(super) use self::describe::{Detail, describe};
pub use self::error::QueueError;
pub(super) use self::question::{QuestionError, ask};
