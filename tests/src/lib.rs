//! The end-to-end harness: private RabbitMQ nodes, the daemon, producers.

pub mod node;

pub use node::Node;
