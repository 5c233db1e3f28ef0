//! The daemon is killed at each step of a settlement, of a drain and of a reload, and started again; a replay of dead
//! letters is, too: nothing is lost, nothing is left over, and what runs twice is what has to.

#[path = "killed/builds.rs"]
mod builds;
#[path = "killed/replay.rs"]
mod replay;
#[path = "killed/settle.rs"]
mod settle;
#[path = "killed/stage.rs"]
mod stage;
#[path = "killed/turn.rs"]
mod turn;
