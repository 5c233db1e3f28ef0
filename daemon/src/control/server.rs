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

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::access::{Access, Owners};
use super::api::{
    ActiveTask, CancelReply, ErrorReply, HandlerStatus, HoldReply, ReloadReply, RouteReply, Status,
};
use super::socket::{self, SocketFile};
use super::{metrics, query};
use crate::config::SocketMode;
use crate::engine::Held;

/// Connections served at once; further ones wait in the kernel's backlog. Each costs a few KiB and a task.
const MAX_CONNECTIONS: usize = 64;
/// A request body: the largest task by default, and room for what surrounds it.
const MAX_BODY: usize = (1 << 20) + (64 << 10);
/// A request head; ours are under 1 KiB but for `?queue=`, which AMQP bounds at 255 bytes.
const MAX_HEAD: usize = 16 << 10;
/// From accept to a complete head, and the same again for the body: clients are on this machine.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// What the main loop may take for an answer (a reload excepted: it lasts as long as its probes).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// What writing the answer may take, so that a client that reads nothing does not hold its place.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A pause after `accept` failed (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the control socket asks of the daemon's main loop. A dropped reply is answered as an error; a receiver
/// that is gone means that the client hung up.
#[derive(Debug)]
pub enum Request {
    /// `GET /v1/status`.
    Status(oneshot::Sender<Status>),
    /// `GET /v1/handlers`.
    Handlers(oneshot::Sender<Vec<HandlerStatus>>),
    /// `GET /v1/active`.
    Active(oneshot::Sender<Vec<ActiveTask>>),
    /// `POST /v1/reload`: answered when the reload has ended.
    Reload(oneshot::Sender<ReloadReply>),
    /// `POST /v1/route`.
    Route {
        /// The task's text.
        text: Vec<u8>,
        /// The queue it would come from.
        queue: Option<String>,
        /// The AMQP property `type` it would have.
        message_type: Option<String>,
        /// The answer.
        reply: oneshot::Sender<RouteReply>,
    },
    /// `POST /v1/pause` and `/v1/resume`; an error is a sentence for the operator.
    Hold {
        /// The queue or handler.
        what: Held,
        /// Pause it; else let it go on.
        paused: bool,
        /// The answer.
        reply: oneshot::Sender<Result<HoldReply, String>>,
    },
    /// `POST /v1/cancel`; an error is a sentence for the operator.
    Cancel {
        /// The task's id.
        task: String,
        /// The answer.
        reply: oneshot::Sender<Result<CancelReply, String>>,
    },
    /// `GET /readyz`: whether every configured queue is being consumed.
    Ready(oneshot::Sender<bool>),
}

/// The listening control socket, and the monitoring address if there is one. Dropping it (or the future of
/// [`Server::run`]) removes the socket file, if it is still the one that was bound.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    monitor: Option<TcpListener>,
    file: SocketFile,
}

