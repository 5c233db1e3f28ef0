//! The machine: enough descriptors, processes, memory and disk for what is configured, and a synchronised clock.

use std::time::{Duration, SystemTime};

use warren::broker::LARGE_BODY_ROOM;
use warren::config::Config;
use warren::plugin::WantedHandler;

use super::super::facts::{Clock, MachineFacts, ProcessLimits, Space};
use super::super::finding::{Area, Finding, Severity};
use crate::output::span;

/// What the daemon has open for one host: two sockets, two pipes, the ring, the pidfd, and one to spare while it starts.
const FILES_PER_HOST: u64 = 7;
/// What it has open without any host: broker, control socket and its clients, log, one sealed plugin per handler.
const FILES_BESIDE: u64 = 150;
/// A host's two threads, and a program that its handler starts.
const PROCESSES_PER_HOST: u64 = 3;
/// Below this a disk counts as nearly full, whatever its size.
const LITTLE_ROOM: u64 = 256 << 20;
/// A clock may be this much behind the time that a file was written with: another machine wrote it.
const CLOCK_SLACK: Duration = Duration::from_secs(120);

pub(super) fn check(
    machine: &MachineFacts,
    config: Option<&Config>,
    handlers: &[WantedHandler],
    limits: Option<ProcessLimits>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let (Some(config), Some(limits)) = (config, limits) {
        findings.extend(descriptors(hosts(config, handlers), limits));
    }
    if let Some(config) = config {
        findings.extend(machine.memory.and_then(|memory| held(config, memory)));
        let needed = config.queues.iter().any(|queue| !queue.deduplicate.is_zero());
        let place = config.daemon.state_dir.display().to_string();
        findings.extend(machine.state_dir.as_ref().and_then(|space| state_dir(&place, space, needed)));
    }
    findings.push(clock(machine));
    findings
}

/// Hosts there can be at once: a handler has as many as it may run tasks, and warm ones stay for a while.
fn hosts(config: &Config, handlers: &[WantedHandler]) -> u64 {
    let workers: u64 = config.queues.iter().map(|queue| u64::from(queue.workers)).sum();
    let most =
        |handler: &WantedHandler| handler.limits.workers.map_or(workers, |own| workers.min(own.into()));
    handlers.iter().filter(|handler| !handler.prefixes.is_empty()).map(most).sum()
}

fn descriptors(hosts: u64, limits: ProcessLimits) -> Vec<Finding> {
    let one = |what: &str, unit: &str, needs: u64, limit: Option<u64>| {
        let find = |severity, text: String, remedy: String| {
            Finding::new(severity, Area::Machine, "limits of warrend", text, remedy)
        };
        match limit {
            Some(limit) if limit < needs => {
                let text = format!("up to {hosts} hosts need some {needs} {what}, it may have {limit}");
                find(Severity::Warning, text, format!("{unit}={} in the unit, or fewer workers", needs * 2))
            }
            _ => find(Severity::Ok, format!("enough {what} for {hosts} hosts"), String::new()),
        }
    };
    vec![
        one("descriptors", "LimitNOFILE", FILES_BESIDE + hosts * FILES_PER_HOST, limits.files),
        one("processes", "LimitNPROC", hosts * PROCESSES_PER_HOST, limits.processes),
    ]
}

/// What the daemon may come to hold of tasks that wait, and of bodies that are refused for their size.
fn held(config: &Config, memory: u64) -> Option<Finding> {
    let window: u64 = config.queues.iter().map(|queue| u64::from(queue.window())).sum();
    let most = window.saturating_mul(config.daemon.max_task_bytes).saturating_add(LARGE_BODY_ROOM);
    (most > memory / 2).then(|| {
        let what = format!(
            "{window} tasks of {} KiB may be held at once, and {} MiB of larger bodies: {} MiB of the {} MiB that \
             warrend may have",
            config.daemon.max_task_bytes >> 10,
            LARGE_BODY_ROOM >> 20,
            most >> 20,
            memory >> 20
        );
        let remedy = "lower prefetch or daemon.max_task_bytes, unless tasks are known to be small";
        Finding::new(Severity::Note, Area::Machine, "memory", what, remedy)
    })
}

fn state_dir(place: &str, space: &Result<Space, String>, needed: bool) -> Option<Finding> {
    let bad = |severity, what: String, remedy: &str| {
        let severity = if needed { severity } else { Severity::Note };
        Some(Finding::new(severity, Area::Machine, place, what, remedy))
    };
    match space {
        Err(why) if needed => {
            let what = format!("finished tasks cannot be remembered on disk: {why}");
            bad(Severity::Warning, what, "create it for warrend's user (StateDirectory= in the unit)")
        }
        Err(_) => None,
        Ok(Space { free: 0, .. } | Space { files: Some(0), .. }) => {
            bad(Severity::Error, "the disk is full".into(), "make room")
        }
        Ok(Space { free, size, .. })
            if *free < LITTLE_ROOM.min(size / 2) || free.saturating_mul(20) < *size =>
        {
            let what = format!("{} MiB are left of {} MiB", free >> 20, size >> 20);
            bad(Severity::Warning, what, "make room")
        }
        Ok(Space { free, .. }) => Some(Finding::ok(Area::Machine, place, format!("{} MiB free", free >> 20))),
    }
}

