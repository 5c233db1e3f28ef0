//! Control: HTTP over a Unix socket in the runtime directory. `warrenctl` speaks it; so can `curl --unix-socket`.

pub mod api;
pub mod client;
mod query;
pub mod server;
mod socket;
