//! What processes have used, as the kernel accounts for it in `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// One row's measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// From the first task to the last.
    pub(crate) wall: Duration,
    /// User and system time of all processes together.
    pub(crate) cpu: Duration,
    /// Sum of the processes' peak resident sets.
    pub(crate) peak_mib: f64,
}

/// User and system time of a process and of its children that were reaped. In ticks of 10 ms.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field, the name in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ").context("stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = fields[11..15].iter().map(|field| Ok(field.parse::<u64>()?)).sum::<Result<u64>>()?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// The process's peak resident set.
pub(crate) fn peak_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok((kib / 102.4).round() / 10.0)
}
