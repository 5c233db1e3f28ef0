//! `make attack`: a producer sends whatever the broker takes, for ten minutes. `ATTACK_MINUTES` says how long, and
//! `ATTACK_SEED` which messages (drawn and printed). Ends with an error when a link, a message or a canary was lost, the
//! daemon took too much memory, or the canaries waited too long.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use warren_tests::attack::{Attack, Length};

/// What a machine of two cores keeps up with beside a broker: the daemon is attacked, not the broker.
const RATE: u32 = 100;
/// Rare, and far above `daemon.max_task_bytes`.
const BODY_MAX: usize = 32 << 20;
const CANARY_EVERY: Duration = Duration::from_millis(100);
/// What the daemon may use, in KiB.
const RSS_MAX: u64 = 300 << 10;
/// Canaries that wait no longer than this never waited too long: two processes at work are as much on a busy machine.
const WAIT_LEAST: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    let minutes: f64 = variable("ATTACK_MINUTES")?.unwrap_or(10.0);
    ensure!(minutes > 0.0 && minutes <= 1_440.0, "ATTACK_MINUTES is between 0 and 1440");
    let length = Duration::from_secs_f64(minutes * 60.0);
    let attack = Attack {
        seed: variable("ATTACK_SEED")?.unwrap_or_else(|| fastrand::u64(..)),
        only: None,
        length: Length::Time(length),
        rate: Some(RATE),
        body_max: BODY_MAX,
        canary_every: CANARY_EVERY,
        baseline: length / 2,
    };
    println!(
        "seed {}, {:.0?} of ordinary messages, then an attack of {length:.0?}",
        attack.seed, attack.baseline
    );
    let report = attack.run();
    println!("{report}");
    report.assert_clean();
    report.assert_memory(RSS_MAX);
    report.assert_waits(WAIT_LEAST);
    Ok(())
}

/// A number from the environment.
fn variable<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str) -> Result<Option<T>> {
    let text = std::env::var(name).unwrap_or_default();
    (!text.is_empty())
        .then(|| text.parse().with_context(|| format!("{name}={text} is no number")))
        .transpose()
}
