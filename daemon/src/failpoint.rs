//! Places where a test kills or holds a process of ours. Without the feature `failpoints`, which only the package of
//! the tests asks for, nothing of it is compiled.
//!
//! The variable `FAILPOINTS` in the environment of `warrend` or `warrenctl` says what happens where, as the crate
//! `fail` reads it: `settle::before-ack=2*off->1*return(kill)` lets two pass and dies at the third. Beside the actions
//! of that crate (`pause`, `sleep(MS)`, …) there are
//!
//! | action | what happens |
//! | --- | --- |
//! | `return(kill)` | SIGKILL, at once: nothing is unwound, flushed or closed |
//! | `return(hold FILE)` | while FILE exists the thread stands still; FILE`.held` says that it does |
//!
//! | place | when |
//! | --- | --- |
//! | `settle::before-copy` | an outcome is known; its copies (retry, dead letter, follow-ups) are about to be published |
//! | `settle::after-copy` | the broker has confirmed one of them |
//! | `settle::before-ack` | every copy is confirmed, or none is needed: the ack is about to be noted |
//! | `settle::after-ack` | what a turn settled was handed to the connection |
//! | `drain::started` | the consumers are told to stop, waiting tasks go back with the end of this turn |
//! | `drain::before-close` | everything is settled, the connections are about to be closed |
//! | `reload::before-swap` `reload::after-swap` | around the swap of the routing table |
//! | `replay::before-copy` `replay::after-copy` | in `warrenctl dead replay`, around the confirm of a letter's copy |
//! | `data::turn` | every turn of the data path's loop |

/// Marks a place by its name.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reach($name);
    };
}
pub(crate) use failpoint;

/// Reads `FAILPOINTS`. To be called once, in a process that is no plugin host.
///
/// # Panics
/// When the variable cannot be understood.
pub fn arm() {
    // Dropping it would disarm everything.
    #[cfg(feature = "failpoints")]
    std::mem::forget(fail::FailScenario::setup());
}

/// Does what `FAILPOINTS` says of this place.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(place: &'static str) {
    fail::fail_point!(place, |action| act(place, &action.unwrap_or_default()));
}

#[cfg(feature = "failpoints")]
fn act(place: &str, action: &str) {
    match action.split_once(' ') {
        None if action == "kill" => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        Some(("hold", file)) => hold(std::path::Path::new(file)),
        _ => panic!("failpoint {place}: no action {action:?}"),
    }
}

/// A file, because the test that removes it is another process.
#[cfg(feature = "failpoints")]
fn hold(file: &std::path::Path) {
    const LOOK: std::time::Duration = std::time::Duration::from_millis(5);
    if !file.exists() {
        return;
    }
    let mut held = file.as_os_str().to_owned();
    held.push(".held");
    if let Err(error) = std::fs::write(&held, "") {
        tracing::error!(%error, file = ?held, "the test will not know that this place was reached");
    }
    while file.exists() {
        std::thread::sleep(LOOK);
    }
}
