//! Sending one request so that a cancel ends the wait at once. The HTTP client blocks, so it runs on a thread; the
//! handler's thread waits for that one and for the cancel fd together. A request that is abandoned ends by its own
//! time limit, and there is never more than one: the next waits for it.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use ureq::Agent;
use ureq::http::{Request, header};
use ureq::tls::{RootCerts, TlsConfig};
use warren_plugin::{Call, Failure, retry};

use crate::answer::Answer;

/// How long a connection that is not used is kept for the next task.
const IDLE: Duration = Duration::from_secs(15);

/// A thread that sends.
struct Sending {
    thread: JoinHandle<()>,
    /// Ends when the thread has ended or is about to.
    ended: PipeReader,
}

/// Sends requests, one at a time.
pub(crate) struct Sender {
    agent: Agent,
    /// The request that was abandoned when its task was cancelled.
    abandoned: Option<Sending>,
}

/// Why no answer came. It never quotes the address.
pub(crate) struct NoAnswer {
    code: &'static str,
    why: String,
}

impl Sender {
    /// A sender that trusts these certificates.
    pub(crate) fn new(roots: RootCerts) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .max_idle_age(IDLE)
            .user_agent(concat!("warren-webhook/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Self { agent: Agent::new_with_config(config), abandoned: None }
    }

    /// Sends the request and reads at most `max_body` bytes of the answer, all within `limit`.
    pub(crate) fn send(
        &mut self,
        request: Request<Vec<u8>>,
        limit: Duration,
        max_body: usize,
        call: &Call<'_>,
    ) -> Result<Result<Answer, NoAnswer>, Failure> {
        self.finish_abandoned(call)?;
        let (ended, ends) = std::io::pipe()?;
        let (result, results) = mpsc::channel();
        let agent = self.agent.clone();
        let thread = std::thread::Builder::new().name("webhook".to_owned()).spawn(move || {
            // Nobody listens any more when the task was cancelled.
            let _ = result.send(perform(&agent, request, limit, max_body));
            drop(ends);
        })?;
        self.abandoned = Some(Sending { thread, ended });
        self.finish_abandoned(call)?;
        results.recv().map_err(|_| retry("client-panicked", "the HTTP client panicked"))
    }

    /// Waits for the thread that is at work, if there is one. The error is that the task should stop.
    pub(crate) fn finish_abandoned(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        if let Some(sending) = &self.abandoned {
            wait(&sending.ended, call)?;
        }
        if let Some(sending) = self.abandoned.take() {
            // What it panicked with is in the log; that it did shows in the missing result.
            let _ = sending.thread.join();
        }
        Ok(())
    }
}

impl NoAnswer {
    /// As the task's outcome; `to` is the server, as it may be shown.
    pub(crate) fn failure(self, to: &str) -> Failure {
        retry(self.code, format!("no answer from {to}: {}", self.why))
    }
}

/// Waits until the pipe's other end is closed, or the task should stop.
fn wait(ended: &PipeReader, call: &Call<'_>) -> Result<(), Failure> {
    loop {
        call.check()?;
        let mut fds = vec![PollFd::new(ended, PollFlags::IN)];
        let cancel = call.cancel_fd();
        fds.extend(cancel.as_ref().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
        let timeout = call.remaining().and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn perform(
    agent: &Agent,
    request: Request<Vec<u8>>,
    limit: Duration,
    max_body: usize,
) -> Result<Answer, NoAnswer> {
    let end = Instant::now() + limit;
    let request = agent.configure_request(request).timeout_global(Some(limit)).build();
    let response = agent.run(request).map_err(|error| NoAnswer::from_error(&error))?;
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (retry_after, content_type) = (header(header::RETRY_AFTER), header(header::CONTENT_TYPE));
    let status = response.status();
    let mut answer = Answer {
        status: status.as_u16(),
        retry_after,
        content_type: content_type.unwrap_or_default(),
        body: Vec::new(),
    };
    let mut reader = response.into_body().into_reader();
    let mut buffer = vec![0; 16 * 1024];
    while answer.body.len() < max_body {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.body.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What is not done is told by the status alone; what is done should be told in full.
            Err(_) if !status.is_success() => break,
            Err(error) => return Err(NoAnswer::from_error(&error.into())),
        }
        // The client looks at its limit only when it has to wait, and an endless body never lets it.
        if Instant::now() >= end {
            return Err(NoAnswer::timeout());
        }
    }
    Ok(answer)
}

impl NoAnswer {
    fn timeout() -> Self {
        Self { code: "timeout", why: "not answered in full within the time limit".to_owned() }
    }

    /// Only words that cannot contain the address or what was sent.
    fn from_error(error: &ureq::Error) -> Self {
        let (code, why) = match error {
            ureq::Error::Timeout(_) => return Self::timeout(),
            ureq::Error::HostNotFound => ("host-not-found", "the host's name cannot be resolved".to_owned()),
            ureq::Error::Tls(why) => ("tls", (*why).to_owned()),
            ureq::Error::Rustls(why) => ("tls", tls(why)),
            ureq::Error::Io(why) => match why.kind() {
                ErrorKind::TimedOut => return Self::timeout(),
                ErrorKind::ConnectionRefused => ("connection-refused", why.to_string()),
                ErrorKind::InvalidData => ("tls", tls(why)),
                _ => ("network", why.to_string()),
            },
            ureq::Error::ConnectionFailed => ("network", "the connection failed".to_owned()),
            ureq::Error::Protocol(why) => ("bad-answer", why.to_string()),
            ureq::Error::LargeResponseHeader(..) => ("bad-answer", "its headers are too large".to_owned()),
            _ => ("network", "the HTTP client failed".to_owned()),
        };
        Self { code, why }
    }
}

/// What the TLS library says, with the remedy where its words hide it.
fn tls(why: &impl std::fmt::Display) -> String {
    let why = why.to_string();
    if why.contains("CaUsedAsEndEntity") {
        return "the server shows the certificate of an authority as its own, as `openssl req -x509` makes it, and that is \
                refused even where ca_file names it: make the server's certificate with -addext \
                basicConstraints=CA:FALSE and -addext subjectAltName=DNS:its-name, and name it in ca_file"
            .to_owned();
    }
    why
}
