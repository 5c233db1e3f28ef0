//! Control: HTTP over a Unix socket in the runtime directory. `warrenctl` speaks it; so can `curl --unix-socket`.

mod access;
pub mod client;
mod metrics;
mod query;
pub mod server;
mod socket;
mod verbs;
