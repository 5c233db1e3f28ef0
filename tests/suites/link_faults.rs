//! Faults of the broker and the network, on a link without the daemon.

mod connections;
mod peers;
mod queues;
mod stuck;
