//! What the engine shows of itself: status, running tasks, routes, health.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::status::{ActiveTask, Deduplication, HandlerStatus, QueueStatus, RouteReply, Unsettled};
use crate::registry::{Generation, Slot};

use super::drain::Phase;
use super::flight::State;
use super::lane::Lane;
use super::{Engine, EngineStatus, Health};

/// How often the status line may change. Readiness is shown at once.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// State of the broker's link while tasks are consumed and nothing can be published.
pub(super) const NOT_PUBLISHING: &str = "not publishing";
/// What the status line says of a broker that takes no messages at the moment.
const BLOCKED: &str =
    ", retries and dead letters wait (the broker blocks publishing: short of memory or disk)";

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Engine {
    pub(super) fn status(&self) -> EngineStatus {
        EngineStatus {
            broker: self.broker.clone(),
            queues: self.queue_status(),
            handlers: self.registry.slots.iter().map(|slot| self.handler_status(slot)).collect(),
            last_errors: self.errors.iter().cloned().collect(),
            machine_fault: self.machine_fault.clone(),
        }
    }

    fn queue_status(&self) -> Vec<QueueStatus> {
        let draining = !matches!(self.phase, Phase::Running);
        let mut rows: Vec<QueueStatus> = self
            .queues
            .iter()
            .enumerate()
            .map(|(key, queue)| {
                let state = match (draining, queue.consumer) {
                    (true, _) => "draining",
                    (false, _) if queue.paused => "paused",
                    (false, Some(_)) if queue.is_stuck() => "stuck",
                    (false, Some(_)) => "consuming",
                    (false, None) if queue.quarantine.is_some() => "quarantined",
                    (false, None) => "away",
                };
                QueueStatus {
                    name: queue.config.name.to_string(),
                    state: state.to_owned(),
                    held: queue.quarantine.clone().filter(|_| state == "quarantined"),
                    prefetch: queue.config.prefetch,
                    workers: queue.config.workers,
                    unsettled: (queue.stuck.tasks > 0).then(|| Unsettled {
                        tasks: queue.stuck.tasks as u64,
                        why: queue.stuck.why.clone().unwrap_or_default(),
                    }),
                    delays: self.odd(key).map(str::to_owned),
                    counts: queue.counts,
                    waits: queue.waits,
                    deduplication: self.dedup.shown(&queue.config.name).map(|shown| Deduplication {
                        window_ms: shown.length.as_millis() as u64,
                        tasks: shown.tasks as u64,
                        fault: shown.fault,
                    }),
                    ..QueueStatus::default()
                }
            })
            .collect();
        for (_, flight) in &self.flights {
            let row = &mut rows[flight.queue];
            match flight.state {
                State::Waiting => row.waiting += 1,
                State::Sent => row.running += 1,
                State::Settling | State::Finished(_) | State::Copied => row.settling += 1,
            }
        }
        let configured: Vec<bool> = self.queues.iter().map(|queue| queue.configured).collect();
        rows.into_iter().zip(configured).filter(|(_, configured)| *configured).map(|(row, _)| row).collect()
    }

    fn handler_status(&self, slot: &Slot) -> HandlerStatus {
        match slot {
            Slot::Absent(absent) => HandlerStatus {
                name: absent.handler.to_string(),
                plugin: absent.plugin.clone(),
                state: "failing".to_owned(),
                prefixes: absent.prefixes.iter().map(ToString::to_string).collect(),
                last_error: Some(absent.why.clone()),
                ..HandlerStatus::default()
            },
            Slot::Active(generation) => self.active_handler_status(generation),
        }
    }

    fn active_handler_status(&self, generation: &Generation) -> HandlerStatus {
        let same = |lane: &&Lane| lane.generation.handler == generation.handler;
        let lanes: Vec<&Lane> = self.lanes.all.values().filter(same).collect();
        let numbers: Vec<u64> = lanes.iter().map(|lane| lane.generation.number).collect();
        let hosts = || self.lanes.hosts.values().filter(|slot| numbers.contains(&slot.lane));
        let failing = lanes.iter().any(|lane| !lane.retired && lane.failing);
        let mut pids: Vec<u32> = hosts().filter_map(|slot| slot.host.pid()).collect();
        pids.sort_unstable();
        let totals = lanes.first().map(|lane| lane.totals.borrow());
        let hold = totals.as_ref().and_then(|totals| totals.standing.hold(self.now));
        let state = match &hold {
            Some(hold) => hold.state,
            None if failing => "failing",
            None => "active",
        };
        HandlerStatus {
            name: generation.handler.to_string(),
            plugin: generation.plugin.manifest.name.clone(),
            plugin_version: generation.plugin.manifest.version.clone(),
            path: generation.plugin.path.display().to_string(),
            sha256: generation.plugin.sha256.clone(),
            generation: generation.number,
            state: state.to_owned(),
            held: hold.as_ref().map(|hold| hold.why.to_string()),
            held_for_ms: hold.and_then(|hold| hold.left).map(|left| left.as_millis() as u64),
            prefixes: generation.prefixes.iter().map(ToString::to_string).collect(),
            queues: generation.queues.clone().unwrap_or_default(),
            workers: generation.limits.workers.unwrap_or(0),
            timeout_ms: generation.timeout.as_millis() as u64,
            running: hosts().map(|slot| slot.sent.len()).sum(),
            waiting: lanes.iter().map(|lane| lane.waiting_total()).sum(),
            hosts: pids,
            counts: totals.as_ref().map(|totals| totals.counts).unwrap_or_default(),
            durations: totals.as_ref().map(|totals| totals.durations).unwrap_or_default(),
            last_error: totals.and_then(|totals| totals.last_error.clone()),
        }
    }

    /// The tasks that run now: the first one of every busy host.
    pub(super) fn active(&self) -> Vec<ActiveTask> {
        let mut rows: Vec<ActiveTask> = self
            .lanes
            .hosts
            .values()
            .filter_map(|slot| {
                let flight = &self.flights[slot.sent.front()?.flight];
                let generation = &self.lanes.all[&slot.lane].generation;
                let (permille, note) = flight.progress.clone().unzip();
                Some(ActiveTask {
                    id: flight.id.text.to_string(),
                    queue: self.queues[flight.queue].config.name.to_string(),
                    handler: generation.handler.to_string(),
                    generation: generation.number,
                    attempt: flight.attempt,
                    text: flight.preview(),
                    running_ms: slot.head_since.elapsed().as_millis() as u64,
                    timeout_ms: generation.timeout.as_millis() as u64,
                    pid: slot.host.pid().unwrap_or(0),
                    permille,
                    note,
                })
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.running_ms));
        rows
    }

    pub(super) fn explain_route(
        &self,
        text: &[u8],
        queue: Option<&str>,
        message_type: Option<&str>,
    ) -> RouteReply {
        let first = self.queues.iter().find(|queue| queue.configured).map(|queue| queue.config.name.clone());
        let queue = queue.map_or_else(|| first.unwrap_or_else(|| "".into()), Into::into);
        self.registry.explain(&queue, message_type, text)
    }

    /// Publishes readiness at once and the line now and then.
    pub(super) fn show_health(&mut self) {
        let publishing = matches!(self.broker.state.as_str(), "connected" | "blocked");
        let ready = matches!(self.phase, Phase::Running) && self.queues.all_consuming() && publishing;
        let before = self.health.borrow().ready;
        if ready == before && self.now < self.health_at + LINE_EVERY {
            return;
        }
        self.health_at = self.now;
        let running = self.running();
        let rest = self.flights.len() - running;
        let line = match (&self.phase, ready) {
            (Phase::Draining(_), _) => format!("draining: {running} running, {rest} to settle"),
            (Phase::Running, true) => {
                let but = if self.broker.state == "blocked" { BLOCKED } else { "" };
                let and = self.machine_fault.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
                format!("consuming{but}{and}: {running} running, {rest} waiting")
            }
            (Phase::Running, false) => format!("{}: {running} running", self.why_unready(publishing)),
        };
        let unready = match &self.phase {
            Phase::Draining(_) => "draining".to_owned(),
            Phase::Running if ready => String::new(),
            Phase::Running => self.queues.unready().unwrap_or_else(|| "nothing can be published".to_owned()),
        };
        let health = Health { ready, unready, line, ended: false, running };
        self.health.send_if_modified(|shown| {
            let changed = *shown != health;
            *shown = health;
            changed
        });
    }

    /// The first reason; what is stuck while nothing can be published is stuck for that.
    fn why_unready(&self, publishing: bool) -> String {
        let why = self.broker.last_error.as_deref().unwrap_or("connecting");
        if let Some(quarantine) = self.queues.iter().find_map(|queue| queue.quarantine.as_deref()) {
            return quarantine.to_owned();
        }
        if self.queues.iter().any(|queue| queue.configured && !queue.paused && queue.consumer.is_none()) {
            return format!("not consuming ({why})");
        }
        match self.queues.first_stuck().filter(|_| publishing) {
            Some(queue) => {
                let why = queue.stuck.why.as_deref().unwrap_or_default();
                format!("queue {} is stuck, its tasks cannot be settled ({why})", queue.config.name)
            }
            None => format!("consuming, but nothing can be published ({why})"),
        }
    }
}
