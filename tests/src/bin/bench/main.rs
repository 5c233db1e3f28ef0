//! `make bench`: what a task costs in Warren, beside bare lapin consumers that do nothing with it, in one run on one
//! broker. Ratios are what to read: absolute figures belong to the machine.
//!
//! `bench` runs everything; `bench consume MODE PREFETCH COUNT URI QUEUE` is one bare consumer, started by it.

mod bare;
mod daemon;
mod latency;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use warren_tests::Node;

use self::usage::Measured;

/// Tasks drained per row.
const TASKS: u32 = 200_000;

/// Bytes of a task's body.
const BODY: &[u8; 30] = b"Noop 4711 with thirty bytes...";

/// prefetch × workers as the daemon gets it, for windows of 1, 10 and 100.
const WINDOWS: [(u16, u16); 3] = [(1, 1), (5, 2), (50, 2)];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => bench(TASKS),
        ["--tasks", count] => bench(count.parse().context("--tasks takes a number")?),
        ["consume", mode, prefetch, count, uri, queue] => {
            runtime()?.block_on(bare::consume(mode.parse()?, prefetch.parse()?, count.parse()?, uri, queue))
        }
        _ => bail!("usage: bench [--tasks COUNT]"),
    }
}

fn bench(tasks: u32) -> Result<()> {
    let target = target_directory()?;
    let node = Node::start()?;
    let runtime = runtime()?;
    let mut rows = Vec::new();
    println!("{tasks} tasks of {} bytes; CPU: the consumer's processes together, in µs per task", BODY.len());
    println!("{:<28} {:>8} {:>12} {:>10} {:>10}", "consumer", "window", "tasks/s", "CPU µs", "peak MiB");
    for (prefetch, workers) in WINDOWS {
        let window = prefetch * workers;
        for mode in bare::Mode::ALL {
            runtime.block_on(bare::fill(&node.uri(), "bench", tasks))?;
            let measured = bare::run(mode, window, tasks, &node.uri(), "bench")?;
            rows.push(row(&format!("lapin {mode}"), window, tasks, &measured));
        }
        runtime.block_on(bare::fill(&node.uri(), "bench", tasks))?;
        let measured = daemon::drain(&target, &node.uri(), prefetch, workers, tasks)?;
        rows.push(row("warren", window, tasks, &measured));
        ratios(&rows, window);
    }
    let latency = latency::measure(&target, &node.uri(), &runtime)?;
    println!("{latency:#}");
    let report = json!({ "tasks": tasks, "rows": rows, "latency": latency });
    let path = target.parent().context("target")?.join("bench.json");
    fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
    println!("written to {}", path.display());
    Ok(())
}

fn row(consumer: &str, window: u16, tasks: u32, measured: &Measured) -> Value {
    let rate = f64::from(tasks) / measured.wall.as_secs_f64();
    let cpu = measured.cpu.as_micros() as f64 / f64::from(tasks);
    println!("{consumer:<28} {window:>8} {rate:>12.0} {cpu:>10.1} {:>10.1}", measured.peak_mib);
    json!({
        "consumer": consumer, "prefetch": window, "tasks_per_s": rate.round(),
        "cpu_us_per_task": (cpu * 10.0).round() / 10.0, "peak_rss_mib": measured.peak_mib,
    })
}

/// Warren against each bare consumer of the same window.
fn ratios(rows: &[Value], window: u16) {
    let of_window: Vec<&Value> = rows.iter().filter(|row| row["prefetch"] == window).collect();
    let Some((warren, bare)) = of_window.split_last() else { return };
    for other in bare {
        let ratio = |key: &str| warren[key].as_f64().unwrap_or(0.0) / other[key].as_f64().unwrap_or(f64::NAN);
        println!(
            "  warren / {:<22} throughput {:.2}, CPU {:.2}",
            other["consumer"].as_str().unwrap_or_default(),
            ratio("tasks_per_s"),
            ratio("cpu_us_per_task")
        );
    }
}

/// Where cargo put this program, and with it the daemon and the plugin.
fn target_directory() -> Result<PathBuf> {
    let directory =
        std::env::current_exe()?.parent().map(Path::to_owned).context("this program's directory")?;
    for needed in ["warrend", "libwarren_fixture_noop.so"] {
        if !directory.join(needed).exists() {
            bail!("{needed} is not built; run `make bench`");
        }
    }
    Ok(directory)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Tells "stuck" from "slow".
const LIMIT: Duration = Duration::from_mins(10);
