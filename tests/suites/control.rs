//! `warrenctl` and the control socket of a real daemon.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use warren_tests::{Broker, Daemon, Home, Keys, Node, artefacts, wait};

/// Far below what a person calls slow, far above the milliseconds that it takes on an idle machine.
const PROMPT: Duration = Duration::from_secs(1);
/// So many questions of each kind.
const ASKED: usize = 20;

fn home(node: &Node, queue: &str) -> Home {
    let home = Home::new(&node.uri(), queue);
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", "");
    home.configure(Keys { queue: "prefetch = 1\nworkers = 4", rest: &rest, ..Keys::default() });
    home
}

/// The status line of the answer to one `GET`.
fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(wait::BOUND)).expect("a bound");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn it_answers_at_once_with_all_workers_busy_and_the_broker_gone() {
    let mut node = Node::own();
    let home = home(&node, "control_busy");
    let mut daemon = Daemon::start(&home);
    let broker = Broker::connect(&node.uri());
    assert_eq!(get(&home.socket(), "/readyz"), "HTTP/1.1 200 OK");
    for n in 1..=4 {
        broker.publish(home.queue(), &format!("t-{n}"), "Scenario hold gate");
    }
    for n in 1..=4 {
        home.wait_run("start", &format!("t-{n}"), 1);
    }
    node.stop().expect("stopped");
    wait::until("the daemon notices", || (daemon.status()["broker"]["state"] != "connected").then_some(()));

    for verb in ["status", "handlers", "active"] {
        let mut took: Vec<Duration> = (0..ASKED)
            .map(|_| {
                let asked = Instant::now();
                daemon.ask(&[verb]);
                asked.elapsed()
            })
            .collect();
        took.sort_unstable();
        eprintln!("warrenctl {verb}: p50 {:?}, at most {:?}", took[ASKED / 2], took[ASKED - 1]);
        assert!(took[ASKED / 2] < PROMPT, "{verb} took {took:?}");
        // A busy machine may hold up a process or two, but never for as long as something is waited for.
        assert!(took[ASKED - 1] < PROMPT + wait::BUSY, "{verb} took {took:?}");
    }
    assert_eq!(get(&home.socket(), "/healthz"), "HTTP/1.1 200 OK");
    assert_eq!(get(&home.socket(), "/readyz"), "HTTP/1.1 503 Service Unavailable");
    let active = daemon.ask(&["active"]);
    assert_eq!(active.as_array().expect("rows").len(), 4, "{active}");
    assert_eq!(active[0]["text"], "Scenario hold gate");
    let mut command = Command::new(artefacts::program("warrenctl"));
    let status = command.arg("--config").arg(home.config()).arg("status").output().expect("warrenctl");
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("NOT READY") && text.contains("control_busy"), "{text}");
    home.release("gate");
    daemon.terminate();
}

#[test]
fn route_is_answered_by_what_is_loaded() {
    let home = home(Node::shared(), "control_route");
    let daemon = Daemon::start(&home);
    let reply = daemon.ask(&["route", "Task 7: Scenario ok"]);
    assert_eq!((&reply["handler"], &reply["argument"]), (&"scenario".into(), &"ok".into()));
    let refused = daemon.warrenctl(&["route", "Nobody's task"]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(!String::from_utf8_lossy(&refused.stdout).contains("No daemon was asked"));
}

#[test]
fn reload_waits_for_the_result_and_fails_with_it() {
    let home = home(Node::shared(), "control_reload");
    let daemon = Daemon::start(&home);
    let fine = daemon.warrenctl(&["reload"]);
    assert_eq!(fine.status.code(), Some(0), "{}", String::from_utf8_lossy(&fine.stderr));
    assert!(String::from_utf8_lossy(&fine.stdout).contains("unchanged"));

    let bad = home.scenario("scenario", "scenario", "")
        + "[handlers.more]\nplugin = \"none\"\nprefixes = [\"More\"]\n";
    home.configure(Keys { queue: "workers = 4", rest: &bad, ..Keys::default() });
    let partial = daemon.warrenctl(&["reload"]);
    assert_eq!(partial.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&partial.stdout).contains("refused"));

    let socket = home.socket();
    home.write_config("[queues.q]\nprefetch = 0\n");
    let broken = daemon.warrenctl(&["reload", "--socket", socket.to_str().expect("UTF-8")]);
    assert_eq!(broken.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("prefetch"));
}

#[test]
fn a_second_daemon_on_the_same_socket_does_not_start() {
    let home = home(Node::shared(), "control_second");
    let first = Daemon::start(&home);
    let mut second = Daemon::spawn(&home, &[]);
    assert!(!second.wait_end().success());
    let said = second.log().since(0).join("\n");
    assert!(said.contains(&format!("another warrend is running (pid {})", first.pid())), "{said}");
    assert_eq!(first.status()["pid"], first.pid());
}

#[test]
fn a_stranger_may_look_where_the_socket_is_open_to_all_and_change_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!("not tested: only root can become another user");
        return;
    }
    let home = home(Node::shared(), "control_stranger");
    let rest = home.scenario("scenario", "scenario", "");
    home.configure(Keys { daemon: "socket_mode = \"0666\"", rest: &rest, ..Keys::default() });
    let daemon = Daemon::start(&home);
    // A directory of its own that nobody can enter, with the program in it.
    let open =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().expect("a directory");
    let program = open.path().join("warrenctl");
    std::fs::copy(artefacts::program("warrenctl"), &program).expect("copy");
    std::fs::set_permissions(home.directory(), Permissions::from_mode(0o711)).expect("mode");
    let ask = |verb: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"])
            .arg(&program)
            .arg("--socket")
            .arg(home.socket())
            .args(verb)
            .output()
            .expect("setpriv is there (util-linux)")
    };
    for verb in [&["status"][..], &["handlers"], &["active"], &["route", "Scenario ok"]] {
        let output = ask(verb);
        assert!(output.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for verb in [&["reload"][..], &["handler", "pause", "scenario"], &["cancel", "t-1"]] {
        let output = ask(verb);
        assert_eq!(output.status.code(), Some(77), "{verb:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(daemon.handler("scenario")["state"], "active");
}
