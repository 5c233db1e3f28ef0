//! What lies before a task and after it: delays, replies to whoever sent it, its trace.

mod delays;
mod replies;
mod stage;
mod traces;
mod waits;
