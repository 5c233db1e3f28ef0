//! `warrenctl plugin` and `warrenctl route` with real plugins in real plugin hosts.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use warren_tests::artefacts;

fn warrenctl(arguments: &[&str]) -> Output {
    Command::new(artefacts::program("warrenctl")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn exec(verb: &str, arguments: &[&str]) -> Output {
    let plugin = artefacts::plugin("exec");
    warrenctl(&[&["plugin", verb, plugin.to_str().unwrap()], arguments].concat())
}

/// Settings of `exec` that run a shell script.
fn script(text: &str) -> String {
    json!({"command": ["/bin/sh", "-c", text, "sh", "{argument}"]}).to_string()
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[test]
fn inspect_tells_what_the_note_says() {
    let plugin = artefacts::plugin("orders");
    let facts = json(&warrenctl(&["plugin", "inspect", "--json", plugin.to_str().unwrap()]));
    assert_eq!(facts["ok"], true);
    assert_eq!(facts["name"], "orders");
    assert!(facts["prefixes"].as_array().unwrap().contains(&json!("Process order")));
    assert_eq!(facts["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn check_starts_the_plugin_and_shows_why_it_refuses_its_settings() {
    assert_ends(&exec("check", &["--settings", &script("true")]), 0, &[]);
    assert_ends(&exec("check", &[]), 78, &["does not start", "command"]);
    assert_ends(&exec("check", &["--settings", "[]"]), 64, &["no object"]);
    let answer = json(&exec("check", &["--json", "--settings", r#"{"colour": "red"}"#]));
    assert_eq!(answer["ok"], false);
    assert!(answer["error"]["message"].as_str().unwrap().contains("colour"), "{answer}");
}

#[test]
fn check_takes_settings_of_a_configured_handler() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("warren.toml");
    let text = "[queues.q]\n[handlers.good]\nplugin = \"exec\"\nprefixes = [\"Do\"]\n\
                [handlers.good.settings]\ncommand = [\"/bin/true\"]\n\
                [handlers.bad]\nplugin = \"exec\"\nprefixes = [\"Undo\"]\n";
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    assert_ends(&exec("check", &["--config", config, "--handler", "good"]), 0, &[]);
    assert_ends(&exec("check", &["--config", config, "--handler", "bad"]), 78, &["command"]);
    assert_ends(&exec("check", &["--config", config, "--handler", "none"]), 64, &["good"]);
    let ran = json(&exec("run", &["--config", config, "--handler", "good", "--json", "Do it"]));
    assert_eq!(ran["outcome"], "done");
}

#[test]
fn run_shows_the_outcome_and_its_exit_code_says_it() {
    let run = |text: &str| exec("run", &["--settings", &script(text), "the argument"]);
    let done = run("echo \"got $1\"; echo noise >&2");
    assert_ends(&done, 0, &["noise"]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains("outcome   done") && text.contains("got the argument"), "{text}");
    assert_ends(&run("exit 65"), 65, &["rejects"]);
    assert_ends(&run("exit 75"), 75, &["another attempt"]);
}

#[test]
fn run_hands_over_every_field_of_the_task() {
    let script = json!({"command": ["/bin/echo", "{argument}", "{id}", "{attempt}", "{queue}"]}).to_string();
    let ran = json(&exec(
        "run",
        &["--settings", &script, "--id", "t-1", "--attempt", "3", "--queue", "mail", "--json", " some text "],
    ));
    assert_eq!(ran["outcome"], "done", "{ran}");
    assert_eq!(ran["result"]["body"], "some text t-1 3 mail");
}

#[test]
fn run_stops_a_task_at_its_time_limit_and_leaves_no_process() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let script = script(&format!("echo $$ > {}; sleep 1000 & wait", pid.display()));
    assert_ends(&exec("run", &["--settings", &script, "--timeout", "200ms", "go"]), 70, &["time"]);
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the command outlived its task");
}

#[test]
fn run_shows_follow_ups_and_sends_none() {
    let directory = tempfile::tempdir().unwrap();
    let settings = json!({"database": directory.path().join("orders.db")}).to_string();
    let plugin = artefacts::plugin("orders");
    let words =
        ["plugin", "run", plugin.to_str().unwrap(), "Task 1: Process order #1001", "--id", "o-1", "--json"];
    let ran = json(&warrenctl(&[&words[..], &["--settings", &settings]].concat()));
    assert_eq!(ran["outcome"], "done", "{ran}");
    let bodies: Vec<_> =
        ran["follow_ups"].as_array().unwrap().iter().map(|one| one["body"].as_str().unwrap()).collect();
    assert!(bodies.iter().any(|body| body.starts_with("Process payment")), "{bodies:?}");
    assert!(bodies.iter().any(|body| body.starts_with("Update inventory")), "{bodies:?}");
}

#[test]
fn route_knows_the_plugins_on_disk_without_running_them() {
    let directory = tempfile::tempdir().unwrap();
    let plugins = directory.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::copy(artefacts::plugin("orders"), plugins.join("orders.so")).unwrap();
    let config = directory.path().join("warren.toml");
    std::fs::write(&config, "[queues.q]\n[plugins]\ndir = \"plugins\"\n").unwrap();
    let words = ["route", "--offline", "--json", "--config", config.to_str().unwrap()];
    let reply = json(&warrenctl(&[&words[..], &["Task 1: Process order #1001"]].concat()));
    assert_eq!(reply["handler"], "orders");
    assert_eq!(reply["prefix"], "Process order");
    assert_eq!(reply["argument"], "#1001");
}
