//! The daemon's end of the control socket: HTTP/1.1 in, one [`Request`] to the daemon's main loop, JSON out.
//!
//! Nothing here knows the daemon's state: the main loop answers. So a stuck main loop shows as 504, while
//! `/healthz` still says that the process lives.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::access::{Access, Owners};
use super::request::READ_TIMEOUT;
pub use super::request::Request;
use super::socket::{self, SocketFile};
use super::verbs::answer;
use crate::config::SocketMode;

/// Connections served at once of each listener; further ones wait in the kernel's backlog. Each costs a few KiB and a
/// task.
const MAX_CONNECTIONS: usize = 64;
/// A request head; ours are under 1 KiB but for `?queue=`, which AMQP bounds at 255 bytes.
const MAX_HEAD: usize = 16 << 10;
/// What writing the answer may take, so that a client that reads nothing does not hold its place.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A pause after `accept` failed (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The listening control socket, and the monitoring address if there is one. Dropping it (or the future of
/// [`ControlServer::run`]) removes the socket file, if it is still the one that was bound.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    monitor: Option<TcpListener>,
    file: SocketFile,
}

impl ControlServer {
    /// Listens at `path`. Needs a tokio runtime with I/O. A stale socket is replaced; the error for a living daemon
    /// names its pid, the one for a missing directory the remedy.
    pub fn bind(path: &Path, mode: SocketMode) -> io::Result<Self> {
        let (listener, file) = socket::listen(path, mode.bits())?;
        Ok(Self { listener: UnixListener::from_std(listener)?, monitor: None, file })
    }

    /// Listens on a TCP address as well, for health and metrics only.
    pub fn monitor(mut self, address: SocketAddr) -> io::Result<Self> {
        let bound = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let explain = |error: io::Error| {
            io::Error::new(error.kind(), format!("daemon.monitor: cannot listen on {address}: {error}"))
        };
        self.monitor = Some(bound.map_err(explain)?);
        Ok(self)
    }

    /// Where it listens for monitoring; `None`: nowhere.
    pub fn monitor_address(&self) -> Option<SocketAddr> {
        self.monitor.as_ref()?.local_addr().ok()
    }

    /// Serves until dropped. Connections are tasks of the calling runtime and end with this future.
    pub async fn run(self, requests: mpsc::Sender<Request>) {
        let owners = Owners { user: rustix::process::geteuid().as_raw(), group: self.file.group() };
        let control = listen(&requests, async || {
            let (stream, _) = self.listener.accept().await?;
            let peer = Peer::of(&stream, owners);
            Ok((stream, peer))
        });
        let Some(monitor) = &self.monitor else { return control.await };
        // Any user of the machine may open connections there: they have places of their own.
        let monitor = listen(&requests, async || {
            let (stream, address) = monitor.accept().await?;
            Ok((stream, Peer { name: address.to_string(), access: Access::Monitor }))
        });
        tokio::join!(control, monitor);
    }
}

/// Serves what one listener accepts, in its own places.
async fn listen<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    requests: &mpsc::Sender<Request>,
    accept: impl AsyncFn() -> io::Result<(S, Peer)>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match accept().await {
            Ok((stream, peer)) => {
                let requests = requests.clone();
                connections.spawn(async move {
                    serve(stream, requests, peer).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who is at the other end.
struct Peer {
    /// For the log.
    name: String,
    access: Access,
}

impl Peer {
    /// What the kernel says of a client of the control socket.
    fn of(stream: &UnixStream, owners: Owners) -> Self {
        stream.peer_cred().map_or_else(
            |_| Self { name: "unknown".to_owned(), access: Access::Look },
            |cred| Self {
                name: format!("uid {} pid {}", cred.uid(), cred.pid().unwrap_or_default()),
                access: owners.access(cred.uid(), cred.gid()),
            },
        )
    }
}

/// One request per connection: `warrenctl` needs no more, and an idle client then holds no place.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, requests: mpsc::Sender<Request>, peer: Peer) {
    let answered = Notify::new();
    let (requests, answered, access, peer) = (&requests, &answered, peer.access, peer.name.as_str());
    let service = service_fn(|request| async move {
        let response = answer(request, requests, peer, access).await;
        answered.notify_one();
        Ok::<_, Infallible>(response)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let too_slow = async {
        answered.notified().await;
        tokio::time::sleep(WRITE_TIMEOUT).await;
    };
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            debug!(peer, %error, "control connection ended early");
        },
        () = too_slow => debug!(peer, "control client does not read its answer"),
    }
}
