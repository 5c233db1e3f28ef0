//! What lies before a task and after it: delays, replies to whoever sent it, its trace.

#[path = "results/delays.rs"]
mod delays;
#[path = "results/replies.rs"]
mod replies;
#[path = "results/stage.rs"]
mod stage;
#[path = "results/traces.rs"]
mod traces;
#[path = "results/waits.rs"]
mod waits;
