//! Limits that hold: time, memory, CPU time, open files, the life of a host; with and without a cgroup of its own.

mod cgroup;
mod recycling;
mod resources;
mod stage;
mod time;
