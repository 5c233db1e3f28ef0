//! The daemon is killed at each step of a settlement, of a drain and of a reload, and started again: nothing is lost,
//! nothing is left over, and what runs twice is what has to.

#[path = "killed/builds.rs"]
mod builds;
#[path = "killed/settle.rs"]
mod settle;
#[path = "killed/stage.rs"]
mod stage;
#[path = "killed/turn.rs"]
mod turn;