impl Server {
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
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let owners = Owners { user: rustix::process::geteuid().as_raw(), group: self.file.group() };
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.accept(owners).await {
                Ok((stream, peer)) => {
                    let requests = requests.clone();
                    connections.spawn(async move {
                        match stream {
                            Stream::Unix(stream) => serve(stream, requests, peer).await,
                            Stream::Tcp(stream) => serve(stream, requests, peer).await,
                        }
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

    /// The next connection, and who it is from.
    async fn accept(&self, owners: Owners) -> io::Result<(Stream, Peer)> {
        let on_tcp = async {
            match &self.monitor {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = self.listener.accept() => {
                let (stream, _) = accepted?;
                let peer = stream.peer_cred().map_or_else(
                    |_| Peer { name: "unknown".to_owned(), access: Access::Look },
                    |cred| Peer {
                        name: format!("uid {} pid {}", cred.uid(), cred.pid().unwrap_or_default()),
                        access: owners.access(cred.uid(), cred.gid()),
                    },
                );
                Ok((Stream::Unix(stream), peer))
            }
            accepted = on_tcp => {
                let (stream, address) = accepted?;
                Ok((Stream::Tcp(stream), Peer { name: address.to_string(), access: Access::Monitor }))
            }
        }
    }
}

/// A connection.
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Who is at the other end.
struct Peer {
    /// For the log.
    name: String,
    access: Access,
}

/// Why a peer is refused.
const FORBIDDEN: &str = "only root, warrend's user and the members of the control socket's group may do this, and only \
                         on the control socket";

type Response = hyper::Response<Full<Bytes>>;

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

async fn answer(
    request: hyper::Request<Incoming>,
    requests: &mpsc::Sender<Request>,
    peer: &str,
    access: Access,
) -> Response {
    let path = request.uri().path();
    let allowed = match path {
        "/v1/status" | "/v1/handlers" | "/v1/active" | "/healthz" | "/readyz" | "/metrics" => Method::GET,
        "/v1/reload" | "/v1/route" | "/v1/pause" | "/v1/resume" | "/v1/cancel" => Method::POST,
        _ => return error(StatusCode::NOT_FOUND, format!("there is no {path} here")),
    };
    if request.method() != allowed {
        let message = format!("{path} takes {allowed}, not {}", request.method());
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, message);
        let allowed = if allowed == Method::GET { "GET" } else { "POST" };
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    if !access.allows(allowed == Method::GET, path) {
        info!(peer, path, "refused on the control socket");
        return error(StatusCode::FORBIDDEN, format!("{path}: {FORBIDDEN}"));
    }
    match path {
        "/healthz" => json(StatusCode::OK, &serde_json::json!({"alive": true})),
        "/readyz" => ready(ask(requests, Request::Ready).await),
        "/metrics" => metrics(ask(requests, Request::Status).await),
        "/v1/status" => reply(ask(requests, Request::Status).await),
        "/v1/handlers" => reply(ask(requests, Request::Handlers).await),
        "/v1/active" => reply(ask(requests, Request::Active).await),
        "/v1/reload" => {
            info!(peer, "reload asked for on the control socket");
            reply(wait_for(requests, Request::Reload).await)
        }
        "/v1/pause" | "/v1/resume" => hold(&request, requests, peer).await,
        "/v1/cancel" => cancel(&request, requests, peer).await,
        _ => route(request, requests).await,
    }
}

async fn hold(request: &hyper::Request<Incoming>, requests: &mpsc::Sender<Request>, peer: &str) -> Response {
    let (what, name) = match parameter(request, &["queue", "handler"]) {
        Ok(pair) => pair,
        Err(message) => return error(StatusCode::BAD_REQUEST, message),
    };
    let paused = request.uri().path() == "/v1/pause";
    info!(peer, what, name, paused, "pause or resume asked for on the control socket");
    let what = if what == "queue" { Held::Queue(name) } else { Held::Handler(name) };
    judged(ask(requests, |reply| Request::Hold { what, paused, reply }).await)
}

async fn cancel(
    request: &hyper::Request<Incoming>,
    requests: &mpsc::Sender<Request>,
    peer: &str,
) -> Response {
    let task = match parameter(request, &["task"]) {
        Ok((_, task)) => task,
        Err(message) => return error(StatusCode::BAD_REQUEST, message),
    };
    info!(peer, task, "cancel asked for on the control socket");
    judged(ask(requests, |reply| Request::Cancel { task, reply }).await)
}

/// The one parameter of a request: which of the names, and its value.
fn parameter<'n>(request: &hyper::Request<Incoming>, names: &[&'n str]) -> Result<(&'n str, String), String> {
    let mut pairs = query::decode(request.uri().query().unwrap_or_default())?;
    match (pairs.pop(), pairs.is_empty()) {
        (Some((name, value)), true) if !value.is_empty() => names
            .iter()
            .find(|known| **known == name)
            .map(|known| (*known, value))
            .ok_or_else(|| format!("`{name}` is not {}", names.join(" or "))),
        _ => Err(format!("{} takes ?{}=NAME", request.uri().path(), names.join("= or ?"))),
    }
}

/// As [`reply`], for what the main loop may refuse: 422, so that it is not taken for a path that is not there.
fn judged<T: Serialize>(answer: Result<Result<T, String>, Silence>) -> Response {
    match answer {
        Ok(Err(message)) => error(StatusCode::UNPROCESSABLE_ENTITY, message),
        Ok(Ok(value)) => reply(Ok(value)),
        Err(silence) => reply::<T>(Err(silence)),
    }
}

async fn route(request: hyper::Request<Incoming>, requests: &mpsc::Sender<Request>) -> Response {
    let (mut queue, mut message_type) = (None, None);
    match query::decode(request.uri().query().unwrap_or_default()) {
        Err(message) => return error(StatusCode::BAD_REQUEST, message),
        Ok(pairs) => {
            for (name, value) in pairs {
                match name.as_str() {
                    "queue" => queue = Some(value),
                    "type" => message_type = Some(value),
                    _ => return error(StatusCode::BAD_REQUEST, format!("`{name}` is not queue or type")),
                }
            }
        }
    }
    let too_large = || error(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is over {MAX_BODY} bytes"));
    if request.body().size_hint().lower() > MAX_BODY as u64 {
        return too_large();
    }
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let text = match tokio::time::timeout(READ_TIMEOUT, body).await {
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => return too_large(),
        Ok(Err(e)) => return error(StatusCode::BAD_REQUEST, format!("the body broke off: {e}")),
        Ok(Ok(body)) => body.to_bytes().to_vec(),
    };
    reply(ask(requests, |reply| Request::Route { text, queue, message_type, reply }).await)
}

/// Why the main loop gave no answer.
enum Silence {
    Late,
    Gone,
}

async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Silence> {
    tokio::time::timeout(ANSWER_TIMEOUT, wait_for(requests, request)).await.unwrap_or(Err(Silence::Late))
}

async fn wait_for<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Silence> {
    let (reply, answer) = oneshot::channel();
    requests.send(request(reply)).await.map_err(|_| Silence::Gone)?;
    answer.await.map_err(|_| Silence::Gone)
}

fn reply<T: Serialize>(answer: Result<T, Silence>) -> Response {
    match answer {
        Ok(value) => json(StatusCode::OK, &value),
        Err(Silence::Late) => error(
            StatusCode::GATEWAY_TIMEOUT,
            format!("the daemon's main loop did not answer in {} s; see its log", ANSWER_TIMEOUT.as_secs()),
        ),
        Err(Silence::Gone) => {
            error(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping and did not answer".to_owned())
        }
    }
}

fn metrics(answer: Result<Status, Silence>) -> Response {
    let Ok(status) = answer else { return reply(answer) };
    let mut response = Response::new(Full::new(Bytes::from(metrics::render(&status))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

fn ready(answer: Result<bool, Silence>) -> Response {
    match answer {
        Ok(true) => json(StatusCode::OK, &serde_json::json!({"ready": true})),
        Ok(false) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "not every configured queue is being consumed; `warrenctl status` says why".to_owned(),
        ),
        Err(silence) => reply::<()>(Err(silence)),
    }
}

fn error(status: StatusCode, error: String) -> Response {
    json(status, &ErrorReply { error })
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    // The API's types are strings, numbers, lists and options: they always have a JSON form.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
