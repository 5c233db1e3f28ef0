//! `warrenctl top`, on a terminal of its own and in a pipe, before a real daemon.

mod pty;

use std::process::{Command, Stdio};

use rustix::process::Signal;
use warren_tests::{Broker, Daemon, Home, Keys, Node, artefacts, wait};

use pty::Pty;

/// Four workers, one of them with a task that goes on until `gate` is released.
fn busy(queue: &str) -> (Home, Daemon) {
    let node = Node::shared();
    let home = Home::new(&node.uri(), queue);
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", "");
    home.configure(Keys { queue: "prefetch = 1\nworkers = 4", rest: &rest, ..Keys::default() });
    let daemon = Daemon::start(&home);
    Broker::connect(&node.uri()).publish(home.queue(), "t-1", "Scenario hold gate");
    home.wait_run("start", "t-1", 1);
    (home, daemon)
}

/// The words of `warrenctl top` on a socket, with others before them.
fn top(before: &[&str], home: &Home, arguments: &[&str]) -> Vec<String> {
    let program = artefacts::program("warrenctl").display().to_string();
    let socket = home.socket().display().to_string();
    let own = [&program, "--socket", &socket, "top"];
    before.iter().chain(&own).chain(arguments).map(|word| (*word).to_owned()).collect()
}

fn start(words: &[String]) -> Pty {
    Pty::start(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Runs it without a terminal: its exit code, stdout and stderr.
fn run(home: &Home, arguments: &[&str]) -> (Option<i32>, String, String) {
    let words = top(&[], home, arguments);
    let output = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output().expect("warrenctl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn it_follows_the_daemon_and_gives_the_terminal_back() {
    let (home, mut daemon) = busy("top_live");
    let mut pty = start(&top(&[], &home, &["--interval", "250ms"]));
    pty.wait(&["running, ready", "top_live", "consuming", "1/4", "scenario", "active", "t-1", "every 250ms"]);
    assert!(pty.picture().screen().alternate_screen());

    let broker = Broker::connect(&Node::shared().uri());
    broker.publish(home.queue(), "t-2", "Scenario hold gate");
    pty.wait(&["2/4", "t-2"]);
    pty.keys("-");
    pty.wait(&["every 500ms"]);
    pty.resize(40, 160);
    // There is room for the sparklines of the waits, under a title of their own.
    let titles = |pty: &Pty| pty.picture().screen().rows(0, 160).map(|row| row.matches("WAIT").count()).max();
    wait::until("it fills the larger terminal", || (titles(&pty) == Some(3)).then_some(()));

    // Frozen, it shows neither that the tasks are done nor that the daemon is gone.
    pty.keys("p");
    pty.wait(&["FROZEN"]);
    home.release("gate");
    home.wait_ends(2);
    daemon.terminate();
    pty.wait(&["FROZEN", "2/4"]);
    pty.keys("p");
    pty.wait(&["what follows is old: no daemon answers"]);
    let mut daemon = Daemon::start(&home);
    pty.wait(&["running, ready", "0/4", "none"]);
    assert!(!pty.picture().screen().contents().contains("what follows is old"));

    pty.keys("q");
    assert!(pty.wait_end().success());
    pty.assert_given_back();
    daemon.terminate();
}

#[test]
fn ctrl_c_and_signals_give_the_terminal_back() {
    let (home, mut daemon) = busy("top_signals");
    let mut quit = start(&top(&[], &home, &[]));
    quit.wait(&["top_signals"]);
    quit.keys("\x03");
    assert!(quit.wait_end().success());
    quit.assert_given_back();

    let mut ended = start(&top(&[], &home, &[]));
    ended.wait(&["top_signals"]);
    ended.signal(Signal::TERM);
    assert_eq!(ended.wait_end().code(), Some(130));
    ended.assert_given_back();
    home.release("gate");
    daemon.terminate();
}

#[test]
fn it_ends_with_its_terminal_even_if_nobody_tells_it() {
    let (home, mut daemon) = busy("top_hangup");
    let mut pty = start(&top(&["env", "--ignore-signal=HUP"], &home, &[]));
    pty.wait(&["top_hangup"]);
    pty.hang_up();
    // It may see that first when it reads, or when it writes.
    let status = pty.wait_end();
    assert!(matches!(status.code(), Some(0 | 74)), "{status}");
    home.release("gate");
    daemon.terminate();
}

#[test]
fn once_it_is_text_or_json() {
    let (home, mut daemon) = busy("top_once");
    let (code, text, said) = run(&home, &["--once", "--interval", "250ms"]);
    assert_eq!(code, Some(0), "{said}");
    for part in ["running, ready", "QUEUE", "top_once", "1/4", "HANDLER", "scenario", "RUNNING TASK", "t-1"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains('\x1b') && !text.contains("q quit"), "{text}");

    let figures = daemon.ask(&["top", "--interval", "250ms"]);
    assert_eq!(figures["ready"], true, "{figures}");
    assert_eq!((&figures["queues"][0]["running"], &figures["queues"][0]["workers"]), (&1.into(), &4.into()));
    assert_eq!(figures["active"][0]["id"], "t-1", "{figures}");
    home.release("gate");
    daemon.terminate();
}

#[test]
fn without_a_terminal_or_a_daemon_it_says_so() {
    let home = Home::new("amqp://127.0.0.1:1/", "top_none");
    let (code, _, said) = run(&home, &[]);
    assert!(code == Some(64) && said.contains("--once"), "{code:?} {said}");
    let (code, _, said) = run(&home, &["--once"]);
    assert!(code == Some(69) && said.contains("no daemon answers"), "{code:?} {said}");
    let (code, _, said) = run(&home, &["--interval", "1ms"]);
    assert!(code == Some(64) && said.contains("from 250ms to 1m"), "{code:?} {said}");

    let mut pty = start(&top(&[], &home, &[]));
    assert_eq!(pty.wait_end().code(), Some(69));
    pty.wait(&["no daemon answers"]);
    assert!(!pty.picture().screen().alternate_screen());
}
