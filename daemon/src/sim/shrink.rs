//! A failing plan is made smaller for as long as it fails in the same way.

use std::time::Instant;

use super::fault::Fault;
use super::plan::RunPlan;
use super::run::run_plan;

/// Runs that a plan is tried in at most.
const TRIES: usize = 2_000;

/// The smallest plan found that breaks the same invariant.
pub(super) fn shrink(plan: &RunPlan, invariant: &str, epoch: Instant) -> RunPlan {
    let mut tries = 0;
    let mut fails = |plan: &RunPlan| {
        tries += 1;
        tries < TRIES && run_plan(plan, epoch).violation.is_some_and(|found| found.invariant == invariant)
    };
    let mut best = plan.clone();
    for fault in Fault::ALL {
        let mut less = best.clone();
        less.without = less.without.with(*fault);
        if fails(&less) {
            best = less;
        }
    }
    let mut size = best.operations.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut is_smaller = false;
        while from < best.operations.len() {
            let mut less = best.clone();
            let to = (from + size).min(less.operations.len());
            less.operations.drain(from..to);
            if fails(&less) {
                best = less;
                is_smaller = true;
            } else {
                from = to;
            }
        }
        if size > 1 {
            size = size.div_ceil(2).min(size - 1);
        } else if !is_smaller {
            return best;
        }
    }
}
