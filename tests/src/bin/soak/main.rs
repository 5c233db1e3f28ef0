//! `make soak`: the ledger test with all faults for a long time. `SOAK_MINUTES` says how long (10), `SOAK_SEED` which
//! faults (drawn and printed), and `SOAK_KEEP=1` keeps logs and ledgers in `target/soak`. Ctrl-C ends the faults; what
//! ran is checked all the same. The result is in `target/soak.json`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use warren_tests::artefacts;
use warren_tests::soak::{Kind, Soak};

/// More than a weekend is a mistake.
const MAX_MINUTES: f64 = 4_320.0;

fn main() -> Result<()> {
    let minutes: f64 = variable("SOAK_MINUTES")?.unwrap_or(10.0);
    ensure!(minutes > 0.0 && minutes <= MAX_MINUTES, "SOAK_MINUTES is between 0 and {MAX_MINUTES}");
    let target = artefacts::root().join("target");
    let keep = variable::<u8>("SOAK_KEEP")?.is_some_and(|keep| keep != 0).then(|| target.join("soak"));
    if let Some(directory) = &keep {
        fs::create_dir_all(directory)?;
    }
    let soak = Soak {
        seed: variable("SOAK_SEED")?.unwrap_or_else(|| fastrand::u64(..)),
        length: Duration::from_secs_f64(minutes * 60.0),
        kinds: Kind::ALL.to_vec(),
        keep,
        enough: Arc::new(AtomicBool::new(false)),
    };
    // The second Ctrl-C ends the process, and with it everything that it started.
    signal_hook::flag::register_conditional_shutdown(signal_hook::consts::SIGINT, 130, soak.enough.clone())?;
    signal_hook::flag::register(signal_hook::consts::SIGINT, soak.enough.clone())?;
    let report = soak.run();
    let path = target.join("soak.json");
    fs::write(&path, serde_json::to_vec_pretty(&report.to_json())?)?;
    println!("written to {}", path.display());
    Ok(())
}

/// A number from the environment.
fn variable<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &str,
) -> Result<Option<T>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{name}={text} is no number"))
}
