//! A full queue drained by each consumer, at three windows.

use anyhow::Result;
use serde_json::Value;

use super::daemon::{self, Setup};
use super::queue::{BODY, Tasks};
use super::usage::{Measured, Row};
use super::{Bench, bare};

/// The queue of this part.
const QUEUE: &str = "bench";

/// prefetch × workers as the daemon gets it, for windows of 1, 10 and 100.
const WINDOWS: [(u16, u16); 3] = [(1, 1), (5, 2), (50, 2)];

/// The rows, as they are reported. Each round measures every consumer once, so that a machine that grows slower
/// meanwhile does so for all.
pub(crate) fn measure(bench: &mut Bench) -> Result<Value> {
    let tasks = Tasks::good(bench.tasks());
    let rounds = bench.rounds;
    println!("{} tasks of {} bytes, median of {rounds}", tasks.count, BODY.len());
    println!("CPU: all processes of the consumer, in µs per task; peak: the sum of their resident sets");
    Row::print_head();
    let mut rows = Vec::new();
    for (prefetch, workers) in WINDOWS {
        let window = prefetch * workers;
        let mut measured: [Vec<Measured>; 4] = Default::default();
        for _ in 0..rounds {
            for (mode, into) in bare::Mode::ALL.into_iter().zip(&mut measured) {
                bench.fill(QUEUE, tasks)?;
                into.push(bare::drain(mode, window, tasks, &bench.uri(), QUEUE)?);
            }
            bench.fill(QUEUE, tasks)?;
            measured[3].push(daemon::drain(&Setup::new(bench, QUEUE, (prefetch, workers)), tasks)?);
        }
        let names =
            bare::Mode::ALL.map(|mode| format!("lapin {mode}")).into_iter().chain(["warren".to_owned()]);
        let of_window: Vec<Row> =
            names.zip(&measured).map(|(name, rounds)| Row::of(&name, window, rounds)).collect();
        of_window.iter().for_each(Row::print);
        if let Some((warren, others)) = of_window.split_last() {
            for other in others {
                warren.print_ratio(other);
            }
        }
        rows.extend(of_window.iter().map(Row::json));
    }
    Ok(Value::Array(rows))
}
