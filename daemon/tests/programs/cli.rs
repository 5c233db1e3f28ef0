//! `warrenctl` as a user meets it: the built program, its output and its exit codes.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use warren::control::server::Request;
use warren::model::status::{HandlerStatus, ReloadReply, RouteReply, Status};

use super::control::Daemon;

/// Every verb, as words of the command line.
const VERBS: &[&[&str]] = &[
    &["status"],
    &["top"],
    &["handlers"],
    &["active"],
    &["reload"],
    &["doctor"],
    &["route"],
    &["dead"],
    &["dead", "list"],
    &["dead", "show"],
    &["dead", "replay"],
    &["dead", "drop"],
    &["dead", "export"],
    &["config"],
    &["config", "check"],
    &["config", "show"],
    &["publish"],
    &["plugin"],
    &["plugin", "inspect"],
];

fn warrenctl(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warrenctl"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WARREN_") {
            command.env_remove(name);
        }
    }
    command
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "stderr: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "no {part:?} in stderr: {stderr}");
    }
    assert!(!stderr.contains("panicked") && !stderr.contains("backtrace"), "{stderr}");
}

/// Runs `body` beside a control server whose main loop is `answer`.
fn with_daemon(answer: impl FnMut(Request) + Send + 'static, body: impl FnOnce(&Path)) {
    let daemon = Daemon::start(answer);
    body(&daemon.socket());
}

#[test]
fn wrong_usage_is_64() {
    for arguments in [&[][..], &["colour"], &["status", "--colour"], &["route"], &["status", "--socket"]] {
        assert_ends(&warrenctl(arguments), 64, &["help"]);
    }
}

#[test]
fn dead_letters_are_not_touched_by_a_careless_command_line() {
    let table: [(&str, &str); 11] = [
        ("replay", "--all"),
        ("replay --dry-run", "--all"),
        ("replay --to tasks", "--all"),
        ("replay --all --id o-1", "leave one of the two out"),
        ("drop --yes", "--all"),
        ("drop --all --handler orders --yes", "leave one of the two out"),
        ("drop --all", "--yes"),
        ("show", "ID"),
        ("list --reason bored", "too_large"),
        ("list --older-than yesterday", "whole number"),
        ("export --look-at 0", "look-at"),
    ];
    for (words, part) in table {
        let arguments: Vec<&str> = ["dead"].into_iter().chain(words.split(' ')).collect();
        assert_ends(&warrenctl(&arguments), 64, &[part]);
    }
}

#[test]
fn help_of_every_verb_has_examples() {
    for verb in VERBS {
        for flag in ["--help", "-h"] {
            let output = warrenctl(&[verb, &[flag][..]].concat());
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(0), "{verb:?}");
            assert!(text.contains("Examples:\n  "), "{verb:?} {flag}:\n{text}");
            assert!(text.contains(&format!("warrenctl {}", verb[0])), "{verb:?} {flag}:\n{text}");
        }
    }
    let text = String::from_utf8(warrenctl(&["--help"]).stdout).unwrap();
    assert!(text.contains("Exit status:") && text.contains("Examples:"), "{text}");
    assert_eq!(warrenctl(&["--version"]).status.code(), Some(0));
}

#[test]
fn without_a_daemon_it_is_69_and_says_where_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let config = dir.path().join("warren.toml");
    std::fs::write(&config, format!("[daemon]\nsocket = {:?}\n", socket.to_str().unwrap())).unwrap();
    let (socket, config) = (socket.to_str().unwrap(), config.to_str().unwrap());
    for verb in ["status", "handlers", "active", "reload"] {
        assert_ends(&warrenctl(&[verb, "--socket", socket]), 69, &["warrenctl: no daemon", socket]);
        assert_ends(&warrenctl(&[verb, "--config", config]), 69, &["warrenctl: no daemon", socket]);
    }
}

#[test]
fn json_is_what_the_daemon_said() {
    let answer = |request| match request {
        Request::Status(reply) => drop(reply.send(Status { pid: 4711, ..Status::default() })),
        Request::Handlers(reply) => {
            drop(reply.send(vec![HandlerStatus { name: "backup".into(), ..HandlerStatus::default() }]));
        }
        Request::Active(reply) => drop(reply.send(Vec::new())),
        _ => {}
    };
    with_daemon(answer, |socket| {
        let ask = |verb: &str| -> serde_json::Value {
            let output = warrenctl(&[verb, "--json", "--socket", socket.to_str().unwrap()]);
            assert_ends(&output, 0, &[]);
            serde_json::from_slice(&output.stdout).unwrap()
        };
        assert_eq!(ask("status")["pid"], 4711);
        assert_eq!(ask("handlers")[0]["name"], "backup");
        assert_eq!(ask("active"), serde_json::json!([]));
        let text = warrenctl(&["status", "--socket", socket.to_str().unwrap()]);
        assert!(String::from_utf8_lossy(&text.stdout).contains("pid 4711"));
    });
}

