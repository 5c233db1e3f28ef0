//! What is known of each handler over all its generations: counts, run times, its last error, its health.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use slab::Slab;

use crate::model::status::{Counts, Histogram};

use super::handler_health::HandlerHealth;
use super::keys::HandlerKey;
use super::rate::Bucket;

/// One handler.
#[derive(Debug)]
pub(super) struct HandlerRecord {
    pub(super) name: Arc<str>,
    pub(super) counts: Counts,
    pub(super) durations: Histogram,
    pub(super) last_error: Option<String>,
    pub(super) health: HandlerHealth,
    pub(super) bucket: Bucket,
    /// Pools of its generations that are there.
    pools: usize,
}

/// Every handler with a pool.
#[derive(Debug, Default)]
pub(super) struct Handlers {
    all: Slab<HandlerRecord>,
    by_name: HashMap<Arc<str>, HandlerKey>,
}

impl Handlers {
    /// A pool of this handler opens.
    pub(super) fn open(&mut self, name: &Arc<str>) -> HandlerKey {
        let all = &mut self.all;
        let key = *self.by_name.entry(name.clone()).or_insert_with(|| {
            all.insert(HandlerRecord {
                name: name.clone(),
                counts: Counts::default(),
                durations: Histogram::default(),
                last_error: None,
                health: HandlerHealth::default(),
                bucket: Bucket::default(),
                pools: 0,
            })
        });
        self.all[key].pools += 1;
        key
    }

    /// A pool of it is gone; true: with its last one the handler is.
    pub(super) fn close(&mut self, key: HandlerKey) -> bool {
        self.all[key].pools -= 1;
        if self.all[key].pools == 0 {
            let handler = self.all.remove(key);
            self.by_name.remove(&handler.name);
            return true;
        }
        false
    }

    /// The handler of this name.
    pub(super) fn named(&self, name: &str) -> Option<HandlerKey> {
        self.by_name.get(name).copied()
    }
}

impl Index<HandlerKey> for Handlers {
    type Output = HandlerRecord;

    fn index(&self, key: HandlerKey) -> &HandlerRecord {
        &self.all[key]
    }
}

impl IndexMut<HandlerKey> for Handlers {
    fn index_mut(&mut self, key: HandlerKey) -> &mut HandlerRecord {
        &mut self.all[key]
    }
}
