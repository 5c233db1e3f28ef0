//! The end-to-end harness: private RabbitMQ nodes, a network to break before them, the daemon, producers, and a soak
//! of all of it.

pub mod artefacts;
pub mod attack;
pub mod authority;
pub mod broker;
pub mod cluster;
pub mod daemon;
mod eval;
pub mod holdings;
pub mod home;
pub mod ledger;
pub mod machine;
pub mod node;
mod pool;
pub mod proxy;
pub mod raw;
mod release;
pub mod rig;
pub mod servers;
pub mod service;
pub mod shop;
pub mod soak;
pub mod wait;

pub use broker::Broker;
pub use cluster::Cluster;
pub use daemon::Daemon;
pub use home::{Home, Keys};
pub use machine::{Machine, Network};
pub use node::Node;
pub use pool::OwnNode;
pub use proxy::Proxy;
pub use servers::Servers;
pub use service::Service;
