//! The daemon is killed at each step of a settlement, of a drain and of a reload, and started again; a replay of dead
//! letters is, too: nothing is lost, nothing is left over, and what runs twice is what has to.

mod builds;
mod replay;
mod settle;
mod stage;
mod turn;
