//! The client's end of the control socket: one request, one answer, one connection; blocking from the outside.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONNECTION, HOST};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::query;
use crate::engine::PauseTarget;
use crate::model::status::{
    ActiveTask, CancelReply, ErrorReply, HandlerStatus, PauseReply, ReloadReply, RouteReply, Status,
};

/// The server gives up after 5 s; this is only for one that accepts and then says nothing at all.
const TIMEOUT: Duration = Duration::from_secs(15);
/// An answer: thousands of handlers and running tasks, far more than a daemon has.
const MAX_ANSWER: usize = 64 << 20;

/// Why there is no answer. The text names the socket and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there.
    #[error("no daemon answers on {path}: {why}; is warrend running? (systemctl status warrend; --socket names another)", path = path.display())]
    NoDaemon {
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The socket is there, and this user may not use it.
    #[error("no permission to use {path}: run this as root or as a member of the socket's group", path = path.display())]
    Permission { path: PathBuf },
    /// The daemon serves as many clients as it may, is stopping, or its main loop is stuck: try again.
    #[error("the daemon on {path} is busy: {why}", path = path.display())]
    Busy {
        path: PathBuf,
        /// In its words, or ours.
        why: String,
    },
    /// The daemon refused the request.
    #[error("the daemon on {path} answered {status}: {why}", path = path.display())]
    Refused {
        path: PathBuf,
        /// The HTTP status.
        status: u16,
        /// In its words.
        why: String,
    },
    /// This user may look, but not change anything.
    #[error("{why}")]
    Forbidden {
        /// In its words.
        why: String,
    },
    /// It knows no such queue, handler or task.
    #[error("{why}")]
    NoSuch {
        /// In its words.
        why: String,
    },
    /// What came back makes no sense: another program's socket, or another version of the daemon.
    #[error("the answer from {path} is not understood: {why}; do warrend and warrenctl have the same version?", path = path.display())]
    Garbled {
        path: PathBuf,
        /// What was wrong with it.
        why: String,
    },
}

/// Speaks to the daemon that listens at a path. Holds no connection between calls.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client for the daemon at `path`; connects only when asked something.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `GET /v1/status`.
    pub fn status(&self) -> Result<Status, ClientError> {
        self.call(Method::GET, "/v1/status", Bytes::new(), Some(TIMEOUT))
    }

    /// `GET /v1/handlers`.
    pub fn handlers(&self) -> Result<Vec<HandlerStatus>, ClientError> {
        self.call(Method::GET, "/v1/handlers", Bytes::new(), Some(TIMEOUT))
    }

    /// `GET /v1/active`.
    pub fn active(&self) -> Result<Vec<ActiveTask>, ClientError> {
        self.call(Method::GET, "/v1/active", Bytes::new(), Some(TIMEOUT))
    }

    /// `POST /v1/reload`; waits until the reload has ended, however long its probes take.
    pub fn reload(&self) -> Result<ReloadReply, ClientError> {
        self.call(Method::POST, "/v1/reload", Bytes::new(), None)
    }

    /// `POST /v1/route`: what the daemon would do with this text.
    pub fn route(
        &self,
        text: &[u8],
        queue: Option<&str>,
        message_type: Option<&str>,
    ) -> Result<RouteReply, ClientError> {
        let target = format!("/v1/route{}", query::encode(&[("queue", queue), ("type", message_type)]));
        self.call(Method::POST, &target, Bytes::copy_from_slice(text), Some(TIMEOUT))
    }

    /// `POST /v1/pause` or `/v1/resume`.
    pub fn hold(&self, what: &PauseTarget, paused: bool) -> Result<PauseReply, ClientError> {
        let verb = if paused { "pause" } else { "resume" };
        let (kind, name) = match what {
            PauseTarget::Queue(name) => ("queue", name),
            PauseTarget::Handler(name) => ("handler", name),
        };
        let target = format!("/v1/{verb}{}", query::encode(&[(kind, Some(name))]));
        self.call(Method::POST, &target, Bytes::new(), Some(TIMEOUT))
    }

    /// `POST /v1/cancel`: cancels a task that runs or waits there.
    pub fn cancel(&self, task: &str) -> Result<CancelReply, ClientError> {
        let target = format!("/v1/cancel{}", query::encode(&[("task", Some(task))]));
        self.call(Method::POST, &target, Bytes::new(), Some(TIMEOUT))
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
        limit: Option<Duration>,
    ) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| ClientError::NoDaemon { path: self.path.clone(), why })?;
        let exchange = self.exchange(method, target, body);
        let (status, body) = runtime.block_on(async {
            match limit {
                None => exchange.await,
                Some(limit) => tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
                    Err(self
                        .busy(format!("it took the connection and said nothing for {} s", limit.as_secs())))
                }),
            }
        })?;
        self.read(status, &body)
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|why| self.no_connection(why))?;
        let broken = |e: hyper::Error| self.garbled(&e);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = hyper::Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "warrend")
            .header(CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|e| self.garbled(&e))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|e| self.garbled(&e))?.to_bytes()))
        };
        tokio::pin!(answer, connection);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The connection ends when all is read; a request that failed says why better than it does.
            _ = &mut connection => answer.await,
        }
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
        if status == StatusCode::OK {
            return serde_json::from_slice(body).map_err(|e| self.garbled(&e));
        }
        let why = serde_json::from_slice::<ErrorReply>(body)
            .map_or_else(|_| String::from_utf8_lossy(body).trim().to_owned(), |reply| reply.error);
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Err(self.busy(why)),
            StatusCode::FORBIDDEN => Err(ClientError::Forbidden { why }),
            StatusCode::UNPROCESSABLE_ENTITY => Err(ClientError::NoSuch { why }),
            _ => Err(ClientError::Refused { path: self.path.clone(), status: status.as_u16(), why }),
        }
    }

    fn no_connection(&self, why: io::Error) -> ClientError {
        match why.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Permission { path: self.path.clone() },
            io::ErrorKind::WouldBlock => self.busy("too many clients are waiting".to_owned()),
            _ => ClientError::NoDaemon { path: self.path.clone(), why },
        }
    }

    fn busy(&self, why: String) -> ClientError {
        ClientError::Busy { path: self.path.clone(), why }
    }

    fn garbled(&self, why: &dyn std::fmt::Display) -> ClientError {
        ClientError::Garbled { path: self.path.clone(), why: why.to_string() }
    }
}
