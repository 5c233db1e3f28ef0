//! What handlers cost that have nothing to do: the CPU of a task and the time from start to READY with one handler and with a
//! thousand of the same plugin, and how many processes a thousand handlers are when each has run a task.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::daemon::{self, Daemon, Setup};
use super::queue::{Producer, Tasks};
use super::usage::{Measured, Row};
use super::{Bench, limit};

/// The queue of this part.
const QUEUE: &str = "bench-handlers";

/// prefetch × workers.
const WINDOW: (u16, u16) = (50, 2);

/// Handlers beside the one that is used.
const OTHERS: u16 = 999;

/// Hosts without a task that the daemon is configured to keep.
const MAX_IDLE_HOSTS: u16 = 3;

/// To be ready, with every handler loaded.
const START: Duration = Duration::from_mins(2);

/// Publishing a task for each handler.
const BROKER: Duration = Duration::from_mins(1);

pub(crate) fn measure(bench: &mut Bench) -> Result<Value> {
    let tasks = Tasks::good(bench.tasks());
    let rounds = bench.rounds.max(3);
    println!("{} tasks of one handler, median of {rounds}", tasks.count);
    Row::print_head();
    let mut measured: [Vec<Measured>; 2] = Default::default();
    for _ in 0..rounds {
        for (others, into) in [0, OTHERS].into_iter().zip(&mut measured) {
            bench.fill(QUEUE, tasks)?;
            into.push(daemon::drain(&Setup::new(bench, QUEUE, WINDOW).beside(others), tasks)?);
        }
    }
    let names = ["warren, one handler", "warren, 1,000 handlers"];
    let [one, many] = [0, 1].map(|at| Row::of(names[at], WINDOW.0 * WINDOW.1, &measured[at]));
    one.print();
    many.print();
    let ratio = many.print_ratio(&one);

    let (ready_of_one, _) = start(bench, 0)?;
    let (ready, daemon) = start(bench, OTHERS)?;
    println!("start to READY: {} ms, with 1,000 handlers {} ms", ready_of_one.as_millis(), ready.as_millis());
    let most = run_each(bench, daemon)?;
    println!(
        "each of {OTHERS} handlers ran a task: at most {most} processes without one, {MAX_IDLE_HOSTS} are allowed"
    );
    Ok(json!({
        "rows": [one.json(), many.json()],
        "ratio": ratio,
        "start_to_ready_ms": { "one": ready_of_one.as_millis() as u64, "thousand": ready.as_millis() as u64 },
        "idle_hosts": { "allowed": MAX_IDLE_HOSTS, "most": most },
    }))
}

fn start(bench: &Bench, others: u16) -> Result<(Duration, Daemon)> {
    bench.fill(QUEUE, Tasks::good(0))?;
    let start = Instant::now();
    let mut daemon = Daemon::start(&Setup::new(bench, QUEUE, WINDOW).beside(others).keeping(MAX_IDLE_HOSTS))?;
    daemon.wait(START, |status| status.ready)?;
    Ok((start.elapsed(), daemon))
}

/// A task for each of the other handlers. The most hosts without a task at any look at the status; one that was told to
/// end counts until it has.
fn run_each(bench: &Bench, mut daemon: Daemon) -> Result<usize> {
    bench.within(BROKER, async {
        let producer = Producer::connect(&bench.uri(), QUEUE).await?;
        for n in 0..OTHERS {
            producer.publish(QUEUE, format!("Idle{n}:").as_bytes()).await?;
        }
        producer.close().await
    })?;
    let mut most = 0;
    let last = daemon.wait(limit(u32::from(OTHERS)), |status| {
        let hosts: usize = status.handlers.iter().map(|handler| handler.hosts.len()).sum();
        let running: usize = status.queues.iter().map(|queue| queue.running).sum();
        most = most.max(hosts.saturating_sub(running));
        let done: u64 = status.queues.iter().map(|queue| queue.counts.done).sum();
        done == u64::from(OTHERS) && hosts <= usize::from(MAX_IDLE_HOSTS)
    })?;
    ensure!(last.ready, "the daemon is ready when all is done");
    daemon.stop()?;
    Ok(most)
}
