//! Control: HTTP over a Unix socket in the runtime directory. `warrenctl` speaks it; so can `curl --unix-socket`.

mod access;
pub mod client;
mod metrics;
mod query;
mod request;
pub mod server;
mod socket;
mod verbs;
