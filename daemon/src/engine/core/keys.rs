//! The keys by which the parts of the core name entries, queues, handlers and pools.

/// A delivery in hand: index of an [`Entry`](super::entry::Entry). It is used again after the entry has left.
pub(crate) type EntryKey = usize;

/// A queue: index in [`Queues`](super::queues::Queues); stable over reloads.
pub(crate) type QueueKey = usize;

/// A handler: index in [`Handlers`](super::handlers::Handlers).
pub(super) type HandlerKey = usize;

/// A handler pool: the number of its generation.
pub(super) type PoolKey = u64;
