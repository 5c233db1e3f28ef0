//! Memory over a million tasks: the resident sets of the daemon and its hosts at a tenth, at half and at the end.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::daemon::{Daemon, Setup};
use super::queue::{BODY, Producer, Tasks};
use super::usage::{self, rounded};
use super::{Bench, limit};

/// The queue of this part.
const QUEUE: &str = "bench-memory";

/// Tasks, unless `--tasks` says otherwise.
const TASKS: u32 = 1_000_000;

/// Tasks published at once. The queue never holds more than two such chunks, as it is not the broker's memory that is
/// of interest.
const CHUNK: u32 = 10_000;

/// prefetch × workers.
const WINDOW: (u16, u16) = (50, 2);

/// What counts as flat: from the first sample to the last not more than a tenth and a MiB, which is what an allocator
/// may keep for itself.
const SLACK: (f64, f64) = (1.1, 1.0);

pub(crate) fn measure(bench: &mut Bench) -> Result<Value> {
    let tasks = bench.tasks.unwrap_or(TASKS);
    bench.fill(QUEUE, Tasks::good(0))?;
    let mut daemon = Daemon::start(&Setup::new(bench, QUEUE, WINDOW))?;
    let producer = bench.within(Duration::from_secs(20), Producer::connect(&bench.uri(), QUEUE))?;
    println!("{tasks} tasks through one daemon; resident MiB of it and its hosts");
    let mut samples = Vec::new();
    let mut published = 0;
    for point in [tasks.div_ceil(10), tasks.div_ceil(2), tasks] {
        while published < point {
            let chunk = CHUNK.min(point - published);
            bench.within(limit(chunk), async {
                for _ in 0..chunk {
                    producer.publish(QUEUE, BODY).await?;
                }
                Ok(())
            })?;
            published += chunk;
            daemon.wait_settled(published.saturating_sub(CHUNK).into(), limit(2 * CHUNK))?;
        }
        let status = daemon.wait_settled(point.into(), limit(2 * CHUNK))?;
        let resident = daemon.pids(&status).into_iter().map(usage::resident_mib).sum::<Result<f64>>()?;
        println!("{point:>10} tasks {resident:>8.1} MiB");
        samples.push((point, resident));
    }
    bench.within(Duration::from_secs(20), producer.close())?;
    daemon.stop()?;
    let (first, last) = (samples[0].1, samples[samples.len() - 1].1);
    ensure!(last <= first * SLACK.0 + SLACK.1, "it grew from {first:.1} to {last:.1} MiB: a leak");
    let samples: Vec<Value> = samples
        .into_iter()
        .map(|(tasks, mib)| json!({ "tasks": tasks, "rss_mib": rounded(mib, 1) }))
        .collect();
    Ok(json!({ "samples": samples }))
}
