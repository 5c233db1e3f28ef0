//! What the engine shows when it is asked: status, running tasks, routes.

use std::time::Instant;

use crate::engine::EngineStatus;
use crate::host::HostId;
use crate::model::status::{
    ActiveTask, Deduplication, HandlerState, HandlerStatus, QueueState, QueueStatus, RouteReply, Unsettled,
};
use crate::registry::{Generation, Slot};

use super::Core;
use super::entry::EntryStage;
use super::keys::PoolKey;
use super::pools::{HandlerPool, Worker};

/// The process of a host, which the driver knows.
pub(crate) type PidOf<'a> = &'a dyn Fn(HostId) -> Option<u32>;

impl Core {
    /// The engine's share of `status`. The driver adds why finished tasks are remembered in memory only.
    pub(crate) fn status(&self, now: Instant, pid_of: PidOf<'_>) -> EngineStatus {
        EngineStatus {
            broker: self.broker.clone(),
            queues: self.queue_status(now),
            handlers: self.registry.slots.iter().map(|slot| self.handler_status(slot, now, pid_of)).collect(),
            last_errors: self.errors.all(),
            machine_fault: self.machine_fault.clone(),
        }
    }

    fn queue_status(&self, now: Instant) -> Vec<QueueStatus> {
        let draining = !self.is_running();
        let mut rows: Vec<QueueStatus> = self
            .queues
            .iter()
            .enumerate()
            .map(|(key, queue)| {
                let state = match (draining, queue.consumer) {
                    (true, _) => QueueState::Draining,
                    (false, _) if queue.paused => QueueState::Paused,
                    (false, Some(_)) if queue.is_stuck() => QueueState::Stuck,
                    (false, Some(_)) => QueueState::Consuming,
                    (false, None) if queue.quarantine.is_some() => QueueState::Quarantined,
                    (false, None) => QueueState::Away,
                };
                QueueStatus {
                    name: queue.config.name.to_string(),
                    state,
                    held: queue.quarantine.clone().filter(|_| state == QueueState::Quarantined),
                    prefetch: queue.config.prefetch,
                    workers: queue.config.workers,
                    unsettled: (queue.stuck.tasks > 0).then(|| Unsettled {
                        tasks: queue.stuck.tasks as u64,
                        why: queue.stuck.why.clone().unwrap_or_default(),
                    }),
                    delays: self.odd(key, now).map(str::to_owned),
                    counts: queue.counts,
                    waits: queue.waits,
                    deduplication: self.dedup.shown(&queue.config.name).map(|shown| Deduplication {
                        window_ms: shown.length.as_millis() as u64,
                        tasks: shown.tasks as u64,
                        fault: None,
                    }),
                    ..QueueStatus::default()
                }
            })
            .collect();
        for (_, entry) in self.in_flight.iter() {
            let row = &mut rows[entry.queue];
            match entry.stage {
                EntryStage::Arrived | EntryStage::HeldBack | EntryStage::Waiting => row.waiting += 1,
                EntryStage::Sent(_) => row.running += 1,
                EntryStage::Publishing(_) | EntryStage::Decided(_) | EntryStage::Confirmed => {
                    row.settling += 1;
                }
            }
        }
        let configured: Vec<bool> = self.queues.iter().map(|queue| queue.configured).collect();
        rows.into_iter().zip(configured).filter(|(_, configured)| *configured).map(|(row, _)| row).collect()
    }

    fn handler_status(&self, slot: &Slot, now: Instant, pid_of: PidOf<'_>) -> HandlerStatus {
        match slot {
            Slot::Absent(absent) => HandlerStatus {
                name: absent.handler.to_string(),
                plugin: absent.plugin.clone(),
                state: HandlerState::Failing,
                prefixes: absent.prefixes.iter().map(ToString::to_string).collect(),
                last_error: Some(absent.why.clone()),
                ..HandlerStatus::default()
            },
            Slot::Active(generation) => self.active_handler_status(generation, now, pid_of),
        }
    }

