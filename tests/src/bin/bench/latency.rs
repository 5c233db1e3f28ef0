//! Latency on an idle queue: from just before the publish until the handler runs. The bare consumer's handler is the
//! same write, between delivery and ack.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::daemon::{Daemon, Setup};
use super::queue::{BODY, Producer, Tasks};
use super::stamps::Stamps;
use super::{Bench, bare};

/// The queue of this part.
const QUEUE: &str = "bench-idle";

/// Tasks measured, one at a time.
const SAMPLES: usize = 2_000;

/// One task may take this long; far above what a loaded machine does to it.
const LIMIT: Duration = Duration::from_secs(20);

/// Connecting, and publishing one task.
const BROKER: Duration = Duration::from_secs(20);

/// Measures with 4 workers, prefetch 1.
pub(crate) fn measure(bench: &mut Bench) -> Result<Value> {
    bench.fill(QUEUE, Tasks::good(0))?;
    println!("{SAMPLES} tasks, one at a time, from just before the publish until the handler runs");

    let mut stamps = Stamps::new()?;
    let bare = bare::Consumer::start(&bench.uri(), QUEUE, &stamps.path())?;
    let plain = sample(bench, &mut stamps).context("lapin")?;
    drop(bare);
    let plain = summary("lapin polled-once", plain);

    let mut stamps = Stamps::new()?;
    let path = stamps.path();
    let setup = Setup::new(bench, QUEUE, (1, 4)).with_stamp(&path);
    let start = Instant::now();
    let mut daemon = Daemon::start(&setup)?;
    daemon.wait(LIMIT, |status| status.ready)?;
    let ready = start.elapsed();
    let warren = sample(bench, &mut stamps).context("warren")?;
    daemon.stop()?;
    let warren = summary("warren", warren);

    println!("warren: start to READY {} ms", ready.as_millis());
    Ok(json!({ "start_to_ready_ms": ready.as_millis() as u64, "rows": [plain, warren] }))
}

/// The latencies of single tasks, in the order they were taken. The first one, for which processes are started, is
/// left out.
fn sample(bench: &Bench, stamps: &mut Stamps) -> Result<Vec<Duration>> {
    let producer = bench.within(BROKER, Producer::connect(&bench.uri(), QUEUE))?;
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..=SAMPLES {
        let start = Instant::now();
        bench.within(BROKER, producer.publish(QUEUE, BODY))?;
        samples.push(stamps.wait(LIMIT)?.duration_since(start));
    }
    bench.within(BROKER, producer.close())?;
    samples.remove(0);
    Ok(samples)
}

/// Prints a row and gives it.
fn summary(consumer: &str, mut samples: Vec<Duration>) -> Value {
    samples.sort_unstable();
    let micros = |at: usize| samples[at].as_micros() as u64;
    let (p50, p99, max) = (micros(SAMPLES / 2), micros(SAMPLES * 99 / 100), micros(SAMPLES - 1));
    println!("{consumer:<32} p50 {p50:>6} µs   p99 {p99:>6} µs   max {max:>6} µs");
    json!({ "consumer": consumer, "p50_us": p50, "p99_us": p99, "max_us": max })
}
