//! Warren handler `webhook`: sends each task as JSON to a URL. By default it takes the tasks that begin with
//! `Send notification`.
//!
//! ```toml
//! [handlers.notify]
//! plugin   = "webhook"
//! prefixes = ["Send notification"]
//!
//! [handlers.notify.settings]
//! url          = "https://example.com/hooks/notify"
//! secret_file  = "/etc/warren/secrets/notify"          # optional: sign each request
//! header_files = { Authorization = "/etc/warren/secrets/notify-authorization" }   # e.g. "Bearer …"
//! timeout      = "10s"
//! ```
//!
//! # Settings
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `url` or `url_file` | required | where to; `https://` or `http://`. `url_file` for one that is itself a secret |
//! | `method` | `"POST"` | or `"PUT"`, `"PATCH"` |
//! | `headers` | `{}` | further headers |
//! | `header_files` | `{}` | further headers whose value stands in a file |
//! | `secret` or `secret_file` | none | key of the signature |
//! | `timeout` | `"30s"` | for the whole request with its answer; the handler's own time limit counts too |
//! | `max_response` | `16384` | bytes of the answer's body that become the task's result |
//! | `retry_on`, `reject_on` | see below | statuses that are tried again or reject the task: `404`, `"4xx"`, `"500-503"` |
//! | `ca_file` | Mozilla's roots | PEM file of the only certificates that servers are checked with |
//!
//! Paths are absolute. Files are read for every task, so what stands in them can be replaced at any time.
//!
//! # The request
//!
//! ```json
//! {"id": "0198…", "id_generated": false, "attempt": 1, "redelivered": false, "queue": "task_queue",
//!  "prefix": "Send notification", "argument": "to Ada", "content_type": "text/plain", "headers": {"x-trace": "1"},
//!  "body_encoding": "utf-8", "body": "Task 4: Send notification to Ada"}
//! ```
//!
//! A body that is not UTF-8 has `body_encoding` `"base64"`. The header `Idempotency-Key` is the task's id (what is no
//! visible ASCII character, and `%`, as `%XX`): the same on every attempt, so that the receiver can leave out what it
//! has done already. That is needed: a request may have been served although its answer was lost.
//!
//! With a secret, `X-Warren-Timestamp` holds seconds since 1970 and `X-Warren-Signature` is `sha256=` and the
//! lower-case hex of HMAC-SHA256 over the timestamp, a `.` and the request's body as received. A receiver computes the
//! same, compares in constant time, and refuses timestamps that are more than some minutes off.
//!
//! # What becomes of the task
//!
//! 2xx: done, with the answer's body as the result. No answer, or one that is cut short: retried. Any other status is
//! retried where the address, the login or the server are to blame, since all tasks fare the same until somebody corrects
//! that, and a reject where the request is:
//!
//! | status | | why |
//! | --- | --- | --- |
//! | 3xx | retry | redirects are not followed, as they would take headers and task elsewhere: set `url` to the final address |
//! | 401, 402, 403, 407 | retry | an expired token, an account, a right, a proxy |
//! | 404, 405, 406, 415, 426 | retry | the receiver is not deployed, or `url`, `method` or `headers` are wrong |
//! | 408, 421, 423, 424, 425, 429 | retry | for now only |
//! | 5xx | retry | the server's own |
//! | 410 | reject | the receiver says on purpose that it wants no more |
//! | 400, 409, 413, 422 and all others | reject | this request: malformed, done already, too large |
//!
//! `retry_on` and `reject_on` change that; the narrowest entry decides. A retry comes after `Retry-After` if the server sends
//! one (seconds or a date, at most a day). When the task should stop, it stops at once; a request that was under way may
//! still be served.
//!
//! A server whose certificate is signed by itself needs that certificate in `ca_file`, and it must not be one of an
//! authority: `openssl req -x509 … -addext basicConstraints=CA:FALSE -addext subjectAltName=DNS:example.com`.
//!
//! URLs, header values and the secret never appear in an error, a log or a result, not even if the server sends them
//! back.

mod answer;
mod classes;
mod payload;
mod request;
mod settings;

use std::time::SystemTime;

use ureq::http::{Request, header};
use warren_plugin::{Call, Failure, Handler, Host, Level, Outcome, Task, reject, retry};

use crate::payload::{Payload, header_value, signature};
use crate::request::Sender;
pub use crate::settings::Settings;
use crate::settings::{Plan, Target};

/// Sends each task to a URL.
pub struct Webhook {
    plan: Plan,
    sender: Sender,
}

impl Handler for Webhook {
    type Settings = Settings;

    fn new(settings: Settings, host: &Host) -> Result<Self, Failure> {
        let plan = settings.check().map_err(|errors| reject("bad-settings", errors.join("; ")))?;
        if plan.exposes_secrets() {
            host.warn("url: headers are sent over a network unencrypted: use https://");
        }
        let sender = Sender::new(plan.roots.clone());
        Ok(Self { plan, sender })
    }

    fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome {
        call.check()?;
        let target = self.plan.target().map_err(|error| retry("settings-unreadable", error))?;
        let origin = target.origin();
        let request = self.request(task, &target)?;
        let limit = call.remaining().map_or(self.plan.timeout, |left| left.min(self.plan.timeout));
        // A secret that the answer repeats may lie across the bound: read on, blacken, then cut.
        let longest_secret = target.secrets.first().map_or(0, String::len);
        let sent = self.sender.send(request, limit, self.plan.max_response + longest_secret + 1, call)?;
        let mut answer = sent.map_err(|no_answer| no_answer.failure(&origin))?;
        answer.scrub(&target.secrets);
        let (status, bytes) = (answer.status.to_string(), answer.body.len());
        if bytes > self.plan.max_response {
            call.logger().log(
                Level::Info,
                "the answer is longer than max_response: cut",
                &[("status", &status)],
            );
        }
        answer.outcome(&origin, self.plan.max_response, &self.plan.classes, SystemTime::now())
    }

    fn quiesce(&mut self, call: &Call<'_>) {
        // If it takes too long, the process ends with it.
        let _ = self.sender.finish_abandoned(call);
    }
}

warren_plugin::export_plugin!(
    Webhook,
    name = "webhook",
    prefixes = ["Send notification"],
    settings = [
        "url",
        "url_file",
        "method",
        "headers",
        "header_files",
        "secret",
        "secret_file",
        "timeout",
        "max_response",
        "retry_on",
        "reject_on",
        "ca_file"
    ]
);

impl Webhook {
    fn request(&self, task: &Task<'_>, target: &Target) -> Result<Request<Vec<u8>>, Failure> {
        let body = serde_json::to_vec(&Payload::of(task))?;
        let mut request = Request::builder()
            .method(self.plan.method.clone())
            .uri(target.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", header_value(task.id()));
        for (name, value) in &target.headers {
            request = request.header(name, value);
        }
        if let Some(secret) = &target.secret {
            let timestamp =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            request = request
                .header("X-Warren-Timestamp", timestamp)
                .header("X-Warren-Signature", signature(secret.as_bytes(), timestamp, &body));
        }
        Ok(request.body(body)?)
    }
}
