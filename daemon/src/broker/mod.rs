//! All that knows AMQP 0-9-1. A module uses only modules below it in the table. `event` and `server` are used by most of them.
//!
//! | module | what it is for | what it uses of the others |
//! | --- | --- | --- |
//! | `handle` | [`Link`]: the engine's access to the broker; starts and ends both connections | `consume` `publish` `status` |
//! | [`dead`] | dead letters: reading them, looking through a dead queue, replaying | `publish` `queues` `dial` |
//! | [`survey`] | what `warrenctl doctor` asks: which queues are there, and what the user may do | `publish` `queues` `dial` |
//! | `consume` | the consuming connection: subscriptions, settling by tag, reconnecting, quarantine | `queues` `dial` `wire` `status` |
//! | `publish` | the publishing connection: confirmed copies, follow-ups and replies | `queues` `dial` `status` |
//! | `queues` | names and arguments of queues, declaring and describing them; delays by hops over delay queues | `dial` `server` |
//! | `dial` | opens connections and channels within a bound; says why there is none | `wire` `server` |
//! | `status` | which of a link's two connections are up | `event` `server` |
//! | `event` | [`LinkEvent`] and [`Delivery`]: what the engine is told | `wire` |
//! | `wire` | the filter under a connection, which makes every message readable for lapin | `server` |
//! | `server` | product and version of the broker, and what decisions follow from them | |

mod consume;
pub mod dead;
mod dial;
mod event;
mod handle;
mod publish;
mod queues;
mod server;
mod status;
pub mod survey;
mod wire;

pub(crate) use dial::Backoff;
pub use dial::{BrokerConnection, DialError, LinkError, Stage, connect, dial};
pub use event::{ConsumerId, Delivery, LinkEvent, LinkEvents};
pub use handle::Link;
pub use publish::{Outgoing, PublishError, Publisher, confirm, copy, reply};
pub use queues::{
    Description, Ensured, QueueError, SETTLE, declare_delay_queue, declare_work_queue, hops, topology,
};
pub use server::Server;
pub use wire::{Alteration, LARGE_BODY_ROOM};
