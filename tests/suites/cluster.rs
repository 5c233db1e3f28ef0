//! Scale-out: quorum queues on a cluster of three nodes that are killed under load, and several daemons beside each
//! other on one queue.

mod losses;
mod many;
mod producer;
mod stage;
