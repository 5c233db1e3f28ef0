//! The control socket's two ends over a real Unix socket, with a daemon main loop played by the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use warren::config::SocketMode;
use warren::control::client::{Client, ClientError};
use warren::control::server::{ControlServer, Request};
use warren::engine::PauseTarget;
use warren::model::status::{
    ActiveTask, CancelReply, CancelledTask, CancelledWhile, HandlerStatus, PauseReply, ReloadReply,
    RouteReply, Status,
};

/// More than any wait in these tests should last; reaching it is a failure.
const BOUND: Duration = Duration::from_secs(20);

/// A server on a thread of its own; ends when dropped.
pub(super) struct Daemon {
    dir: tempfile::TempDir,
    monitor: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    /// Serves with `answer` as the main loop.
    pub(super) fn start(mut answer: impl FnMut(Request) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let path = dir.path().join("control.sock");
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = ControlServer::bind(&path, SocketMode::Group).unwrap();
                let server = server.monitor("127.0.0.1:0".parse().unwrap()).unwrap();
                bound.send(server.monitor_address().unwrap()).unwrap();
                let (requests, mut inbox) = mpsc::channel(8);
                let main_loop = async {
                    while let Some(request) = inbox.recv().await {
                        answer(request);
                    }
                };
                tokio::select! {
                    () = server.run(requests) => {}
                    () = main_loop => {}
                    _ = stopped => {}
                }
            });
        });
        let monitor = is_bound.recv_timeout(BOUND).unwrap();
        Self { dir, monitor, stop: Some(stop), thread: Some(thread) }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Sends raw bytes and reads to the end.
    fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        // The server may answer and close before it has read everything: then writing fails, reading does not.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn attentive(request: Request) {
    match request {
        Request::Status(reply) => {
            let _ = reply.send(Status { version: "9".into(), pid: 42, ..Status::default() });
        }
        Request::Handlers(reply) => {
            let _ = reply.send(vec![HandlerStatus { name: "backup".into(), ..HandlerStatus::default() }]);
        }
        Request::Active(reply) => {
            let _ = reply.send(vec![ActiveTask { id: "t-1".into(), ..ActiveTask::default() }]);
        }
        Request::Reload(reply) => {
            let _ = reply.send(ReloadReply { ok: true, at_ms: 7, ..ReloadReply::default() });
        }
        Request::Route { text, queue, message_type, reply } => {
            let why = format!("{} bytes, {queue:?}, {message_type:?}", text.len());
            let _ = reply.send(RouteReply { why, ..RouteReply::default() });
        }
        Request::SetPaused { what: PauseTarget::Handler(name), paused, reply } => {
            let state = if paused { "paused" } else { "active" }.to_owned();
            let _ = reply.send(Ok(PauseReply { name, state }));
        }
        Request::SetPaused { what: PauseTarget::Queue(name), reply, .. } => {
            let _ = reply.send(Err(format!("no queue `{name}`")));
        }
        Request::Cancel { task, reply } => {
            let row = CancelledTask { id: task, was: CancelledWhile::Running, ..CancelledTask::default() };
            let _ = reply.send(Ok(CancelReply { cancelled: vec![row] }));
        }
        Request::Ready(reply) => {
            let _ = reply.send(Err("queue `q` is stuck".to_owned()));
        }
    }
}

#[test]
fn every_question_gets_its_answer() {
    let daemon = Daemon::start(attentive);
    let client = daemon.client();
    assert_eq!(client.status().unwrap().pid, 42);
    assert_eq!(client.handlers().unwrap()[0].name, "backup");
    assert_eq!(client.active().unwrap()[0].id, "t-1");
    assert_eq!(client.reload().unwrap().at_ms, 7);
    let text = vec![b'x'; 1 << 20];
    let why = client.route(&text, Some("a queue&more"), Some("typ€")).unwrap().why;
    let handler = PauseTarget::Handler("send mail & more".into());
    for (paused, state) in [(true, "paused"), (false, "active")] {
        let held = client.hold(&handler, paused).unwrap();
        assert_eq!((held.name.as_str(), held.state.as_str()), ("send mail & more", state));
    }
    let refused = client.hold(&PauseTarget::Queue("none".into()), true).unwrap_err();
    assert!(matches!(&refused, ClientError::NoSuch { why } if why == "no queue `none`"), "{refused}");
    assert_eq!(client.cancel("a/1?b").unwrap().cancelled[0].id, "a/1?b");
    assert_eq!(why, "1048576 bytes, Some(\"a queue&more\"), Some(\"typ€\")");
}

#[test]
fn health_and_readiness_are_apart() {
    let daemon = Daemon::start(attentive);
    assert!(daemon.raw("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200"));
    let ready = daemon.raw("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("\"error\":"), "{ready}");
}

