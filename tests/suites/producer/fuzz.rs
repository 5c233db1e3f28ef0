//! Random messages through a real broker, which the daemon outlives with all of its connections.

use std::time::Duration;

use warren_tests::attack::{Attack, Length};
use warren_tests::raw::fuzz::Kind;

/// `PRODUCER_MESSAGES` says how many, `PRODUCER_SEED` which.
#[test]
fn messages_of_any_bytes_cost_no_connection_and_come_to_an_end_each() {
    let messages = variable("PRODUCER_MESSAGES").unwrap_or(2_000);
    run(None, Length::Messages(messages), None);
}

/// Ids as Python's `uuid.bytes` makes them. `PRODUCER_SECONDS` says for how long.
#[test]
fn tasks_run_once_while_another_queue_has_ids_that_are_not_text() {
    let seconds = variable("PRODUCER_SECONDS").unwrap_or(3);
    run(Some(Kind::Uuid), Length::Time(Duration::from_secs(seconds)), Some(20));
}

fn run(only: Option<Kind>, length: Length, rate: Option<u32>) {
    let attack = Attack {
        seed: variable("PRODUCER_SEED").unwrap_or_else(|| fastrand::u64(..)),
        only,
        length,
        rate,
        body_max: 4 << 20,
        canary_every: Duration::from_millis(100),
        baseline: Duration::ZERO,
    };
    let report = attack.run();
    println!("{report}");
    report.assert_clean();
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}
