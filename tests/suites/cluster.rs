//! Scale-out: quorum queues on a cluster of three nodes that are killed under load, and several daemons beside each
//! other on one queue.

#[path = "cluster/losses.rs"]
mod losses;
#[path = "cluster/many.rs"]
mod many;
#[path = "cluster/producer.rs"]
mod producer;
#[path = "cluster/stage.rs"]
mod stage;
