//! How handlers share workers: keys that have no effect as the rest stands, and waits that follow from them.

use std::time::Duration;

use warren::config::{Config, Queue};
use warren::plugin::WantedHandler;

use super::super::finding::{Area, Finding, Severity};
use super::handlers::takes;
use crate::output::span;

pub(super) fn check(config: &Config, handlers: &[WantedHandler]) -> Vec<Finding> {
    let runs = |handler: &&WantedHandler| !handler.prefixes.is_empty();
    let mut findings = Vec::new();
    for handler in handlers.iter().filter(runs) {
        findings.extend(weight(config, handler, handlers));
        findings.extend(fair_by(config, handler));
        findings.extend(exclusive_by(handler));
        findings.extend(rate(config, handler));
    }
    findings.extend(idle_hosts(config));
    findings
}

fn note(about: &str, what: String, remedy: &str) -> Finding {
    Finding::new(Severity::Note, Area::Handlers, about, what, remedy)
}

fn queues<'a>(config: &'a Config, handler: &'a WantedHandler) -> impl Iterator<Item = &'a Queue> {
    config.queues.iter().filter(|queue| takes(handler, queue))
}

fn weight(config: &Config, handler: &WantedHandler, handlers: &[WantedHandler]) -> Option<Finding> {
    let is_other = |other: &&WantedHandler| other.name != handler.name;
    let is_alone = |queue: &Queue| !handlers.iter().filter(is_other).any(|other| takes(other, queue));
    (handler.limits.weight != 1 && queues(config, handler).all(is_alone)).then(|| {
        let what = format!(
            "weight = {} has no effect: no other handler takes tasks of its queues",
            handler.limits.weight
        );
        note(&handler.name, what, "leave `weight` out, or let the handlers share a queue")
    })
}

/// Only what is in the window can be shared.
fn fair_by(config: &Config, handler: &WantedHandler) -> Option<Finding> {
    let by = handler.limits.fair_by.as_ref()?;
    let narrow = queues(config, handler).find(|queue| queue.prefetch == 1)?;
    let what = format!(
        "fair_by = \"{by}\" shares what is in the window, and that of queue {} holds {} tasks (prefetch is 1)",
        narrow.name,
        narrow.window()
    );
    Some(note(
        &handler.name,
        what,
        "raise `prefetch` of the queue until the window holds tasks of several keys",
    ))
}

fn exclusive_by(handler: &WantedHandler) -> Option<Finding> {
    let by = handler.limits.exclusive_by.as_ref()?;
    (handler.limits.workers == Some(1)).then(|| {
        let what = format!(
            "exclusive_by = \"{by}\" has no effect: with workers = 1 no two of its tasks run at once"
        );
        note(&handler.name, what, "leave one of them out")
    })
}

/// What is over the rate waits in half of the window, and goes back after half of the broker's `consumer_timeout`.
fn rate(config: &Config, handler: &WantedHandler) -> Option<Finding> {
    let rate = handler.limits.rate?;
    let limit = config.broker.consumer_timeout / 2;
    let waits = |queue: &Queue| rate.unit / rate.tasks * u32::from(queue.window()).div_ceil(2);
    let (queue, wait) =
        queues(config, handler).map(|queue| (queue, waits(queue))).max_by_key(|(_, wait)| *wait)?;
    (limit > Duration::ZERO && wait > limit).then(|| {
        let what = format!(
            "at {rate} half a window of queue {} takes {}: tasks wait there for {} and go back to the queue",
            queue.name,
            span(wait),
            span(limit)
        );
        note(
            &handler.name,
            what,
            "nothing is lost; a smaller `prefetch`, or a queue of its own, spares the detour",
        )
    })
}

fn idle_hosts(config: &Config) -> Option<Finding> {
    let allowed = u32::from(config.plugins.max_idle_hosts);
    let workers: u32 = config.queues.iter().map(|queue| u32::from(queue.workers)).sum();
    (allowed < workers).then(|| {
        let what = format!("max_idle_hosts is {allowed}, the queues have {workers} workers: hosts end between tasks and start again");
        note("plugins", what, "raise `plugins.max_idle_hosts`, unless memory is short")
    })
}

#[cfg(test)]
mod tests {
    use warren::config::{Limits, Plugins, Rate, TaskKey};

    use super::super::handlers::tests::{config, handler};
    use super::*;

    #[test]
    fn a_key_without_an_effect_or_with_a_long_wait_is_named() {
        let with = |limits: Limits| WantedHandler { limits, ..handler(None, 5) };
        let tenant = Some(TaskKey::Header("tenant".into()));
        let rate = |tasks| Some(Rate { tasks, unit: Duration::from_secs(3600), burst: 1 });
        // The handler, prefetch, idle hosts, what is found.
        let table = [
            (with(Limits::default()), 1, 64, None),
            (with(Limits { weight: 3, ..Limits::default() }), 1, 64, Some("weight = 3 has no effect")),
            (
                with(Limits { fair_by: tenant.clone(), ..Limits::default() }),
                1,
                64,
                Some("of queue tasks holds 4 tasks"),
            ),
            (with(Limits { fair_by: tenant.clone(), ..Limits::default() }), 20, 64, None),
            (
                with(Limits { exclusive_by: tenant.clone(), workers: Some(1), ..Limits::default() }),
                20,
                64,
                Some("exclusive_by = \"header:tenant\" has no effect"),
            ),
            (with(Limits { exclusive_by: tenant, ..Limits::default() }), 20, 64, None),
            (
                with(Limits { rate: rate(1), ..Limits::default() }),
                1,
                64,
                Some("at 1/h half a window of queue tasks takes 2h"),
            ),
            (with(Limits { rate: rate(1000), ..Limits::default() }), 1, 64, None),
            (with(Limits::default()), 1, 3, Some("max_idle_hosts is 3, the queues have 4 workers")),
        ];
        for (handler, prefetch, max_idle_hosts, expected) in table {
            let mut config = config(Queue { prefetch, workers: 4, ..Queue::new("tasks") });
            config.plugins = Plugins { max_idle_hosts, ..Plugins::default() };
            let findings = check(&config, std::slice::from_ref(&handler));
            match (&findings[..], expected) {
                ([], None) => {}
                ([finding], Some(part)) => assert!(finding.what.contains(part), "{finding:?}"),
                other => panic!("{handler:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_weight_beside_another_handler_of_the_queue_has_an_effect() {
        let config = config(Queue::new("tasks"));
        let heavy = WantedHandler { limits: Limits { weight: 3, ..Limits::default() }, ..handler(None, 5) };
        let other = WantedHandler { name: "other".into(), ..handler(None, 5) };
        assert_eq!(check(&config, &[heavy, other]).len(), 0);
    }
}
