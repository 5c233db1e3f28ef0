//! What tasks that fail cost those that do not: throughput with none, with one in a hundred, and with so many that
//! 5,000 retries a second are made as long as the others run at half their pace or more. A retry is a copy that the
//! broker confirms, on a queue it waits in, and then the ack.

use anyhow::Result;
use serde_json::{Value, json};

use super::daemon::{self, Setup};
use super::queue::Tasks;
use super::usage::{Row, rounded};
use super::{Bench, bare};

/// The queue of this part.
const QUEUE: &str = "bench-failing";

/// Where tasks that failed wait: the delay of the bench's configuration.
pub(crate) const DELAY_QUEUE: &str = "bench-failing.retry.3600000";

/// prefetch × workers.
const WINDOW: (u16, u16) = (50, 2);

/// Retries a second that must not slow the others to under half.
const RETRIES_PER_S: f64 = 5_000.0;

pub(crate) fn measure(bench: &mut Bench) -> Result<Value> {
    let count = bench.tasks();
    println!("{count} tasks, of which some fail and are put off by an hour");
    Row::print_head();
    let none = drain(bench, "warren, none fails", Tasks::good(count))?;
    none.print();
    let some = Tasks { count, failing: Some(100) };
    let one_percent = drain(bench, "warren, 1 % fail", some)?;
    one_percent.print();
    let ratio = one_percent.print_ratio(&none);
    let plain_percent = drain_plain(bench, "1 % fail", some)?;
    let percent_to_plain = one_percent.print_ratio(&plain_percent);

    let half = none.tasks_per_s / 2.0;
    let every = ((half + RETRIES_PER_S) / RETRIES_PER_S).floor().max(2.0);
    let many = Tasks { count, failing: Some(every as u32) };
    let flood = drain(bench, &format!("warren, 1 in {every} fails"), many)?;
    flood.print();
    let share = f64::from(many.failing_count()) / f64::from(count);
    let retries = flood.tasks_per_s * share;
    let good = flood.tasks_per_s * (1.0 - share) / none.tasks_per_s;
    println!("  {retries:.0} retries a second; tasks that succeed at {good:.2} of their pace without");
    // What the broker alone needs for so many copies shows here.
    let plain_flood = drain_plain(bench, &format!("1 in {every} fails"), many)?;
    let flood_to_plain = flood.print_ratio(&plain_flood);
    let rows = [none, one_percent, plain_percent, flood, plain_flood].map(|row| row.json());
    Ok(json!({
        "rows": rows,
        "ratios": [ratio, percent_to_plain, flood_to_plain],
        "flood": { "retries_per_s": retries.round(), "pace_of_the_others": rounded(good, 2) },
    }))
}

fn drain(bench: &Bench, name: &str, tasks: Tasks) -> Result<Row> {
    let measured = daemon::drain_acquainted(bench, &Setup::new(bench, QUEUE, WINDOW), tasks)?;
    Ok(Row::of(name, WINDOW.0 * WINDOW.1, &[measured]))
}

/// The plain consumer, which confirms the same copies.
fn drain_plain(bench: &Bench, what: &str, tasks: Tasks) -> Result<Row> {
    bench.fill(QUEUE, tasks)?;
    let window = WINDOW.0 * WINDOW.1;
    let measured = bare::drain(bare::Mode::Polled, window, tasks, &bench.uri(), QUEUE)?;
    let row = Row::of(&format!("lapin polled-once, {what}"), window, &[measured]);
    row.print();
    Ok(row)
}
