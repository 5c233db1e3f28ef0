//! Handlers and queues that are given no tasks for a while. AMQP cannot hold back one handler's tasks in a shared
//! queue, so they are parked: a confirmed copy to a delay queue, the attempt unchanged, then the acknowledgement.

use std::time::Duration;

use crate::engine::PauseTarget;
use crate::model::status::{HandlerState, PauseReply};
use crate::settlement::Settlement;

use super::entry::Decision;
use super::handler_health::Pause;
use super::keys::{EntryKey, HandlerKey, QueueKey};
use super::scheduler::{FlowKey, Waiter};
use super::{Action, Core, Now, Turn};

/// The longest time of one park. After `handler resume` a parked task is back within it; while the handler is paused, each
/// task costs one copy in this time.
const PARK: Duration = Duration::from_secs(30);

/// How long a task is parked whose handler is at its limit, and whose waiting tasks fill half of the window.
const CROWD: Duration = Duration::from_secs(5);

/// How often deliveries are looked through for those that have waited too long: each look is at all of them.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Core {
    /// Pauses a queue or a handler, or lets it go on. An error is a sentence for the operator.
    pub(crate) fn set_paused(
        &mut self,
        what: &PauseTarget,
        paused: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<PauseReply, String> {
        let turn = &mut Turn { now, actions };
        match what {
            PauseTarget::Queue(name) => self.set_queue_paused(name, paused, turn),
            PauseTarget::Handler(name) => self.set_handler_paused(name, paused, turn),
        }
    }

    /// What keeps a handler from being given tasks.
    pub(super) fn pause_of(&self, handler: HandlerKey, turn: &Turn<'_>) -> Option<Pause> {
        self.handlers[handler].health.pause_at(turn.now.instant)
    }

    /// Parks a task whose handler is known and given no tasks now.
    pub(super) fn park(&mut self, key: EntryKey, why: &str, left: Option<Duration>, turn: &mut Turn<'_>) {
        let delay = left.map_or(PARK, |left| left.min(PARK));
        self.log.parked(self.task_ref(key), delay, why);
        self.carry_out(key, Decision::of(Settlement::Park { delay }), turn);
    }

    /// Where half the window of a queue waits for handlers at their own limit, parks the newest of those tasks: the
    /// other half is for tasks that can run.
    pub(super) fn thin_out(&mut self, turn: &mut Turn<'_>) {
        for queue in 0..self.queues.len() {
            let config = &self.queues[queue].config;
            let (window, workers) = (usize::from(config.window()), usize::from(config.workers));
            let is_at_limit = |flow: &FlowKey| {
                let on_trial = self.handlers[flow.handler].health.is_on_trial();
                let Some(key) = self.scheduler.pool(*flow) else { return false };
                let pool = self.pools.get(key);
                pool.is_some_and(|pool| pool.is_at_own_limit(workers, on_trial))
                    || self.is_over_rate(*flow, key, turn.now.instant)
            };
            let flows: Vec<FlowKey> = self.scheduler.flows_of(queue).filter(is_at_limit).collect();
            let waiting: usize = flows.iter().map(|flow| self.scheduler.waiting(*flow)).sum();
            let waiting = waiting + self.scheduler.held_in(queue);
            let mut excess = waiting.saturating_sub((window / 2).max(1));
            excess -= self.park_held(queue, excess, window, turn);
            for flow in flows {
                while excess > 0
                    && let Some(pool) = self.scheduler.pool(flow).and_then(|pool| self.pools.get_mut(pool))
                    && pool.may_park(window, turn.now.instant)
                    && let Some(newest) = self.scheduler.remove_newest(flow)
                {
                    self.park(
                        newest,
                        "its handler is at its limit, others need the window",
                        Some(CROWD),
                        turn,
                    );
                    excess -= 1;
                }
            }
        }
    }

    /// Parks at most so many of the newest tasks of a queue that are held for another one of their key; returns how many.
    fn park_held(&mut self, queue: QueueKey, most: usize, window: usize, turn: &mut Turn<'_>) -> usize {
        let mut parked = 0;
        while parked < most
            && let Some(Waiter { flow, pool, task }) = self.scheduler.newest_held(queue)
            && let Some(pool) = self.pools.get_mut(pool)
            && pool.may_park(window, turn.now.instant)
        {
            self.scheduler.remove(flow, task);
            self.park(task.entry, "another task of its key runs, others need the window", Some(CROWD), turn);
            parked += 1;
        }
        parked
    }

    /// A handler is given no tasks from now on: what waits for it is parked.
    pub(super) fn park_waiting(&mut self, handler: HandlerKey, turn: &mut Turn<'_>) {
        let Some(pause) = self.pause_of(handler, turn) else { return };
        let name = &self.handlers[handler].name;
        let left = pause.left.map(|left| format!("{left:.0?}"));
        tracing::warn!(handler = %name, state = %pause.state, why = %pause.why, left, "handler held; its tasks are parked");
        let message = format!("{}: {}", pause.state, pause.why);
        self.errors.add(turn.now.unix, Some(name), None, &message);
        for key in self.scheduler.remove_all_of(handler) {
            self.park(key, &pause.why, pause.left, turn);
        }
    }

    fn set_handler_paused(
        &mut self,
        name: &str,
        paused: bool,
        turn: &mut Turn<'_>,
    ) -> Result<PauseReply, String> {
        let handler = self.handlers.named(name);
        let active =
            handler.and_then(|handler| self.pools.of_handler(handler).find(|(_, pool)| !pool.retired));
        let Some((key, handler)) = active.map(|(key, pool)| (key, pool.handler)) else {
            let names: Vec<&str> = self.registry.slots.iter().map(|slot| &**slot.handler()).collect();
            return Err(format!("no handler `{name}` runs here; there are: {}", names.join(", ")));
        };
        if paused {
            self.handlers[handler].health.pause();
            self.park_waiting(handler, turn);
        } else {
            tracing::info!(handler = name, "handler resumed by an operator");
            self.handlers[handler].health.resume();
            if let Some(pool) = self.pools.get_mut(key) {
                pool.started();
                pool.proved();
            }
        }
        let state = self.pause_of(handler, turn).map_or(HandlerState::Active, |pause| pause.state);
        Ok(PauseReply { name: name.to_owned(), state: state.to_string() })
    }

    /// An operator pauses a queue (its consumer is cancelled, what waits goes back, what runs finishes) or lets it go
    /// on.
    fn set_queue_paused(
        &mut self,
        name: &str,
        paused: bool,
        turn: &mut Turn<'_>,
    ) -> Result<PauseReply, String> {
        let Some(key) = self.queues.named(name) else {
            let names: Vec<&str> = self.config.queues.iter().map(|queue| &*queue.name).collect();
            return Err(format!("no queue `{name}` is consumed here; there are: {}", names.join(", ")));
        };
        if self.queues[key].paused != paused {
            tracing::info!(queue = name, paused, "queue paused or resumed by an operator");
            self.queues[key].paused = paused;
            self.consume(turn);
        }
        let state = if paused { "paused" } else { "resuming" };
        Ok(PauseReply { name: name.to_owned(), state: state.to_owned() })
    }

    /// No delivery follows on a queue's subscription. If that is for a pause, what waits goes back: given back any
    /// earlier, it would have been delivered here again.
    pub(super) fn on_stopped(&mut self, queue: Option<QueueKey>, turn: &mut Turn<'_>) {
        let Some(queue) = queue.filter(|queue| self.queues[*queue].paused) else { return };
        for key in self.in_flight.keys_where(|entry| entry.queue == queue && entry.is_waiting()) {
            self.give_back(key, turn);
        }
    }

    /// Gives back what has waited here for half of the broker's `consumer_timeout`: the broker counts from delivery,
    /// and would take the whole channel away. It comes back at once, with a new count.
    pub(super) fn give_back_old(&mut self, turn: &mut Turn<'_>) {
        let (now, limit) = (turn.now.instant, self.config.broker.consumer_timeout / 2);
        if limit.is_zero() || now < self.last.look_for_old + LOOK_EVERY {
            return;
        }
        self.last.look_for_old = now;
        let old = self.in_flight.keys_where(|entry| entry.is_waiting() && now >= entry.arrived + limit);
        if !old.is_empty() {
            tracing::info!(tasks = old.len(), "given back: they waited for half of broker.consumer_timeout");
        }
        for key in old {
            self.give_back(key, turn);
        }
    }

    /// Hands a waiting task back to the broker, un-counted.
    pub(super) fn give_back(&mut self, key: EntryKey, turn: &mut Turn<'_>) {
        self.unschedule(key);
        let entry = &self.in_flight[key];
        self.losses.unstarted(entry.queue, &entry.delivery);
        self.carry_out(key, Decision::of(Settlement::Requeue), turn);
    }
}
