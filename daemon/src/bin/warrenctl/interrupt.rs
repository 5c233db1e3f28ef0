//! Ctrl-C and SIGTERM: the first is heard and asks for an orderly end, the second ends the program at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UnixStream;

use crate::exit::Code;

const SIGNALS: [i32; 2] = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];

/// Takes the signals over, for the rest of the program's life: the first one sets the flag.
pub(crate) fn flag() -> io::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in SIGNALS {
        // In this order: the first signal sets the flag, the next one finds it set.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            Code::Interrupted as i32,
            Arc::clone(&asked),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&asked))?;
    }
    Ok(asked)
}

/// The ear for both signals.
#[derive(Debug)]
pub(crate) struct Interrupt {
    heard: UnixStream,
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes the signals over, for the rest of the program's life. Needs a tokio runtime with I/O.
    pub(crate) fn listen() -> io::Result<Self> {
        let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
        let asked = flag()?;
        for signal in SIGNALS {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        reader.set_nonblocking(true)?;
        Ok(Self { heard: UnixStream::from_std(reader)?, asked })
    }

    /// A signal has come.
    pub(crate) fn is_heard(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Returns when a signal has come, however often it is asked.
    pub(crate) async fn wait(&self) {
        if self.is_heard() {
            return;
        }
        // An error would mean that the writing end is gone, which lives as long as the program.
        while self.heard.readable().await.is_ok() {
            if self.heard.try_read(&mut [0; 8]).is_ok() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}
