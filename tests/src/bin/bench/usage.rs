//! What processes have used, as the kernel accounts for it in `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What the tasks of one row took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Tasks that ended meanwhile.
    pub(crate) tasks: u32,
    /// From the first task to the last.
    pub(crate) wall: Duration,
    /// User and system time of all processes together.
    pub(crate) cpu: Duration,
    /// Sum of the processes' peak resident sets.
    pub(crate) peak_mib: f64,
}

/// One row, as it is printed and reported.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) consumer: String,
    /// Unacknowledged deliveries at most.
    pub(crate) window: u16,
    pub(crate) tasks_per_s: f64,
    pub(crate) cpu_us: f64,
    pub(crate) peak_mib: f64,
}

impl Row {
    /// The medians of several measurements of the same thing.
    pub(crate) fn of(consumer: &str, window: u16, rounds: &[Measured]) -> Self {
        let median = |figure: fn(&Measured) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self {
            consumer: consumer.to_owned(),
            window,
            tasks_per_s: median(|one| f64::from(one.tasks) / one.wall.as_secs_f64()),
            cpu_us: median(|one| one.cpu.as_micros() as f64 / f64::from(one.tasks)),
            peak_mib: median(|one| one.peak_mib),
        }
    }

    /// The names of the columns.
    pub(crate) fn print_head() {
        println!("{:<32} {:>7} {:>10} {:>8} {:>9}", "consumer", "window", "tasks/s", "CPU µs", "peak MiB");
    }

    pub(crate) fn print(&self) {
        let Self { consumer, window, tasks_per_s, cpu_us, peak_mib } = self;
        println!("{consumer:<32} {window:>7} {tasks_per_s:>10.0} {cpu_us:>8.1} {peak_mib:>9.1}");
    }

    /// Prints this row's throughput and CPU as shares of another's, and gives them.
    pub(crate) fn print_ratio(&self, other: &Self) -> Value {
        let throughput = rounded(self.tasks_per_s / other.tasks_per_s, 2);
        let cpu = rounded(self.cpu_us / other.cpu_us, 2);
        println!("  {} / {}: throughput {throughput:.2}, CPU {cpu:.2}", self.consumer, other.consumer);
        json!({ "of": self.consumer, "to": other.consumer, "prefetch": self.window, "throughput": throughput, "cpu": cpu })
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "consumer": self.consumer,
            "prefetch": self.window,
            "tasks_per_s": self.tasks_per_s.round(),
            "cpu_us_per_task": rounded(self.cpu_us, 1),
            "peak_rss_mib": rounded(self.peak_mib, 1),
        })
    }
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
    memory(pid, "VmHWM:")
}

/// The process's resident set.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    memory(pid, "VmRSS:")
}

/// Rounded to so many places, for the report.
pub(crate) fn rounded(figure: f64, places: i32) -> f64 {
    let scale = 10_f64.powi(places);
    (figure * scale).round() / scale
}

fn memory(pid: u32, field: &'static str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context(field)?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
