//! What becomes of tasks whose copies are hard to make: large headers, deadlines, due times and other headers of ours from
//! any producer, brokers that refuse a copy, and policies on the delay queues.

#[path = "copies/expired.rs"]
mod expired;
#[path = "copies/headers.rs"]
mod headers;
#[path = "copies/large.rs"]
mod large;
#[path = "copies/policies.rs"]
mod policies;
#[path = "copies/stage.rs"]
mod stage;
#[path = "copies/stuck.rs"]
mod stuck;