#[test]
fn a_reload_that_failed_fails_the_command() {
    let mut replies = vec![
        (78, ReloadReply { error: Some("warren.toml:3: bad".into()), ..ReloadReply::default() }),
        (75, ReloadReply::default()),
        (0, ReloadReply { ok: true, ..ReloadReply::default() }),
    ];
    let codes: Vec<i32> = replies.iter().map(|(code, _)| *code).collect();
    let answer = move |request| {
        if let Request::Reload(reply) = request {
            let _ = reply.send(replies.remove(0).1);
        }
    };
    with_daemon(answer, |socket| {
        for code in codes {
            assert_ends(&warrenctl(&["reload", "--socket", socket.to_str().unwrap()]), code, &[]);
        }
    });
}

#[test]
fn route_asks_the_daemon_and_an_unroutable_task_is_65() {
    let answer = |request| {
        if let Request::Route { text, queue, message_type, reply } = request {
            assert_eq!((queue.as_deref(), message_type.as_deref()), (Some("q"), Some("t")));
            let handler = text.starts_with(b"Backup").then(|| "backup".to_owned());
            let _ = reply.send(RouteReply { handler, why: "because".into(), ..RouteReply::default() });
        }
    };
    with_daemon(answer, |socket| {
        let socket = socket.to_str().unwrap();
        let route = |text| warrenctl(&["route", text, "--queue", "q", "--type", "t", "--socket", socket]);
        let taken = route("Backup database");
        assert_ends(&taken, 0, &[]);
        let text = String::from_utf8_lossy(&taken.stdout).into_owned();
        assert!(text.contains("backup") && text.contains("because"), "{text}");
        assert_ends(&route("Nothing"), 65, &["unroutable"]);
    });
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let answer = |request| {
        if let Request::Handlers(reply) = request {
            // More than a pipe holds, so that the write must fail.
            let _ =
                reply.send(vec![HandlerStatus { name: "x".repeat(1000), ..HandlerStatus::default() }; 500]);
        }
    };
    with_daemon(answer, |socket| {
        let mut child = command(&["handlers", "--socket", socket.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let mut first = [0; 10];
        pipe.read_exact(&mut first).unwrap();
        drop(pipe);
        assert_ends(&child.wait_with_output().unwrap(), 0, &[]);
    });
}

/// A directory with a configuration in it.
fn configured(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("warren.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn every_error_of_a_configuration_is_shown_and_the_code_is_78() {
    let (_dir, path) = configured("[queues.q]\nprefetch = 0\nworkers = 0\n");
    let check = warrenctl(&["config", "check", "--config", &path]);
    assert_ends(&check, 78, &["2 errors", "prefetch", "workers", "warren.toml:2"]);
    let check = warrenctl(&["config", "check", "--json", "--config", &path]);
    assert_ends(&check, 78, &[]);
    let json: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["errors"][1]["key"], "queues.q.workers");
    assert_ends(&warrenctl(&["config", "show", "--config", &path]), 78, &["2 errors"]);
    assert_ends(
        &warrenctl(&["config", "check", "--config", "/nonexistent.toml"]),
        78,
        &["/nonexistent.toml"],
    );
}

#[test]
fn the_effective_configuration_is_shown_without_its_secrets() {
    let (_dir, path) =
        configured("[broker]\nuri = \"amqp://joe:hunter2@127.0.0.1:1/%2f\"\n[queues.q]\nworkers = 7\n");
    let check = warrenctl(&["config", "check", "--config", &path]);
    assert_ends(&check, 0, &[]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("usable: 1 queues"));
    let toml = warrenctl(&["config", "show", "--config", &path]);
    assert_ends(&toml, 0, &[]);
    let toml: toml::Table = String::from_utf8(toml.stdout).unwrap().parse().unwrap();
    assert_eq!(toml["queues"]["q"]["workers"].as_integer(), Some(7));
    let json = warrenctl(&["config", "show", "--json", "--config", &path]);
    let text = String::from_utf8(json.stdout).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["queues"]["q"]["workers"], 7);
    assert!(!text.contains("hunter2") && !toml.to_string().contains("hunter2"), "{text}");
}

#[test]
fn publish_refuses_what_it_cannot_mean() {
    let (dir, path) = configured("[queues.a]\n[queues.b]\n");
    let long = "x".repeat(256);
    for (arguments, part) in [
        (&["--id", "1", "one", "two"][..], "exactly one"),
        (&["--id", "1", "-"], "exactly one"),
        (&["one", "-"], "cannot stand beside"),
        (&[" "], "empty task"),
        (&["one"], "--queue one of a, b"),
        (&["--queue", "c", "one"], "no queue `c`"),
        (&["--header", "novalue", "one"], "NAME=VALUE"),
        (&["--expires", "soon", "one"], "10m"),
        (&["--expires", "0s", "one"], "from 1ms"),
        (&["--delay", "soon", "one"], "\"10m\""),
        (&["--delay", "0s", "one"], "3650d"),
        (&["--at", "2026-12-01T08:00:00", "one"], "zone"),
        (&["--at", "tomorrow", "one"], "2026-12-01T08:00:00Z"),
        (&["--at", "2001-01-01T00:00:00Z", "--delay", "1s", "one"], "--at"),
        (&["--wait=soon", "one"], "10m"),
        (&["--wait", "30s", "one"], "--wait=30s"),
        (&["--priority", "256", "one"], "255"),
        (&["--id", &long, "one"], "255"),
        (&["--file", "f", "one"], "--file"),
        (&[], "TEXT"),
    ] {
        let output = warrenctl(&[&["publish", "--config", &path][..], arguments].concat());
        assert_ends(&output, 64, &[part]);
    }
    let output = warrenctl(&["publish", "--config", &path, "--file", "/nonexistent"]);
    assert_ends(&output, 65, &["/nonexistent"]);
    let file = dir.path().join("tasks");
    std::fs::write(&file, "task\n".repeat(257)).unwrap();
    let file = file.to_str().unwrap();
    let output = warrenctl(&["publish", "--config", &path, "--queue", "a", "--wait", "--file", file]);
    assert_ends(&output, 64, &["nothing was sent", "more than 256 tasks with --wait"]);
}

#[test]
fn without_a_broker_publish_is_69_and_tells_no_password() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (_dir, path) =
        configured(&format!("[broker]\nuri = \"amqp://joe:hunter2@127.0.0.1:{port}/%2f\"\n[queues.q]\n"));
    let output = warrenctl(&["publish", "--config", &path, "one"]);
    assert_ends(&output, 69, &["broker"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
}

#[test]
fn a_file_that_is_no_plugin_is_65_and_the_reason_is_given() {
    let (_dir, path) = configured("this is text");
    for json in [&[][..], &["--json"]] {
        let output = warrenctl(&[&["plugin", "inspect", &path][..], json].concat());
        assert_ends(&output, 65, &["cannot be loaded"]);
        assert!(!output.stdout.is_empty());
    }
    assert_ends(&warrenctl(&["plugin", "inspect", "/nonexistent.so"]), 65, &["/nonexistent.so"]);
}

#[test]
fn without_a_daemon_route_goes_by_the_files() {
    let (dir, path) = configured(
        "[queues.a]\n[queues.b]\n[plugins]\ndir = \"plugins\"\n[daemon]\nsocket = \"control.sock\"\n\
         [handlers.mail]\nplugin = \"send-email\"\nprefixes = [\"Send email\"]\nqueues = [\"b\"]\n",
    );
    std::fs::create_dir(dir.path().join("plugins")).unwrap();
    let route = |more: &[&str]| warrenctl(&[&["route", "--config", &path][..], more].concat());
    let taken = route(&["--queue", "b", "--json", "Task 1: Send email to x"]);
    assert_ends(&taken, 0, &["no plugin `send-email`"]);
    let reply: RouteReply = serde_json::from_slice(&taken.stdout).unwrap();
    assert_eq!(reply.handler.as_deref(), Some("mail"));
    assert_eq!(reply.argument.as_deref(), Some("to x"));
    assert!(reply.why.contains("No daemon was asked"), "{}", reply.why);
    assert_ends(&route(&["Task 1: Send email to x"]), 65, &["unroutable"]);
    assert_ends(&route(&["--offline", "Send emails"]), 65, &["unroutable"]);
}
