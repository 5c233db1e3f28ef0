//! Handlers against the queues, the broker and the service: workers that can never be used, and times that do not fit
//! into each other.

use std::time::Duration;

use warren::config::{Config, Queue};
use warren::plugin::{Manifest, WantedHandler, target_conflicts};

use super::super::facts::Unit;
use super::super::finding::{Area, Finding, Severity};
use crate::output::span;

pub(super) fn check(config: &Config, handlers: &[WantedHandler], unit: Option<&Unit>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for handler in handlers.iter().filter(|handler| !handler.prefixes.is_empty()) {
        findings.extend(broker_limit(config, handler));
        findings.extend(workers(config, handler));
        findings.extend(drain(config, handler));
    }
    for queue in &config.queues {
        findings.extend(prefetch(queue, handlers));
    }
    findings.extend(unit.and_then(|unit| service(config, handlers, unit)));
    if findings.is_empty() && !handlers.is_empty() {
        let what = "workers, time limits and queues fit together";
        findings.push(Finding::ok(Area::Handlers, "handlers", what));
    }
    findings
}

/// Handlers of which one replaces or deletes what another made.
pub(super) fn targets(config: &Config, manifests: &[&Manifest]) -> Vec<Finding> {
    target_conflicts(&config.handlers, manifests)
        .into_iter()
        .map(|conflict| {
            Finding::new(Severity::Warning, Area::Handlers, conflict.handler, conflict.what, conflict.remedy)
        })
        .collect()
}

/// Whether tasks of this queue come to the handler.
pub(super) fn takes(handler: &WantedHandler, queue: &Queue) -> bool {
    let is_named =
        || handler.queues.as_ref().is_none_or(|names| names.iter().any(|name| **name == *queue.name));
    !handler.prefixes.is_empty() && is_named()
}

/// What the configuration alone could not tell: the limits that plugins bring along.
fn broker_limit(config: &Config, handler: &WantedHandler) -> Vec<Finding> {
    let risks = config.consumer_timeout_risks(
        &handler.name,
        handler.queues.as_deref(),
        &handler.limits,
        handler.timeout,
    );
    let find = |risk: String| {
        let (what, remedy) = risk.rsplit_once(": ").unwrap_or((&risk, ""));
        Finding::new(Severity::Warning, Area::Handlers, &*handler.name, what, remedy)
    };
    risks.into_iter().map(find).collect()
}

fn workers(config: &Config, handler: &WantedHandler) -> Option<Finding> {
    let most: u32 = (config.queues.iter().filter(|queue| takes(handler, queue)))
        .map(|queue| u32::from(queue.workers))
        .sum();
    let own = u32::from(handler.limits.workers?);
    (own > most).then(|| {
        let what = format!("it may run {own} tasks at once, and its queues have {most} workers");
        let remedy = "raise `workers` of the queue, or lower the handler's";
        Finding::new(Severity::Warning, Area::Handlers, &*handler.name, what, remedy)
    })
}

/// A task that is still running when a drain is over is given back and starts from the beginning.
fn drain(config: &Config, handler: &WantedHandler) -> Option<Finding> {
    let limit = config.daemon.drain_timeout;
    (handler.timeout > limit).then(|| {
        let what = format!(
            "its tasks may run {}, a stop waits {}: a longer one is interrupted and starts again",
            span(handler.timeout),
            span(limit)
        );
        let remedy = "raise `daemon.drain_timeout`, unless its tasks can be started again at any time";
        Finding::new(Severity::Note, Area::Handlers, &*handler.name, what, remedy)
    })
}

/// Workers of a queue for which there is never a task: its handlers are capped below, or its window is shared unfairly.
fn prefetch(queue: &Queue, handlers: &[WantedHandler]) -> Option<Finding> {
    let takers: Vec<&WantedHandler> = handlers.iter().filter(|handler| takes(handler, queue)).collect();
    let find = |severity, what: String, remedy: &str| {
        Some(Finding::new(severity, Area::Handlers, &*queue.name, what, remedy))
    };
    let caps: Option<u32> = takers
        .iter()
        .map(|handler| handler.limits.workers.map(u32::from))
        .collect::<Option<Vec<_>>>()
        .map(|caps| caps.into_iter().sum());
    let workers = u32::from(queue.workers);
    match caps {
        _ if takers.is_empty() => {
            let what = "no handler takes tasks from it: each one would be dead-lettered as unroutable".into();
            find(Severity::Warning, what, "narrow no handler with `queues` that is to take them, or add one")
        }
        Some(caps) if caps < workers => {
            let what =
                format!("it has {workers} workers, its handlers together may run {caps} tasks at once");
            find(Severity::Note, what, "raise `workers` of a handler, or lower the queue's")
        }
        _ if queue.prefetch > 1 && takers.iter().any(|handler| handler.timeout > LONG) => {
            let what = format!(
                "prefetch is {}: up to {} tasks wait here behind long ones while daemons elsewhere may be idle",
                queue.prefetch,
                u32::from(queue.window()) - workers
            );
            find(
                Severity::Note,
                what,
                "prefetch = 1 where tasks are long; more pays for tasks of milliseconds",
            )
        }
        _ => None,
    }
}

