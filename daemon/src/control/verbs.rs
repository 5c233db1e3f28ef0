//! What can be asked for on the control socket: who may ask what, how a request is read, and how the main loop's
//! answer is written.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::access::Access;
use super::request::{READ_TIMEOUT, Request};
use super::{metrics, query};
use crate::engine::PauseTarget;
use crate::model::status::{ErrorReply, Status};

/// A request body: the largest task by default, and room for what surrounds it.
const MAX_BODY: usize = (1 << 20) + (64 << 10);
/// What the main loop may take for an answer (a reload excepted: it lasts as long as its probes).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a peer is refused.
const FORBIDDEN: &str = "only root, warrend's user and the members of the control socket's group may do this, and only \
                         on the control socket";

pub(super) type Response = hyper::Response<Full<Bytes>>;

/// Answers one request.
pub(super) async fn answer(
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
    let what = if what == "queue" { PauseTarget::Queue(name) } else { PauseTarget::Handler(name) };
    reply_or_refusal(ask(requests, |reply| Request::SetPaused { what, paused, reply }).await)
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
    reply_or_refusal(ask(requests, |reply| Request::Cancel { task, reply }).await)
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
fn reply_or_refusal<T: Serialize>(answer: Result<Result<T, String>, NoAnswer>) -> Response {
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
enum NoAnswer {
    Late,
    Gone,
}

async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, NoAnswer> {
    tokio::time::timeout(ANSWER_TIMEOUT, wait_for(requests, request)).await.unwrap_or(Err(NoAnswer::Late))
}

async fn wait_for<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, NoAnswer> {
    let (reply, answer) = oneshot::channel();
    requests.send(request(reply)).await.map_err(|_| NoAnswer::Gone)?;
    answer.await.map_err(|_| NoAnswer::Gone)
}

fn reply<T: Serialize>(answer: Result<T, NoAnswer>) -> Response {
    match answer {
        Ok(value) => json(StatusCode::OK, &value),
        Err(NoAnswer::Late) => error(
            StatusCode::GATEWAY_TIMEOUT,
            format!("the daemon's main loop did not answer in {} s; see its log", ANSWER_TIMEOUT.as_secs()),
        ),
        Err(NoAnswer::Gone) => {
            error(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping and did not answer".to_owned())
        }
    }
}

fn metrics(answer: Result<Status, NoAnswer>) -> Response {
    let Ok(status) = answer else { return reply(answer) };
    let mut response = Response::new(Full::new(Bytes::from(metrics::render(&status))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

fn ready(answer: Result<Result<(), String>, NoAnswer>) -> Response {
    match answer {
        Ok(Ok(())) => json(StatusCode::OK, &serde_json::json!({"ready": true})),
        Ok(Err(which)) => {
            error(StatusCode::SERVICE_UNAVAILABLE, format!("{which}; `warrenctl status` says why"))
        }
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
