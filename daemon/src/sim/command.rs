//! `make simulate`: many seeds on every core of the machine, or one plan played again.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::RunPlan;
use super::run::{Total, run_plan, trace_plan};
use super::shrink::shrink;

/// What many seeds came to: the totals, and the first seed that failed.
#[derive(Debug)]
pub(super) struct Simulated {
    pub(super) total: Total,
    pub(super) failed: Option<u64>,
    pub(super) took: Duration,
}

/// Runs the seeds from `first` on, so many, on so many threads.
pub(super) fn simulate(first: u64, seeds: u64, threads: usize) -> Simulated {
    let epoch = Instant::now();
    let next = AtomicU64::new(first);
    let has_failed = AtomicBool::new(false);
    let result = Mutex::new((Total::default(), None::<u64>));
    let work = || {
        let mut total = Total::default();
        let mut failed = None;
        while !has_failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            let ran = run_plan(&RunPlan::of_seed(seed), epoch);
            total.add(&ran);
            if ran.violation.is_some() {
                failed = Some(seed);
                has_failed.store(true, Ordering::Relaxed);
            }
        }
        let mut result = result.lock().expect("no thread panics with it");
        result.0.merge(&total);
        result.1 = [result.1, failed].into_iter().flatten().min();
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (total, failed) = result.into_inner().expect("no thread panics with it");
    Simulated { total, failed, took: epoch.elapsed() }
}

/// The story of a failing plan, shrunk.
pub(super) fn explain(plan: &RunPlan) -> String {
    let epoch = Instant::now();
    let Some(found) = run_plan(plan, epoch).violation else { return format!("{plan} does not fail") };
    let small = shrink(plan, found.invariant, epoch);
    let ran = trace_plan(&small, epoch);
    let found = ran.violation.unwrap_or(found);
    format!("{}\n\n{found}\n\nPlay it again: make simulate REPLAY={small}\n", ran.trace.join("\n"))
}

/// The summary of a simulation.
pub(super) fn summary(first: u64, simulated: &Simulated) -> String {
    let Simulated { total, took, .. } = simulated;
    let rate = |n: u64| n as f64 / took.as_secs_f64().max(0.001);
    format!(
        "seeds {first}..{}: {} runs, {} events, {} turns in {took:.1?} ({:.0} runs/s, {:.0} events/s), {} faults:\n{}",
        first + total.seeds,
        total.seeds,
        total.events,
        total.turns,
        rate(total.seeds),
        rate(total.events),
        total.faults.total(),
        total.faults,
    )
}

/// The program: `simulate --seeds N --seed FIRST`, or `simulate --replay PLAN`.
#[allow(clippy::print_stdout, reason = "it is a program for developers, and has no log")]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut first, mut seeds, mut threads, mut replay) = (1, 10_000, 2, None);
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        let number = value.parse::<u64>();
        match (name.as_str(), number) {
            ("--seed", Ok(number)) => first = number,
            ("--seeds", Ok(number)) => seeds = number,
            ("--threads", Ok(number)) => threads = number as usize,
            ("--replay", _) => replay = Some(value),
            _ => {
                println!(
                    "simulate [--seed FIRST] [--seeds N] [--threads N] [--replay PLAN]: `{name} {value}` is none of these"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    std::panic::set_hook(Box::new(|_| {})); // told as what it is: an invariant that does not hold
    if let Some(replay) = replay {
        let plan: RunPlan = match replay.parse() {
            Ok(plan) => plan,
            Err(why) => {
                println!("{why}");
                return ExitCode::FAILURE;
            }
        };
        let ran = trace_plan(&plan, Instant::now());
        println!("{}", ran.trace.join("\n"));
        return match ran.violation {
            Some(found) => {
                println!("\n{found}");
                ExitCode::FAILURE
            }
            None => ExitCode::SUCCESS,
        };
    }
    let simulated = simulate(first, seeds, threads);
    println!("{}", summary(first, &simulated));
    match simulated.failed {
        Some(seed) => {
            println!("seed {seed} fails:\n{}", explain(&RunPlan::of_seed(seed)));
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
