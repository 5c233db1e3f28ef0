//! Waiting tasks go to hosts, as far as workers reach.

use crate::model::{DeadReason, TaskError};

use crate::host::{Host, HostId, HostTask};
use crate::settlement::{MAX_REDELIVERIES, Settlement};
use crate::task::Headers;

use super::Engine;
use super::drain::Phase;
use super::flight::{FlightKey, State, Verdict};
use super::lane::{LONG, Lane, LaneKey, Place};
use super::queues::QueueKey;

impl Engine {
    /// Gives every waiting task that can run to a host.
    pub(super) fn dispatch(&mut self) {
        self.release_held_back();
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let lanes: Vec<LaneKey> =
            self.lanes.all.iter().filter(|(_, lane)| lane.waiting_total() > 0).map(|(key, _)| *key).collect();
        for lane in lanes {
            for queue in 0..self.queues.len() {
                // What waits in a paused queue goes back as soon as its consumer has ended.
                if !self.queues[queue].paused {
                    self.dispatch_queue(lane, queue);
                }
            }
        }
    }

    fn dispatch_queue(&mut self, lane: LaneKey, queue: QueueKey) {
        while self.lanes.all[&lane].waiting.get(queue).is_some_and(|waiting| !waiting.is_empty()) {
            let state = &self.queues[queue];
            let free = usize::from(state.config.workers).saturating_sub(state.busy_hosts);
            match self.lanes.place(lane, queue, free, self.now) {
                Place::Host(host) => {
                    let Some(lane) = self.lanes.all.get_mut(&lane) else { return };
                    let Some(key) = lane.waiting[queue].pop_front() else { return };
                    if !self.recount(key) {
                        self.send(host, queue, key);
                    }
                }
                Place::Start => self.start_host(lane),
                Place::None => return,
            }
        }
    }

    /// A task that was delivered before, which nothing explains that this daemon lived through, may be what ended the
    /// daemon that had it; only `redelivered` tells on a queue that does not count. Immediately before it starts, it is
    /// copied with its own count, so that tasks that merely waited beside it never pay. True: it does not start now.
    fn recount(&mut self, key: FlightKey) -> bool {
        let flight = &self.flights[key];
        if !flight.suspect {
            return false;
        }
        let starts = flight.redeliveries.saturating_add(1);
        if starts > MAX_REDELIVERIES {
            let flight = self.flights.remove(key);
            let message = format!(
                "{starts} of its starts were cut short by the end of the daemon that had it: most likely it is the \
                 cause; see the system's log for what ended warrend"
            );
            self.bury_unrun(flight, DeadReason::Poison, message);
            return true;
        }
        self.log.recounted(self.task_ref(key), starts);
        let verdict =
            Verdict { settlement: Settlement::Recount, error: TaskError::default(), follow_ups: Vec::new() };
        self.carry_out(key, verdict);
        true
    }

    /// Writes a task to a host. An idle one becomes busy, on this queue's account.
    fn send(&mut self, id: HostId, queue: QueueKey, key: FlightKey) {
        let Some(slot) = self.lanes.hosts.get_mut(&id) else {
            unreachable!("place() names hosts that exist");
        };
        let Some(lane) = self.lanes.all.get_mut(&slot.lane) else {
            unreachable!("a lane outlives its hosts");
        };
        if slot.sent.is_empty() {
            lane.idle.retain(|idle| *idle != id);
            lane.busy.push(id);
            slot.queue = Some(queue);
            self.queues[queue].busy_hosts += 1;
        }
        let seq = slot.push(key, self.now);
        let flight = &mut self.flights[key];
        self.queues[queue].waits.observe(self.now.saturating_duration_since(flight.arrived));
        flight.state = State::Sent;
        let properties = &flight.delivery.properties;
        slot.host.send(&HostTask {
            seq,
            attempt: flight.attempt,
            redelivered: flight.delivery.redelivered || flight.redeliveries > 0,
            id_generated: flight.id.generated,
            id: &flight.id.text,
            queue: &self.queues[queue].config.name,
            prefix: &flight.prefix,
            argument: flight.argument(),
            content_type: properties.content_type().as_ref().map_or("", |text| text.as_str()),
            headers: &Headers::of(properties.headers().as_ref()).fields,
            body: &flight.delivery.body,
            timeout: lane.generation.timeout,
            wants_result: flight.wants_reply(),
        });
        self.log.started(self.task_ref(key));
    }

    fn start_host(&mut self, key: LaneKey) {
        let id = self.lanes.next_host_id();
        let generation = &self.lanes.all[&key].generation;
        let spec = generation.host_spec(self.config.plugins.probe_timeout);
        let host = Host::start(id, &spec, &self.spawner, self.event_sink());
        self.lanes.add_host(host, id, key, self.now);
    }

    /// Time limits, recalls, idle hosts, retired lanes: everything that the clock decides.
    pub(super) fn on_tick(&mut self) {
        self.expire_orphans();
        self.expire_drain();
        self.give_back_old();
        self.thin_out();
        self.look_for_stuck();
        let now = self.now;
        for (id, slot) in &mut self.lanes.hosts {
            let Some(lane) = self.lanes.all.get_mut(&slot.lane) else { continue };
            let limits = &lane.generation.limits;
            let Some(head) = slot.sent.front().copied() else {
                if slot.ready
                    && !slot.leaving
                    && (lane.retired || now >= slot.idle_since + limits.idle_timeout)
                {
                    slot.leaving = true;
                    lane.idle.retain(|idle| idle != id);
                    slot.host.quit();
                }
                continue;
            };
            let running = now.saturating_duration_since(slot.head_since);
            if let Some(since) = slot.cancelled_at {
                if now >= since + limits.grace && !slot.killed {
                    slot.leaving = true;
                    slot.killed = true;
                    slot.host.kill();
                }
            } else if running >= lane.generation.timeout {
                slot.cancelled_at = Some(now);
                slot.host.cancel(head.seq);
                self.flights[head.flight].cancelled.get_or_insert(crate::model::CancelCause::Timeout);
            }
            if running >= LONG {
                for queued in slot.sent.iter_mut().skip(1).filter(|queued| !queued.recalled) {
                    queued.recalled = true;
                    slot.host.recall(queued.seq);
                }
            }
        }
        self.lanes.all.retain(|key, lane: &mut Lane| {
            let done = lane.retired && lane.is_empty() && lane.idle.is_empty();
            let used = || self.flights.iter().any(|(_, flight)| flight.lane == *key);
            !done || used()
        });
    }
}
