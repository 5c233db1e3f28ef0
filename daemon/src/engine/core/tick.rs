//! What only the clock decides: time limits, recalls, idle workers, retired pools.

use crate::host::HostId;
use crate::model::CancelCause;

use super::pools::LONG;
use super::scheduler::FlowKey;
use super::{Action, Core, Turn};

impl Core {
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        self.expire_detached(turn);
        self.expire_drain(turn);
        self.give_back_old(turn);
        self.thin_out(turn);
        self.look_for_stuck(turn);
        self.enforce_time_limits(turn);
        for host in self.pools.leave_idle(turn.now.instant) {
            turn.act(Action::QuitHost(host));
        }
        self.close_pools();
    }

    /// Stops what runs over its time limit, kills what does not stop, and asks back what waits behind a long task.
    fn enforce_time_limits(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let mut killed: Vec<HostId> = Vec::new();
        for (host, worker, pool) in self.pools.workers_mut() {
            let Some(head) = worker.head() else { continue };
            let running = now.saturating_duration_since(worker.head_since);
            if let (Some((was, is)), Some(queue)) = (worker.recharge(running), worker.queue()) {
                let fair = self.in_flight[head.entry].task(head.entry).keys.fair;
                self.scheduler.correct(FlowKey { handler: pool.handler, queue }, fair, was, is);
            }
            if let Some(since) = worker.cancelled_at {
                if now >= since + pool.generation.limits.grace && !worker.killed {
                    worker.killed = true;
                    killed.push(host);
                    turn.act(Action::KillHost(host));
                }
            } else if running >= pool.generation.timeout {
                worker.cancel_head(now);
                turn.act(Action::CancelTask { host, seq: head.seq });
                self.in_flight[head.entry].cancel(CancelCause::Timeout);
            }
            if running >= LONG {
                for seq in worker.recall_queued() {
                    turn.act(Action::RecallTask { host, seq });
                }
            }
        }
        for host in killed {
            self.pools.leave(host);
        }
    }

    /// Retired pools go when their last task has left.
    fn close_pools(&mut self) {
        let in_flight = &self.in_flight;
        let closed =
            self.pools.close_unused(|pool| in_flight.iter().any(|(_, entry)| entry.pool() == Some(pool)));
        for handler in closed {
            if self.handlers.close(handler) {
                self.scheduler.forget(handler);
            }
        }
    }
}
