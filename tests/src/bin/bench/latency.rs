//! Latency on an idle queue: from just before the publish until the handler runs.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use lapin::{Connection, ConnectionProperties};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::daemon::Daemon;
use super::{BODY, bare};

/// Tasks measured, one at a time.
const SAMPLES: usize = 2_000;

/// Measures with 4 workers, prefetch 1.
pub(crate) fn measure(target: &Path, uri: &str, runtime: &Runtime) -> Result<Value> {
    runtime.block_on(bare::fill(uri, "bench", 0))?;
    let directory = tempfile::tempdir()?;
    let fifo = directory.path().join("stamp");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    // Opened for both, so that neither end waits for the other.
    let mut stamps = File::options().read(true).write(true).open(&fifo)?;
    let start = Instant::now();
    let mut daemon = Daemon::start(target, uri, 1, 4, Some(&fifo))?;
    daemon.wait(|status| status.ready)?;
    let ready = start.elapsed();
    let mut samples = runtime.block_on(sample(uri, &mut stamps))?;
    daemon.stop()?;
    samples.sort_unstable();
    let micros = |at: usize| samples[at].as_micros() as u64;
    Ok(json!({
        "start_to_ready_ms": ready.as_millis() as u64,
        "idle_p50_us": micros(SAMPLES / 2),
        "idle_p99_us": micros(SAMPLES * 99 / 100),
        "idle_max_us": samples.last().map(Duration::as_micros),
    }))
}

/// The latencies of single tasks, in the order they were taken.
async fn sample(uri: &str, stamps: &mut File) -> Result<Vec<Duration>> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let start = Instant::now();
        bare::publish(&channel, "bench", BODY).await?;
        stamps.read_exact(&mut [0])?;
        samples.push(start.elapsed());
    }
    connection.close(200, "".into()).await?;
    Ok(samples)
}
