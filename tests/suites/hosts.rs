//! Plugin hosts that end in every way, say what was not agreed, or cannot be started: somebody answers for each of
//! these, within bounds, and nobody else pays.

mod ends;
mod frames;
mod links;
mod logs;
mod machine;
mod refused;
mod secrets;
