//! The broker is killed and started again: how long from its first answer until a task runs, in Warren and in a bare
//! consumer that connects again every second.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::daemon::{Daemon, Setup};
use super::queue::{BODY, Producer, Tasks};
use super::stamps::Stamps;
use super::{Bench, bare};

/// The queues of this part.
const QUEUE: &str = "bench-recovery";
const BARE_QUEUE: &str = "bench-recovery-bare";

/// Restarts.
const ROUNDS: usize = 5;

/// From the broker's answer to a task. Both ends wait a few seconds at most between two attempts.
const LIMIT: Duration = Duration::from_mins(1);

/// Connecting to a broker that answers, and publishing.
const BROKER: Duration = Duration::from_secs(20);

pub(crate) fn measure(bench: &mut Bench) -> Result<Value> {
    let uri = bench.uri();
    let (mut stamps, mut bare_stamps) = (Stamps::new()?, Stamps::new()?);
    bench.fill(QUEUE, Tasks::good(1))?;
    bench.fill(BARE_QUEUE, Tasks::good(1))?;
    let path = stamps.path();
    let daemon = Daemon::start(&Setup::new(bench, QUEUE, (1, 4)).with_stamp(&path))?;
    let bare = bare::Consumer::start(&uri, BARE_QUEUE, &bare_stamps.path())?;
    stamps.wait(LIMIT).context("warren")?;
    bare_stamps.wait(LIMIT).context("lapin")?;

    println!("{ROUNDS} restarts, from the broker's first answer until a task runs");
    let (mut warren, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bench.node.stop()?;
        bench.node.resume()?;
        let up = Instant::now();
        bench.within(BROKER, publish_both(&uri))?;
        let (ran, bare_ran) = std::thread::scope(|scope| {
            let other = scope.spawn(|| bare_stamps.wait(LIMIT).context("lapin"));
            let ran = stamps.wait(LIMIT).context("warren");
            (ran, other.join().expect("waiting does not panic"))
        });
        warren.push(ran?.duration_since(up));
        plain.push(bare_ran?.duration_since(up));
    }
    drop(bare);
    daemon.stop()?;
    let rows = [summary("lapin, again every second", plain), summary("warren", warren)];
    Ok(json!({ "restarts": ROUNDS, "rows": rows }))
}

/// One task for each. Other connections come back at the same time, so that a first attempt may be thrown out.
async fn publish_both(uri: &str) -> Result<()> {
    let producer = loop {
        match Producer::connect(uri, QUEUE).await {
            Ok(producer) => break producer,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    for queue in [QUEUE, BARE_QUEUE] {
        producer.publish(queue, BODY).await?;
    }
    producer.close().await
}

/// Prints a row and gives it.
fn summary(consumer: &str, mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let (median, max) = (times[ROUNDS / 2].as_millis() as u64, times[ROUNDS - 1].as_millis() as u64);
    println!("{consumer:<32} median {median:>6} ms   max {max:>6} ms");
    json!({ "consumer": consumer, "median_ms": median, "max_ms": max })
}
