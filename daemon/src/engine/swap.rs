//! A new registry takes over: lanes of new generations open, those of replaced ones finish what they started.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::registry::{Generation, Registry, Slot};

use super::Engine;
use super::flight::FlightKey;
use super::lane::{Lane, Totals};

impl Engine {
    /// Swaps the routing table at once. Generations that stay keep their lanes, hosts and waiting tasks.
    pub(super) fn adopt_registry(&mut self, registry: Registry) {
        self.registry = registry;
        let generations: Vec<Arc<Generation>> = self
            .registry
            .slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Active(generation) => Some(generation.clone()),
                Slot::Absent(_) => None,
            })
            .collect();
        for generation in &generations {
            let (totals, now) = (self.totals_of(&generation.handler), self.now);
            self.lanes.all.entry(generation.number).or_insert_with(|| {
                totals.borrow_mut().standing.replaced();
                Lane::new(generation.clone(), totals, now)
            });
        }
        let mut homeless: Vec<FlightKey> = Vec::new();
        for (key, lane) in &mut self.lanes.all {
            if generations.iter().any(|generation| generation.number == *key) || lane.retired {
                continue;
            }
            lane.retired = true;
            homeless.extend(lane.waiting.iter_mut().flat_map(std::mem::take));
            for id in lane.idle.drain(..) {
                if let Some(slot) = self.lanes.hosts.get_mut(&id) {
                    slot.leaving = true;
                    slot.host.quit();
                }
            }
        }
        for key in homeless {
            self.reroute(key);
        }
    }

    /// A handler's totals live on over its generations.
    fn totals_of(&self, handler: &str) -> Rc<RefCell<Totals>> {
        let same = self.lanes.all.values().find(|lane| &*lane.generation.handler == handler);
        same.map_or_else(Rc::default, |lane| lane.totals.clone())
    }
}
