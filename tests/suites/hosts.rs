//! Plugin hosts that end in every way, say what was not agreed, or cannot be started: somebody answers for each of
//! these, within bounds, and nobody else pays.

#[path = "hosts/ends.rs"]
mod ends;
#[path = "hosts/frames.rs"]
mod frames;
#[path = "hosts/links.rs"]
mod links;
#[path = "hosts/logs.rs"]
mod logs;
#[path = "hosts/machine.rs"]
mod machine;
#[path = "hosts/refused.rs"]
mod refused;
#[path = "hosts/secrets.rs"]
mod secrets;
