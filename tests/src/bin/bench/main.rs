//! `make bench`: what a task costs in Warren, beside bare lapin consumers that do nothing with it, in one run on one
//! broker. Ratios are what to read: absolute figures belong to the machine.
//!
//! `bench [--tasks COUNT] [--rounds COUNT] [PART…]`; without parts all but `memory`. A part that cannot be measured is
//! said, the others go on, and the exit status is 1. Every wait has a bound (`limit`).

mod bare;
mod daemon;
mod failing;
mod handlers;
mod latency;
mod memory;
mod process;
mod queue;
mod recovery;
mod stamps;
mod throughput;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use warren_tests::Node;

/// Tasks drained per row, unless `--tasks` says otherwise.
const TASKS: u32 = 200_000;

/// One thing to measure, and where it stands in the report.
const PARTS: [(&str, Part); 6] = [
    ("throughput", throughput::measure),
    ("latency", latency::measure),
    ("failing", failing::measure),
    ("recovery", recovery::measure),
    ("handlers", handlers::measure),
    ("memory", memory::measure),
];

/// Only where it is asked for: it takes as long as all others together.
const APART: &str = "memory";

/// Measures, prints as it goes, and gives what the report is to hold.
type Part = fn(&mut Bench) -> Result<Value>;

/// What every part works with.
struct Bench {
    /// Where the daemon and the plugin are.
    target: PathBuf,
    node: Node,
    runtime: Runtime,
    /// Tasks per row; none: as many as the part takes for itself.
    tasks: Option<u32>,
    /// Times each row of the throughput is measured.
    rounds: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments.split_first() {
        Some((&"bare", rest)) => runtime().and_then(|runtime| bare::main(&runtime, rest)).map(|()| true),
        _ => bench(&arguments),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True: every part was measured.
fn bench(arguments: &[&str]) -> Result<bool> {
    let (mut tasks, mut rounds, mut parts) = (None, 1, Vec::new());
    let mut rest = arguments.iter();
    while let Some(&argument) = rest.next() {
        let mut number =
            || rest.next().and_then(|text| text.parse::<u32>().ok()).filter(|number| *number > 0);
        match argument {
            "--tasks" => tasks = Some(number().context("--tasks takes a number from 1")?),
            "--rounds" => rounds = number().context("--rounds takes a number from 1")? as usize,
            name => match PARTS.into_iter().find(|(part, _)| *part == name) {
                Some(part) => parts.push(part),
                None => bail!(
                    "no part {name:?}; usage: bench [--tasks COUNT] [--rounds COUNT] [{}]…",
                    PARTS.map(|(name, _)| name).join("|")
                ),
            },
        }
    }
    if parts.is_empty() {
        parts.extend(PARTS.into_iter().filter(|(name, _)| *name != APART));
    }
    let mut bench =
        Bench { target: target_directory()?, node: Node::start()?, runtime: runtime()?, tasks, rounds };
    let mut report =
        Map::from_iter([("machine".to_owned(), machine()), ("tasks".to_owned(), json!(bench.tasks()))]);
    let mut errors = Map::new();
    for (name, measure) in parts {
        println!("\n== {name}");
        match measure(&mut bench) {
            // The rows stand at the top, whatever part they are of.
            Ok(Value::Array(rows)) => drop(report.insert("rows".to_owned(), Value::Array(rows))),
            Ok(value) => drop(report.insert(name.to_owned(), value)),
            Err(error) => {
                eprintln!("{name} cannot be measured: {error:#}");
                errors.insert(name.to_owned(), json!(format!("{error:#}")));
            }
        }
    }
    let complete = errors.is_empty();
    report.insert("errors".to_owned(), Value::Object(errors));
    let path = bench.target.parent().context("target")?.join("bench.json");
    fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
    println!("\nwritten to {}", path.display());
    Ok(complete)
}

impl Bench {
    fn tasks(&self) -> u32 {
        self.tasks.unwrap_or(TASKS)
    }

    fn uri(&self) -> String {
        self.node.uri()
    }

    /// Leaves exactly these tasks in the queue.
    fn fill(&self, queue: &str, tasks: queue::Tasks) -> Result<()> {
        self.within(limit(tasks.count), queue::fill(&self.uri(), queue, tasks))
    }

    fn within<T>(&self, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        within(&self.runtime, limit, work)
    }
}

/// Runs what may wait for the broker, no longer than `limit`.
fn within<T>(runtime: &Runtime, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let ended = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    ended.unwrap_or_else(|_| bail!("not done within {limit:?}"))
}

/// How long so many tasks may take: tells "stuck" from "slow", and slower than 500 a second is stuck.
fn limit(tasks: u32) -> Duration {
    Duration::from_mins(1) + Duration::from_millis(2) * tasks
}

/// Whose figures these are.
fn machine() -> Value {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    json!({ "cpu": model, "cores": cores })
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

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
