//! Faults of the broker and the network, and what becomes of the tasks of a whole daemon.

mod alarm;
mod channels;
mod copies;
mod culprit;
mod large_bodies;
mod losses;
mod redelivered;
mod silence;
mod stage;
mod timeout;
