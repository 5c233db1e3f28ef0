//! Whether the parts of the core agree with each other, for tests: to be asked after each turn.

use std::collections::BTreeMap;

use crate::host::HostId;

use super::entry::{EntryStage, Ownership, Sent};
use super::in_flight::InFlight;
use super::keys::{EntryKey, PoolKey, QueueKey};
use super::pools::Placement;
use super::scheduler::Blocked;
use super::{Core, Now, Turn};

impl Core {
    /// Holds what the parts know of the same thing against each other.
    ///
    /// # Panics
    /// When they differ.
    pub(crate) fn check(&self) {
        self.check_waiting();
        self.check_sent();
        self.pools.check();
        self.in_flight.check();
    }

    /// What is in the stage `Waiting` is what the scheduler has.
    fn check_waiting(&self) {
        let mut waiting: BTreeMap<(PoolKey, QueueKey), Vec<EntryKey>> = BTreeMap::new();
        for (key, entry) in self.in_flight.iter() {
            assert!(!matches!(entry.stage, EntryStage::Arrived), "entry {key} is in no stage: {entry:?}");
            if matches!(entry.stage, EntryStage::Waiting) {
                let pool = entry.pool().expect("what waits is routed");
                assert!(
                    self.pools.get(pool).is_some_and(|pool| !pool.retired),
                    "entry {key} waits for a retired pool"
                );
                waiting.entry((pool, entry.queue)).or_default().push(key);
            }
        }
        assert_eq!(waiting, self.scheduler.listed(), "what waits is what the scheduler has");
    }

    /// What is in the stage `Sent` is what the workers were given.
    fn check_sent(&self) {
        let mut sent: Vec<(HostId, u64, EntryKey)> = Vec::new();
        for (key, entry) in self.in_flight.iter() {
            if let Some(Sent { host, seq, .. }) = entry.sent() {
                sent.push((*host, *seq, key));
            }
        }
        let given = self.pools.workers().flat_map(|(host, worker)| {
            worker.given().map(move |given| (host, given.seq, given.entry)).collect::<Vec<_>>()
        });
        let mut given: Vec<_> = given.collect();
        sent.sort_unstable();
        given.sort_unstable();
        assert_eq!(sent, given, "what is sent is what the workers have");
    }

    /// Whether a task waits although a worker could take it, or a host be started for it, right now.
    pub(crate) fn has_lost_wakeup(&self, now: Now) -> bool {
        let mut actions = Vec::new();
        let turn = Turn { now, actions: &mut actions };
        let mut scheduler = self.scheduler.clone();
        scheduler.begin_round();
        while let Some(flow) = scheduler.next().filter(|_| self.is_running()) {
            match self.place(flow, &scheduler, &turn) {
                Placement::Worker(_) | Placement::Start => return true,
                Placement::NoWorker => scheduler.pass_over(flow, Blocked::NoWorker),
                Placement::None => scheduler.pass_over(flow, Blocked::Itself),
            }
        }
        false
    }
}

impl InFlight {
    fn check(&self) {
        for (key, entry) in self.iter() {
            let detached = matches!(entry.ownership, Ownership::Detached(_));
            assert_eq!(detached, self.is_listed_as_detached(key), "entry {key}: {entry:?}");
            assert!(
                detached || !matches!(entry.stage, EntryStage::Decided(_) | EntryStage::Confirmed),
                "entry {key} waits for a tag that it has: {entry:?}"
            );
            assert!(!(detached && entry.is_waiting()), "entry {key} waits without a tag: {entry:?}");
        }
    }
}