fn clock(machine: &MachineFacts) -> Finding {
    let find =
        |severity, what: String, remedy: &str| Finding::new(severity, Area::Machine, "clock", what, remedy);
    let ahead = |time: &SystemTime| time.duration_since(machine.now).unwrap_or_default();
    if let Some((path, time)) = machine.past.iter().max_by_key(|(_, time)| *time)
        && ahead(time) > CLOCK_SLACK
    {
        let what = format!(
            "it is behind {} by {}: due times and expiries go by it",
            path.display(),
            span(ahead(time))
        );
        return find(Severity::Warning, what, "set it: timedatectl set-ntp true");
    }
    match machine.clock {
        Clock::Synchronized => Finding::ok(Area::Machine, "clock", "synchronized"),
        Clock::Another => Finding::ok(Area::Machine, "clock", "chrony or ntpd keeps it"),
        Clock::NotYet => find(
            Severity::Warning,
            "systemd-timesyncd runs and has not synchronized it: due times and expiries go by it".into(),
            "timedatectl timesync-status",
        ),
        Clock::Nobody => find(
            Severity::Note,
            "nothing is known to keep it right: due times and expiries go by it".into(),
            "timedatectl set-ntp true, unless the host of this machine does it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use warren::config::Limits;

    use super::*;

    #[test]
    fn limits_that_the_workers_can_reach_are_found() {
        let limits = |files| ProcessLimits { files, processes: None };
        let table = [(None, Severity::Ok), (Some(65_536), Severity::Ok), (Some(1024), Severity::Warning)];
        for (files, severity) in table {
            let findings = descriptors(200, limits(files));
            assert_eq!(findings[0].severity, severity, "{findings:?}");
            assert_eq!(findings[1].severity, Severity::Ok);
        }
        let few = descriptors(200, ProcessLimits { files: None, processes: Some(100) });
        assert!(few[1].what.contains("200 hosts need some 600 processes, it may have 100"), "{few:?}");
    }

    #[test]
    fn a_disk_counts_as_full_before_it_is() {
        const MIB: u64 = 1 << 20;
        let space = |free, size| Ok(Space { free, size, files: Some(9) });
        let table = [
            (space(500 * MIB, 1000 * MIB), true, Some(Severity::Ok)),
            (space(30 * MIB, 40 * MIB), true, Some(Severity::Ok)),
            (space(100 * MIB, 1000 * MIB), true, Some(Severity::Warning)),
            (space(4000 * MIB, 100_000 * MIB), true, Some(Severity::Warning)),
            (space(0, MIB), true, Some(Severity::Error)),
            (space(0, MIB), false, Some(Severity::Note)),
            (Ok(Space { free: MIB, size: MIB, files: Some(0) }), true, Some(Severity::Error)),
            (Err("no such directory".into()), true, Some(Severity::Warning)),
            (Err("no such directory".into()), false, None),
        ];
        for (space, needed, expected) in table {
            let found = state_dir("/var/lib/warren", &space, needed);
            assert_eq!(found.map(|finding| finding.severity), expected, "{space:?} {needed}");
        }
    }

    #[test]
    fn a_clock_that_is_behind_what_was_written_is_not_believed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let machine = |written: u64, clock| MachineFacts {
            now,
            past: vec![(
                "/etc/warren/warren.toml".into(),
                SystemTime::UNIX_EPOCH + Duration::from_secs(written),
            )],
            clock,
            state_dir: None,
            memory: None,
        };
        let table = [
            (999_999, Clock::Synchronized, Severity::Ok),
            (1_000_060, Clock::Another, Severity::Ok),
            (1_003_600, Clock::Synchronized, Severity::Warning),
            (1, Clock::NotYet, Severity::Warning),
            (1, Clock::Nobody, Severity::Note),
        ];
        for (written, kept, severity) in table {
            assert_eq!(clock(&machine(written, kept)).severity, severity, "{written} {kept:?}");
        }
    }

    #[test]
    fn a_handler_has_at_most_as_many_hosts_as_it_may_run_tasks() {
        let queue = |workers| warren::config::Queue { workers, ..warren::config::Queue::new("q") };
        let config = Config {
            files: Vec::new(),
            broker: warren::config::Broker::default(),
            queues: vec![queue(4), queue(6)],
            plugins: warren::config::Plugins::default(),
            handlers: Vec::new(),
            daemon: warren::config::Daemon::new(&warren::config::Environment::new()),
            log: warren::config::Log::default(),
        };
        let handler = |workers, prefixes: &[&str]| WantedHandler {
            name: "h".into(),
            plugin: "h".into(),
            origin: None,
            is_missing: false,
            prefixes: prefixes.iter().map(|&prefix| prefix.into()).collect(),
            queues: None,
            settings_json: "{}".into(),
            limits: Limits { workers, ..Limits::default() },
            timeout: Limits::DEFAULT_TIMEOUT,
        };
        let handlers =
            [handler(None, &["A"]), handler(Some(3), &["B"]), handler(Some(99), &["C"]), handler(None, &[])];
        assert_eq!(hosts(&config, &handlers), 10 + 3 + 10);
        let roomy = 1 << 40;
        assert_eq!(held(&config, roomy), None);
        let finding = held(&config, 128 << 20).expect("74 MiB of 128");
        for part in ["10 tasks of 1024 KiB", "64 MiB of larger bodies", "74 MiB of the 128 MiB"] {
            assert!(finding.what.contains(part), "{finding:?}");
        }
    }
}
