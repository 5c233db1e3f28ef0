//! Finds and kills processes that a handler left behind. A process group is not enough: a child that called
//! `setsid` has left it. But daemon and host are subreapers, so whatever loses its parent becomes a child of
//! one of them.

use std::fs;

use rustix::process::{Pid, Signal, WaitOptions};

/// The live or unreaped children of `parent`, by a walk over `/proc` (`/proc/PID/task/*/children` is not in
/// every kernel).
pub(super) fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .filter(|&pid| parent_of(pid) == Some(parent))
        .collect()
}

/// Kills every descendant of this process and reaps it. Costs one system call when there is none.
///
/// Killing a child makes its own children ours, hence the loop. `Err` when children are there but cannot be
/// found (`/proc` missing or hidden): the caller should end, so that its own parent's group kill gets them.
pub(super) fn kill_all_of_this_process() -> Result<(), Unreachable> {
    let mut fruitless = 0;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::INTR) | Ok(Some(_)) => continue,
            Err(_) => return Ok(()),
            Ok(None) => {}
        }
        let mut found = false;
        for pid in children_of(rustix::process::getpid()) {
            found |= rustix::process::kill_process(pid, Signal::KILL).is_ok();
        }
        if found {
            // One at least is dying: wait for it without spinning.
            let _ = rustix::process::wait(WaitOptions::empty());
            fruitless = 0;
        } else {
            fruitless += 1;
            if fruitless == FRUITLESS_WALKS {
                return Err(Unreachable);
            }
        }
    }
}

/// Children exist that `/proc` does not show.
#[derive(Debug)]
pub(super) struct Unreachable;

/// Walks that find nobody although there are children, before giving up: one may lose a race, three in a row
/// do not.
const FRUITLESS_WALKS: u32 = 3;

/// The fourth field of `/proc/PID/stat`, behind a name that may hold anything, parentheses included.
fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, fields) = stat.rsplit_once(')')?;
    Pid::from_raw(fields.split_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_this_process_is_found_in_its_stat_line() {
        assert_eq!(parent_of(rustix::process::getpid()), rustix::process::getppid());
    }

    #[test]
    fn a_child_is_listed_until_it_is_reaped() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(children_of(rustix::process::getpid()).contains(&pid));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children_of(rustix::process::getpid()).contains(&pid));
    }
}