/// Above this a task that waits behind another one waits for longer than somebody notices.
const LONG: Duration = Duration::from_secs(60);

/// Whether a drain is given its time: the daemon asks for more while it drains, which needs `Type=notify`.
fn service(config: &Config, handlers: &[WantedHandler], unit: &Unit) -> Option<Finding> {
    let find = |what: String, remedy: &str| {
        Some(Finding::new(Severity::Warning, Area::Handlers, &unit.name, what, remedy))
    };
    let grace = handlers.iter().map(|handler| handler.limits.grace).max().unwrap_or_default();
    let needs = config.daemon.drain_timeout + grace;
    let can_ask = unit.kind.starts_with("notify") && !matches!(unit.notify_access.as_str(), "none" | "");
    if unit.kill_mode == "control-group" {
        let what = "KillMode=control-group: a stop ends the tasks at once, instead of letting them finish";
        return find(what.into(), "KillMode=mixed, as in the shipped unit");
    }
    match unit.timeout_stop {
        Some(limit) if !can_ask && limit < needs => {
            let what = format!(
                "TimeoutStopSec is {}, a drain may take {}, and with Type={} warrend cannot ask for more time",
                span(limit),
                span(needs),
                unit.kind
            );
            find(what, "Type=notify and NotifyAccess=main, as in the shipped unit")
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use warren::config::{Broker, Daemon, Environment, Limits, Log, Plugins};

    use super::*;

    pub(in crate::doctor) fn config(queue: Queue) -> Config {
        Config {
            files: Vec::new(),
            broker: Broker::default(),
            queues: vec![queue],
            plugins: Plugins::default(),
            handlers: Vec::new(),
            daemon: Daemon { drain_timeout: Duration::from_secs(30), ..Daemon::new(&Environment::new()) },
            log: Log::default(),
        }
    }

    pub(in crate::doctor) fn handler(workers: Option<u16>, timeout: u64) -> WantedHandler {
        WantedHandler {
            name: "backup".into(),
            plugin: "backup".into(),
            origin: None,
            is_missing: false,
            prefixes: vec!["Backup".into()],
            queues: None,
            settings_json: "{}".into(),
            limits: Limits { workers, ..Limits::default() },
            timeout: Duration::from_secs(timeout),
        }
    }

    #[test]
    fn numbers_that_do_not_fit_together_are_named() {
        use Severity::{Note, Ok, Warning};
        let elsewhere = WantedHandler { queues: Some(vec!["other".into()]), ..handler(None, 5) };
        // Prefetch and workers of the queue, the handler, what is found.
        let table = [
            (1, 4, handler(None, 5), vec![(Ok, "fit together")]),
            (1, 4, handler(Some(4), 5), vec![(Ok, "fit together")]),
            (
                1,
                4,
                handler(Some(8), 5),
                vec![(Warning, "may run 8 tasks at once, and its queues have 4 workers")],
            ),
            (1, 4, handler(Some(1), 5), vec![(Note, "4 workers, its handlers together may run 1")]),
            (1, 4, elsewhere, vec![(Warning, "no handler takes tasks from it")]),
            (1, 4, handler(None, 60), vec![(Note, "its tasks may run 1m, a stop waits 30s")]),
            (
                1,
                4,
                handler(None, 1900),
                vec![(Warning, "broker's consumer_timeout is 30m"), (Note, "a stop waits 30s")],
            ),
            (
                10,
                4,
                handler(None, 61),
                vec![(Note, "a stop waits 30s"), (Note, "up to 36 tasks wait here behind long ones")],
            ),
        ];
        for (prefetch, workers, handler, expected) in table {
            let config = config(Queue { prefetch, workers, ..Queue::new("tasks") });
            let findings = check(&config, &[handler], None);
            assert_eq!(findings.len(), expected.len(), "{findings:#?}");
            for (finding, (severity, part)) in findings.iter().zip(expected) {
                assert!(finding.severity == severity && finding.what.contains(part), "{part}: {finding:?}");
            }
        }
    }

    #[test]
    fn a_unit_that_gives_a_drain_too_little_time_is_named() {
        let unit = |kind: &str, kill_mode: &str, seconds: Option<u64>| Unit {
            name: "warrend.service".into(),
            kind: kind.into(),
            notify_access: if kind == "notify" { "main".into() } else { "none".into() },
            kill_mode: kill_mode.into(),
            timeout_stop: seconds.map(Duration::from_secs),
            ..Unit::default()
        };
        let table = [
            (unit("notify", "mixed", Some(10)), None),
            (unit("simple", "mixed", None), None),
            (unit("simple", "mixed", Some(60)), None),
            (unit("simple", "mixed", Some(35)), Some("TimeoutStopSec is 35s, a drain may take 40s")),
            (unit("notify", "control-group", None), Some("KillMode=control-group")),
        ];
        for (unit, expected) in table {
            let found = service(&config(Queue::new("tasks")), &[handler(None, 5)], &unit);
            match (&found, expected) {
                (None, None) => {}
                (Some(finding), Some(part)) => assert!(finding.what.contains(part), "{finding:?}"),
                other => panic!("{unit:?}: {other:?}"),
            }
        }
    }
}
