//! The keys of `[handlers.NAME]` that say what a host may use of the machine.

use std::time::Duration;

use super::Bounds;
use super::reader::TableReader;
use crate::model::duration::MAX_DURATION;

/// What a host needs before it has loaded anything, and some.
const MIN_MEMORY: u64 = 16 << 20;
/// The least that the kernel takes: 1 ms of each 100.
const MIN_CPUS: f64 = 0.01;
/// More than any machine has.
const MAX_CPUS: f64 = 4096.0;
/// A host keeps its own descriptors from 100 on; the handler's are below and above.
const MIN_FILES: i64 = 128;
/// What the kernel allows a process at most unless told otherwise (`fs.nr_open`).
const MAX_FILES: i64 = 1 << 20;
/// The host's two threads and one more.
const MIN_PROCESSES: i64 = 3;
/// The most that there can be on any machine (`kernel.pid_max`).
const MAX_PROCESSES: i64 = 1 << 22;

/// Bytes that a host needs for the largest task: its own, and those of the task twice, because the buffer that reads a task is
/// copied as it grows.
pub(super) fn memory_for(max_task_bytes: u64) -> u64 {
    MIN_MEMORY.saturating_add(max_task_bytes.saturating_mul(2))
}

pub(super) fn read(table: &mut TableReader) -> Bounds {
    let default = Bounds::default();
    let memory = table.size("memory", 0..=1 << 50);
    at_least(
        table,
        "memory",
        memory.is_some_and(|size| (1..MIN_MEMORY).contains(&size)),
        "\"16MiB\"",
        "\"0B\"",
    );
    let cpus = table.decimal("cpus", 0.0..=MAX_CPUS);
    at_least(table, "cpus", cpus.is_some_and(|cpus| cpus > 0.0 && cpus < MIN_CPUS), "0.01", "0");
    let processes = table.integer::<i64>("max_processes", 0..=MAX_PROCESSES);
    at_least(table, "max_processes", processes.is_some_and(|n| (1..MIN_PROCESSES).contains(&n)), "3", "0");
    Bounds {
        memory: memory.unwrap_or(default.memory),
        millicpus: cpus.map_or(default.millicpus, |cpus| (cpus * 1000.0).round() as u32),
        cpu_time: table.duration("cpu_time", Duration::ZERO..=MAX_DURATION).unwrap_or(default.cpu_time),
        max_files: table.integer("max_files", MIN_FILES..=MAX_FILES).unwrap_or(default.max_files),
        max_processes: processes.and_then(|n| u32::try_from(n).ok()).unwrap_or(default.max_processes),
    }
}

/// Reports a bound under which no host could live.
fn at_least(table: &mut TableReader, key: &str, too_low: bool, least: &str, none: &str) {
    if let (true, Some(node)) = (too_low, table.node(key)) {
        let remedy = format!("write at least {least}, or {none} for no bound");
        table.error(&node.place, key, "is too low for a host to live", remedy);
    }
}