#[test]
fn wrong_paths_methods_and_bodies_are_refused_as_json() {
    let daemon = Daemon::start(attentive);
    let head = |line: &str, rest: &str| daemon.raw(&format!("{line} HTTP/1.1\r\nHost: x\r\n{rest}\r\n"));
    let too_large = format!("Content-Length: {}\r\n", 2 << 20);
    for (line, rest, status) in [
        ("GET /v2/status", "", "404"),
        ("POST /v1/status", "", "405"),
        ("GET /v1/reload", "", "405"),
        ("POST /v1/route?colour=red", "", "400"),
        ("POST /v1/route?queue=%zz", "", "400"),
        ("GET /v1/pause?queue=q", "", "405"),
        ("POST /v1/pause", "", "400"),
        ("POST /v1/pause?queue=", "", "400"),
        ("POST /v1/resume?colour=red", "", "400"),
        ("POST /v1/pause?queue=a&handler=b", "", "400"),
        ("POST /v1/pause?queue=a", "", "422"),
        ("POST /v1/cancel", "", "400"),
        ("POST /v1/route", too_large.as_str(), "413"),
    ] {
        let answer = head(line, rest);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
        assert!(answer.contains("{\"error\":"), "{line}: {answer}");
    }
    assert!(head("GET /v1/reload", "").to_lowercase().contains("allow: post"));
}

#[test]
fn a_main_loop_that_does_not_answer_is_a_gateway_timeout_and_health_still_answers() {
    let mut held = Vec::new();
    let daemon = Daemon::start(move |request| held.push(request));
    let started = Instant::now();
    let error = daemon.client().status().unwrap_err();
    assert!(matches!(&error, ClientError::Busy { why, .. } if why.contains("did not answer")), "{error}");
    assert!(started.elapsed() >= Duration::from_secs(5));
    assert!(daemon.raw("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_reload_outlasts_the_answer_timeout_of_others_and_ends_with_its_client() {
    let (held, reloads) = std::sync::mpsc::channel();
    let daemon = Daemon::start(move |request| match request {
        Request::Reload(reply) => held.send(reply).unwrap(),
        other => attentive(other),
    });

    let client = daemon.client();
    let waiting = std::thread::spawn(move || client.reload());
    let reply = reloads.recv_timeout(BOUND).unwrap();
    let other = daemon.client();
    assert_eq!(other.status().unwrap().pid, 42, "a reload keeps nobody else waiting");
    reply.send(ReloadReply { ok: true, ..ReloadReply::default() }).unwrap();
    assert!(waiting.join().unwrap().unwrap().ok);

    let mut hasty = UnixStream::connect(daemon.socket()).unwrap();
    hasty.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut reply = reloads.recv_timeout(BOUND).unwrap();
    drop(hasty);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(BOUND, reply.closed()).await })
        .expect("the main loop learns that nobody waits any more");
}

#[test]
fn silent_clients_lose_their_places_to_those_that_speak() {
    let daemon = Daemon::start(attentive);
    let silent: Vec<_> = (0..64).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
    assert_eq!(daemon.client().status().unwrap().pid, 42, "served once a silent one has timed out");
    drop(silent);
}

#[test]
fn idle_clients_of_the_monitoring_address_take_no_place_of_the_control_socket_and_time_out() {
    // A client that finds the backlog full is one that waits there.
    const WAIT: Duration = Duration::from_millis(10);
    const TRIES: usize = 5;
    let daemon = Daemon::start(attentive);
    // The first one is served first and times out first: while it is there, no place has become free. A try in which the
    // machine was too slow to ask before that says nothing.
    let served_beside_them = (0..TRIES).any(|_| {
        let clients = (0..400).filter_map(|_| TcpStream::connect_timeout(&daemon.monitor, WAIT).ok());
        let mut idle: Vec<_> = clients.collect();
        assert!(idle.len() > 100, "{}", idle.len());
        assert_eq!(daemon.client().status().unwrap().pid, 42);
        idle[0].set_nonblocking(true).unwrap();
        let is_there = idle[0].read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        idle[0].set_nonblocking(false).unwrap();
        idle[0].set_read_timeout(Some(BOUND)).unwrap();
        assert_eq!(idle[0].read(&mut [0]).unwrap(), 0, "an idle client is hung up on");
        is_there
    });
    assert!(served_beside_them);
}

#[test]
fn without_a_daemon_the_error_names_the_socket_and_the_remedy() {
    let daemon = Daemon::start(attentive);
    let path = daemon.socket();
    drop(daemon);
    for path in [path.as_path(), Path::new("/nonexistent/control.sock")] {
        let error = Client::new(path).status().unwrap_err();
        assert!(matches!(error, ClientError::NoDaemon { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("--socket"), "{text}");
    }
}

#[test]
fn a_main_loop_that_is_gone_is_told_as_stopping() {
    let daemon = Daemon::start(drop);
    let error = daemon.client().handlers().unwrap_err();
    assert!(matches!(&error, ClientError::Busy { why, .. } if why.contains("stopping")), "{error}");
}

#[test]
fn metrics_are_prometheus_text_on_the_socket_and_on_the_monitoring_address() {
    let daemon = Daemon::start(attentive);
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    for answer in [daemon.raw(request), over_tcp(daemon.monitor, request)] {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("warren_build_info{version=\"9\"} 1"), "{answer}");
    }
}

#[test]
fn the_monitoring_address_shows_health_and_metrics_and_nothing_else() {
    let daemon = Daemon::start(attentive);
    for (line, status) in [
        ("GET /healthz", "200"),
        ("GET /readyz", "503"),
        ("GET /v1/status", "403"),
        ("GET /v1/active", "403"),
        ("POST /v1/reload", "403"),
        ("POST /v1/cancel?task=t", "403"),
        ("POST /v1/route", "403"),
    ] {
        let answer = over_tcp(daemon.monitor, &format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
    }
}

fn over_tcp(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
