//! Control: HTTP over a Unix socket in the runtime directory. `warrenctl` speaks it.

pub mod api;
