//! What the engine shows without being asked: whether it is ready, and one line for the service manager.

use std::time::Duration;

use crate::engine::Health;

use crate::model::status::BrokerState;

use super::queues::ConsumedQueue;
use super::{Action, Core, Turn};

/// How often the status line may change. Readiness is shown at once.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// What the status line says of a broker that takes no messages at the moment.
const BLOCKED: &str =
    ", retries and dead letters wait (the broker blocks publishing: short of memory or disk)";

impl Core {
    /// Shows readiness at once and the line now and then.
    pub(super) fn show(&mut self, turn: &mut Turn<'_>) {
        let publishing = matches!(self.broker.state, BrokerState::Connected | BrokerState::Blocked);
        let ready = self.is_running() && self.queues.all_consuming() && publishing;
        if ready == self.shown_ready && turn.now.instant < self.last.shown + LINE_EVERY {
            return;
        }
        self.last.shown = turn.now.instant;
        self.shown_ready = ready;
        let running = self.pools.running();
        let rest = self.in_flight.len() - running;
        let (line, unready) = if !self.is_running() {
            (format!("draining: {running} running, {rest} to settle"), "draining".to_owned())
        } else if ready {
            let but = if self.broker.state == BrokerState::Blocked { BLOCKED } else { "" };
            let and = self.machine_fault.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
            (format!("consuming{but}{and}: {running} running, {rest} waiting"), String::new())
        } else {
            let unready = self.queues.unready().unwrap_or_else(|| "nothing can be published".to_owned());
            (format!("{}: {running} running", self.why_unready(publishing)), unready)
        };
        turn.act(Action::Show(Health { ready, unready, line, ended: false, running }));
    }

    /// The first reason found. Without a publishing connection no queue counts as stuck: the connection is the reason.
    fn why_unready(&self, publishing: bool) -> String {
        let why = self.broker.last_error.as_deref().unwrap_or("connecting");
        if let Some(quarantine) = self.queues.iter().find_map(|queue| queue.quarantine.as_deref()) {
            return quarantine.to_owned();
        }
        if self.queues.iter().any(ConsumedQueue::is_missing) {
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
