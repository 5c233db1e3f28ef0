//! Plugin hosts, from the daemon's side of the socket, with real processes and a C plugin that behaves as
//! badly as told.

mod agreement;
mod bed;
mod cancels;
mod deaths;
mod outcomes;
mod resources;
