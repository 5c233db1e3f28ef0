//! The short run, for every `make test`.

use super::command::{explain, simulate, summary};
use super::plan::Plan;

#[test]
fn no_invariant_is_broken_in_ten_thousand_runs() {
    let simulated = simulate(1, 10_000, 2);
    println!("{}", summary(1, &simulated));
    if let Some(seed) = simulated.failed {
        panic!("seed {seed} fails:\n{}", explain(&Plan::of_seed(seed)));
    }
}
