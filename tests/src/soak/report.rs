//! The outcome for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::plan::Kind;
use super::work::Task;
use super::{Done, Findings, Usage};

/// Examples shown of anything that is wrong.
const EXAMPLES: usize = 10;

/// What a soak came to.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    lasted: Duration,
    confirmed: usize,
    unconfirmed: usize,
    faults: BTreeMap<Kind, usize>,
    slowest_recovery: Option<(Duration, Kind)>,
    findings: Findings,
    usage: (Usage, Usage),
}

/// One fault of the log.
pub(super) fn line(number: usize, done: &Done) -> String {
    let Done { fault, window, recovery, footprint } = done;
    let micros = window.to.saturating_sub(window.from);
    let recovery =
        recovery.map_or_else(|| "the next one follows".to_owned(), |time| format!("recovered in {time:.1?}"));
    let second_of_day = window.from / 1_000_000 % 86_400;
    let (h, m, s) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let which = if fault.second { "second" } else { "first" };
    format!(
        "{number:>4}  {h:02}:{m:02}:{s:02}  {:<22} {which:<7} window {:>5.1}s  {recovery:<23}  {} KiB, {} fds",
        fault.kind,
        micros as f64 / 1e6,
        footprint.rss_kib,
        footprint.fds,
    )
}

impl Report {
    pub(super) fn new(
        seed: u64,
        lasted: Duration,
        tasks: &[Task],
        log: &[Done],
        findings: Findings,
        usage: (Usage, Usage),
    ) -> Self {
        let mut faults = BTreeMap::new();
        for done in log {
            *faults.entry(done.fault.kind).or_default() += 1;
        }
        let recoveries = log.iter().filter_map(|done| Some((done.recovery?, done.fault.kind)));
        let confirmed = tasks.iter().filter(|task| task.confirmed).count();
        Self {
            seed,
            lasted,
            confirmed,
            unconfirmed: tasks.len() - confirmed,
            faults,
            slowest_recovery: recoveries.max(),
            findings,
            usage,
        }
    }

    /// # Panics
    /// When a task was lost, died or ran again without a reason, or the daemon did not come back to what it used.
    pub fn assert_clean(&self) {
        assert!(self.findings.is_clean(), "something is wrong, see above");
        assert!(self.confirmed > 0 && self.findings.executions > 0, "nothing happened");
        let differences = self.usage.1.differences(&self.usage.0);
        assert!(differences.is_empty(), "the daemon does not use what it used before: {differences:?}");
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let counts = |counts: &BTreeMap<Kind, usize>| -> Value {
            counts.iter().map(|(kind, count)| (kind.to_string(), Value::from(*count))).collect()
        };
        let usage = |usage: &Usage| {
            let footprint = usage.footprint;
            json!({ "threads": footprint.threads, "fds": footprint.fds, "rss_kib": footprint.rss_kib })
        };
        let findings = &self.findings;
        json!({
            "seed": self.seed,
            "lasted_s": self.lasted.as_secs_f64(),
            "tasks": { "confirmed": self.confirmed, "unconfirmed": self.unconfirmed, "done": findings.done, "dead": findings.dead },
            "executions": findings.executions,
            "redelivered": findings.redelivered,
            "lost": findings.lost,
            "wrongly_dead": findings.wrongly_dead,
            "unknown": findings.unknown,
            "faults": counts(&self.faults),
            "duplicates": { "total": findings.duplicates(), "by_fault": counts(&findings.duplicates), "unexplained": findings.unexplained, "dead_letters": findings.dead_again },
            "longest_outage": findings.longest_gap.map(|gap| json!({ "ms": gap.micros / 1_000, "during": gap.during.map(|kind| kind.to_string()) })),
            "slowest_recovery": self.slowest_recovery.map(|(time, kind)| json!({ "ms": time.as_millis() as u64, "from": kind.to_string() })),
            "daemon": { "before": usage(&self.usage.0), "after": usage(&self.usage.1) },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = &self.findings;
        let faults: usize = self.faults.values().sum();
        writeln!(
            f,
            "seed        {}, {:.0?}, {faults} faults: {}",
            self.seed,
            self.lasted,
            list(&self.faults)
        )?;
        writeln!(f, "tasks       {} confirmed, {} not", self.confirmed, self.unconfirmed)?;
        writeln!(
            f,
            "executions  {}, {} of them redelivered; {} tasks and follow-ups done, {} dead",
            findings.executions, findings.redelivered, findings.done, findings.dead
        )?;
        writeln!(f, "lost        {}", findings.lost.len())?;
        writeln!(
            f,
            "duplicates  {}: {}; {} dead letters more than once",
            findings.duplicates(),
            list(&findings.duplicates),
            findings.dead_again
        )?;
        if let Some(gap) = findings.longest_gap {
            let during = gap.during.map_or_else(|| "no fault".to_owned(), |kind| kind.to_string());
            writeln!(f, "outage      at most {:.1}s without a start ({during})", gap.micros as f64 / 1e6)?;
        }
        if let Some((time, kind)) = self.slowest_recovery {
            writeln!(
                f,
                "recovery    at most {time:.1?} after a fault until every daemon had started a task ({kind})"
            )?;
        }
        let (before, after) = (self.usage.0.footprint, self.usage.1.footprint);
        write!(
            f,
            "daemon      threads {} → {}, descriptors {} → {}, RSS {} → {} KiB",
            before.threads, after.threads, before.fds, after.fds, before.rss_kib, after.rss_kib
        )?;
        for (what, examples) in [
            ("lost", &findings.lost),
            ("dead without a reason", &findings.wrongly_dead),
            ("never published", &findings.unknown),
            ("run again without a reason", &findings.unexplained),
        ] {
            if !examples.is_empty() {
                let shown: Vec<&String> = examples.iter().take(EXAMPLES).collect();
                write!(f, "\n{what}: {} of them: {shown:#?}", examples.len())?;
            }
        }
        Ok(())
    }
}

fn list(counts: &BTreeMap<Kind, usize>) -> String {
    let words: Vec<String> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
