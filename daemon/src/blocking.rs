//! Work that may block, on a thread of its own. tokio's `spawn_blocking` panics where the system gives no thread (a limit
//! on processes); here that is an error like any other.

use std::io;

use tokio::sync::oneshot;

/// Runs the work and waits for what it gives. The thread is not waited for at the end of the process: it may stand
/// before a dead mount.
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (reply, answer) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || reply.send(work()))?;
    answer.await.map_err(|_| io::Error::other("it panicked"))
}
