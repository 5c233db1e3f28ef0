//! Standard error for what is said before there is a log. Whatever it is (closed, full, a pipe that nobody reads), it
//! changes neither what a program does nor its exit code: `eprintln!` would panic or block there, and is denied in both
//! programs.

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A pipe that has any room takes this much without blocking.
const PIECE: usize = 4096;
/// How long a reader may keep each piece waiting.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Writes text and a newline; what cannot be written is lost.
pub fn print(text: &str) {
    let line = format!("{text}\n");
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        let stderr = rustix::stdio::stderr();
        let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
        if poll(&mut ready, Some(&PATIENCE)) == Ok(0) {
            return;
        }
        match rustix::io::write(stderr, &rest[..rest.len().min(PIECE)]) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return,
            Ok(written) => rest = &rest[written..],
        }
    }
}
