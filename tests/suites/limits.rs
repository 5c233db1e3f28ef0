//! Limits that hold: time, memory, CPU time, open files, the life of a host; with and without a cgroup of its own.

#[path = "limits/cgroup.rs"]
mod cgroup;
#[path = "limits/recycling.rs"]
mod recycling;
#[path = "limits/resources.rs"]
mod resources;
#[path = "limits/stage.rs"]
mod stage;
#[path = "limits/time.rs"]
mod time;
