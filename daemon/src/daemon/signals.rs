//! Signals: a thread of their own turns each into a message, so that nothing runs in a signal handler.

use std::io;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGUSR1.
    LogStatus,
}

/// Signals that wait for the main loop. The kernel merges equal ones anyway.
const PENDING: usize = 16;

/// Starts listening. From here on none of these signals ends the process by itself.
pub(super) fn listen() -> io::Result<mpsc::Receiver<Signal>> {
    // A file that would be over the limit on its size is then an error of that write. Plugin hosts get the default.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT, SIGUSR1])?;
    let (sender, receiver) = mpsc::channel(PENDING);
    std::thread::Builder::new().name("warren-signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let signal = match signal {
                SIGHUP => Signal::Reload,
                SIGUSR1 => Signal::LogStatus,
                _ => Signal::Stop,
            };
            if sender.blocking_send(signal).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}
