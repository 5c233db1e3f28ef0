//! Connections and channels: opening them within a bound, saying why that failed, and waiting between attempts.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `connect` | one connection, within `connect_timeout` and without a leak |
//! | `error` | why there is no connection, with the remedy |
//! | `channel` | channels, and the bound on each answer of the broker |
//! | `loss` | why a connection ended, and whether a message is the cause |
//! | `backoff` | how long to wait before the next attempt |

mod backoff;
mod channel;
mod connect;
mod error;
mod loss;

pub(crate) use self::backoff::Backoff;
pub(super) use self::backoff::CAP;
pub use self::channel::LinkError;
pub(super) use self::channel::{ANSWER_LIMIT, answered, describe_error, open_channel};
pub(super) use self::connect::dial_one;
pub use self::connect::{BrokerConnection, connect, dial};
pub use self::error::{DialError, Stage};
pub(super) use self::loss::{Loss, loss_of};