    fn active_handler_status(
        &self,
        generation: &Generation,
        now: Instant,
        pid_of: PidOf<'_>,
    ) -> HandlerStatus {
        let key = self.handlers.named(&generation.handler);
        let pools: Vec<(PoolKey, &HandlerPool)> =
            key.into_iter().flat_map(|handler| self.pools.of_handler(handler)).collect();
        let handler = key.map(|handler| &self.handlers[handler]);
        let workers =
            || self.pools.workers().filter(|(_, worker)| pools.iter().any(|(key, _)| *key == worker.pool));
        let failing = pools.iter().any(|(_, pool)| !pool.retired && pool.failing);
        let mut pids: Vec<u32> = workers().filter_map(|(host, _)| pid_of(host)).collect();
        pids.sort_unstable();
        let pause = handler.and_then(|handler| handler.health.pause_at(now));
        let state = match &pause {
            Some(pause) => pause.state,
            None if failing => HandlerState::Failing,
            None => HandlerState::Active,
        };
        HandlerStatus {
            name: generation.handler.to_string(),
            plugin: generation.plugin.manifest.name.clone(),
            plugin_version: generation.plugin.manifest.version.clone(),
            path: generation.plugin.path.display().to_string(),
            sha256: generation.plugin.sha256.clone(),
            generation: generation.number,
            state,
            held: pause.as_ref().map(|pause| pause.why.to_string()),
            held_for_ms: pause.and_then(|pause| pause.left).map(|left| left.as_millis() as u64),
            prefixes: generation.prefixes.iter().map(ToString::to_string).collect(),
            queues: generation.queues.clone().unwrap_or_default(),
            workers: generation.limits.workers.unwrap_or(0),
            timeout_ms: generation.timeout.as_millis() as u64,
            running: workers().map(|(_, worker)| worker.tasks_in_hand()).sum(),
            waiting: key.map_or(0, |key| self.scheduler.waiting_for(key)),
            weight: generation.limits.weight,
            fair_by: generation.limits.fair_by.as_ref().map(ToString::to_string),
            exclusive_by: generation.limits.exclusive_by.as_ref().map(ToString::to_string),
            rate: generation.limits.rate.map(|rate| (rate.to_string(), rate.burst)),
            hosts: pids,
            counts: handler.map(|handler| handler.counts).unwrap_or_default(),
            durations: handler.map(|handler| handler.durations).unwrap_or_default(),
            last_error: handler.and_then(|handler| handler.last_error.clone()),
        }
    }

    /// The tasks that run now: the first one of every busy worker.
    pub(crate) fn active(&self, now: Instant, pid_of: PidOf<'_>) -> Vec<ActiveTask> {
        let row = |(host, worker): (HostId, &Worker)| {
            let entry = &self.in_flight[worker.head()?.entry];
            let generation = &self.pools.get(worker.pool)?.generation;
            let (permille, note) = entry.sent().and_then(|sent| sent.progress.clone()).unzip();
            Some(ActiveTask {
                id: entry.id.text.to_string(),
                queue: self.queues[entry.queue].config.name.to_string(),
                handler: generation.handler.to_string(),
                generation: generation.number,
                attempt: entry.attempt,
                text: entry.preview(),
                running_ms: now.saturating_duration_since(worker.head_since).as_millis() as u64,
                timeout_ms: generation.timeout.as_millis() as u64,
                pid: pid_of(host).unwrap_or(0),
                permille,
                note,
            })
        };
        let mut rows: Vec<ActiveTask> = self.pools.workers().filter_map(row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.running_ms));
        rows
    }

    /// Where a task would go, and why; `queue`: the first configured one when absent.
    pub(crate) fn explain_route(
        &self,
        text: &[u8],
        queue: Option<&str>,
        message_type: Option<&str>,
        now: Instant,
    ) -> RouteReply {
        let first = self.queues.iter().find(|queue| queue.configured).map(|queue| queue.config.name.clone());
        let queue = queue.map_or_else(|| first.unwrap_or_else(|| "".into()), Into::into);
        self.registry.explain(&queue, message_type, text, now)
    }
}
