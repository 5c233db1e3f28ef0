//! Random messages through a real broker: `PRODUCER_MESSAGES` says how many, `PRODUCER_SEED` which.

use std::time::Duration;

use warren_tests::attack::{Attack, Length};

#[test]
fn messages_of_any_bytes_cost_no_connection_and_come_to_an_end_each() {
    let attack = Attack {
        seed: variable("PRODUCER_SEED").unwrap_or_else(|| fastrand::u64(..)),
        length: Length::Messages(variable("PRODUCER_MESSAGES").unwrap_or(3_000)),
        rate: None,
        body_max: 4 << 20,
        canary_every: Duration::from_millis(50),
        baseline: Duration::ZERO,
    };
    let report = attack.run();
    println!("{report}");
    report.assert_clean();
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}
