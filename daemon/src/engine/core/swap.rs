//! A new configuration and a new registry take over: pools of new generations open, those of replaced ones finish what they
//! started.

use std::sync::Arc;

use crate::config::Config;
use crate::registry::{Generation, Registry, Slot};

use super::keys::{EntryKey, PoolKey};
use super::{Action, Core, Now, Turn};

impl Core {
    /// Puts a reload in force.
    pub(crate) fn swap(
        &mut self,
        config: Arc<Config>,
        registry: Registry,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let turn = &mut Turn { now, actions };
        self.swap_config(config, turn);
        turn.act(Action::RetryQuarantined);
        self.swap_registry(registry, turn);
    }

    /// The link subscribes anew to what changed; running tasks go on.
    fn swap_config(&mut self, config: Arc<Config>, turn: &mut Turn<'_>) {
        let is_changed = config.broker != self.config.broker || config.queues != self.config.queues;
        self.config = config;
        if is_changed {
            self.queues.configure(&self.config.queues, turn.now.instant);
            self.consume(turn);
        }
        turn.act(Action::SetMaxTaskBytes(self.config.daemon.max_task_bytes));
        self.configure_dedup(turn);
    }

    /// Subscribes to the queues that are consumed now. A drain consumes nothing: what an operator changes meanwhile does
    /// not begin it anew.
    pub(super) fn consume(&mut self, turn: &mut Turn<'_>) {
        if self.is_running() {
            turn.act(Action::Consume { config: self.config.clone(), queues: self.queues.wanted() });
        }
    }

    /// Swaps the routing table at once. Generations that stay keep their pools, workers and waiting tasks.
    pub(super) fn swap_registry(&mut self, registry: Registry, turn: &mut Turn<'_>) {
        self.registry = registry;
        let generations: Vec<Arc<Generation>> =
            self.registry.slots.iter().filter_map(Slot::active).cloned().collect();
        let mut active: Vec<PoolKey> = generations.iter().map(|generation| generation.number).collect();
        active.sort_unstable();
        for generation in generations {
            if self.pools.get(generation.number).is_none() {
                let handler = self.handlers.open(&generation.handler);
                self.handlers[handler].health.replaced();
                self.scheduler.set_weight(handler, generation.limits.weight);
                self.pools.open(generation, handler, turn.now.instant);
            }
        }
        let is_replaced = |key: &PoolKey| active.binary_search(key).is_err();
        let open = self.pools.iter().filter(|(_, pool)| !pool.retired).map(|(key, _)| key);
        let mut homeless: Vec<EntryKey> = Vec::new();
        for key in open.filter(is_replaced).collect::<Vec<_>>() {
            if let Some(pool) = self.pools.get(key) {
                homeless.extend(self.scheduler.remove_all_of(pool.handler));
            }
            for host in self.pools.retire(key) {
                turn.act(Action::QuitHost(host));
            }
        }
        for key in homeless {
            self.reroute(key, turn);
        }
    }
}
