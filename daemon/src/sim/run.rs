//! Runs: one plan, or many seeds one after another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::fault::Faults;
use super::plan::RunPlan;
use super::violation::Violation;
use super::world::World;

/// What a run came to.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) violation: Option<Violation>,
    pub(super) events: u64,
    pub(super) turns: u64,
    pub(super) faults: Faults,
    pub(super) trace: Vec<String>,
}

/// What many runs came to.
#[derive(Debug, Default)]
pub(super) struct Total {
    pub(super) seeds: u64,
    pub(super) events: u64,
    pub(super) turns: u64,
    pub(super) faults: Faults,
}

impl Total {
    pub(super) fn add(&mut self, ran: &Ran) {
        self.seeds += 1;
        self.events += ran.events;
        self.turns += ran.turns;
        self.faults.merge(&ran.faults);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.turns += other.turns;
        self.faults.merge(&other.faults);
    }
}

/// Plays a plan. `epoch`: what the core's clock starts with; nothing depends on it.
pub(super) fn run_plan(plan: &RunPlan, epoch: Instant) -> Ran {
    play(plan, epoch, false)
}

/// The same, and says what happened.
pub(super) fn trace_plan(plan: &RunPlan, epoch: Instant) -> Ran {
    play(plan, epoch, true)
}

fn play(plan: &RunPlan, epoch: Instant, traces: bool) -> Ran {
    let mut world = World::new(plan.clone(), epoch);
    world.trace = traces.then(Vec::new);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.broken("the core does not panic", text.unwrap_or_default());
    }
    Ran {
        violation: world.violation.take(),
        events: world.events,
        turns: world.turns,
        faults: std::mem::take(&mut world.faults),
        trace: world.trace.take().unwrap_or_default(),
    }
}
