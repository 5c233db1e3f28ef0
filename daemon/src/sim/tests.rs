//! A run with every `cargo test`; `make simulate` is for longer ones, of a build that is optimized.

use std::time::Instant;

use super::command::{explain, simulate, summary};
use super::plan::RunPlan;
use super::run::trace_plan;

#[test]
fn no_invariant_is_broken() {
    let simulated = simulate(1, 11_100, 2);
    println!("{}", summary(1, &simulated));
    if let Some(seed) = simulated.failed {
        panic!("seed {seed} fails:\n{}", explain(&RunPlan::of_seed(seed)));
    }
    assert!(simulated.total.events > 5_000_000, "the runs are long enough to mean something");
}

#[test]
fn a_seed_and_the_plan_that_it_is_printed_as_play_the_same() {
    for seed in [3, 17, 99] {
        let plan = RunPlan::of_seed(seed);
        let printed: RunPlan = plan.to_string().parse().expect("as it is printed");
        let [one, other] = [&plan, &printed].map(|plan| {
            let ran = trace_plan(plan, Instant::now());
            (ran.events, ran.turns, ran.faults, ran.violation)
        });
        assert!(one.0 > 0, "something happens");
        assert_eq!(one, other, "{printed}");
    }
}
