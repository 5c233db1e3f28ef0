//! The end-to-end harness: private RabbitMQ nodes, a network to break before them, the daemon, producers, and a soak
//! of all of it.

pub mod artefacts;
pub mod broker;
pub mod cluster;
pub mod daemon;
pub mod home;
pub mod ledger;
pub mod node;
pub mod proxy;
mod release;
pub mod rig;
pub mod soak;
pub mod wait;

pub use broker::Broker;
pub use cluster::Cluster;
pub use daemon::Daemon;
pub use home::{Home, Keys};
pub use node::Node;
pub use proxy::Proxy;
