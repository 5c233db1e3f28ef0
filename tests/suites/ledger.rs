//! The ledger test, as short as it makes sense: the faults that are over soon, and one death of the broker. `make soak`
//! is the long one. The faults are drawn anew each time; SOAK_SEED replays those of a failure.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use warren_tests::soak::{Kind, Soak};

#[test]
fn whatever_fails_every_confirmed_task_is_done_or_dead_and_every_duplicate_is_explained() {
    let seed = std::env::var("SOAK_SEED").map(|seed| seed.parse().expect("SOAK_SEED is a number"));
    let soak = Soak {
        seed: seed.unwrap_or_else(|_| fastrand::u64(..)),
        length: Duration::from_secs(14),
        kinds: [&Kind::QUICK[..], &[Kind::NodeKilled]].concat(),
        keep: None,
        enough: Arc::new(AtomicBool::new(false)),
    };
    soak.run();
}
