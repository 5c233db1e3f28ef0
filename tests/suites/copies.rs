//! What becomes of tasks whose copies are hard to make: large headers, deadlines, due times and other headers of ours from
//! any producer, brokers that refuse a copy, and policies on the delay queues.

mod expired;
mod headers;
mod large;
mod policies;
mod stage;
mod stuck;
