//! The handler as a task meets it: real commands, run through the SDK's test kit.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use warren_exec::Exec;
use warren_plugin::testing::{Ran, TaskSpec, TestKit};
use warren_plugin::{Done, Level};

/// `base` with the keys of `more`.
fn with(mut base: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        base[key] = value.clone();
    }
    base
}

fn kit(settings: Value) -> TestKit<Exec> {
    TestKit::new(settings).expect("good settings").prefixes(["Run"]).real_clock()
}

/// A kit that runs a shell script, with further settings. The script gets the argument text as `$1`.
fn script(script: &str, more: &Value) -> TestKit<Exec> {
    kit(with(json!({ "command": ["/bin/sh", "-c", script, "sh", "{argument}"] }), more))
}

fn text(ran: &Ran) -> String {
    ran.done().as_text().into_owned()
}

#[test]
fn an_argument_reaches_the_command_as_one_argument_whatever_it_contains() {
    let mut kit = kit(json!({
        "command": ["/bin/sh", "-c", r#"printf '<%s>' "$@""#, "sh", "--id={id}", "{argument}", "{attempt}{{}}"],
    }));
    for argument in ["a b", "; touch /tmp/x", "$(id)", "`id`", "\"'\\", "-rf *", "{id}", "a\nb", "ü"] {
        let ran = kit.run(TaskSpec::text(format!("Task 7: Run {argument}")).id("t-1").attempt(3));
        assert_eq!(text(&ran), format!("<--id=t-1><{argument}><3{{}}>"));
    }
}

#[test]
fn the_body_is_on_stdin_unless_switched_off() {
    let task = || TaskSpec::typed("Run", b"line 1\nline 2".to_vec());
    assert_eq!(text(&script("cat", &json!({})).run(task())), "line 1\nline 2");
    assert_eq!(script("cat", &json!({ "stdin": false })).run(task()).done(), &Done::empty());
}

#[test]
fn the_environment_is_the_base_the_settings_and_the_task() {
    let mut kit = kit(json!({ "command": ["env"], "env": { "MODE": "fast" } }));
    let ran =
        kit.run(TaskSpec::text("Run it").id("t-1").redelivered().queue("q").header("x-trace-id", "abc"));
    let text = text(&ran);
    let lines: Vec<_> = text.lines().collect();
    for line in [
        "MODE=fast",
        "WARREN_TASK_ID=t-1",
        "WARREN_TASK_ATTEMPT=1",
        "WARREN_TASK_REDELIVERED=1",
        "WARREN_TASK_QUEUE=q",
        "WARREN_TASK_PREFIX=Run",
        "WARREN_TASK_ARGUMENT=it",
        "WARREN_TASK_HEADER_X_TRACE_ID=abc",
    ] {
        assert!(lines.contains(&line), "{line} is missing in {text}");
    }
    assert!(lines.iter().any(|line| line.starts_with("PATH=/")));
    // The test itself runs with CARGO_… variables; none of them may come through.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO_")));
    assert!(!lines.iter().any(|line| line.starts_with("CARGO_")), "{text}");
}

#[test]
fn the_exit_status_decides() {
    for (more, status, code, rejected) in [
        (json!({}), 65, "exit-65", true),
        (json!({}), 75, "exit-75", false),
        (json!({}), 1, "exit-1", false),
        (json!({ "reject": [1, 2] }), 2, "exit-2", true),
        (json!({ "reject": [] }), 65, "exit-65", false),
        (json!({ "done": [3] }), 0, "exit-0", false),
    ] {
        let ran = script("exit $1", &more).run(format!("Run {status}"));
        assert_eq!((ran.failure().code(), ran.failure().is_reject()), (code, rejected), "{more}");
        assert_eq!(ran.failure().is_retry(), !rejected);
    }
    script("exit $1", &json!({ "done": [0, 3] })).run("Run 3").done();
    let ran = script("kill -9 $$", &json!({})).run("Run");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("signal-9", true));
}

#[test]
fn stdout_is_the_result_and_is_bounded() {
    let ran = script("echo one; echo two", &json!({ "output_type": "text/csv" })).run("Run");
    assert_eq!(ran.done(), &Done::body("text/csv", "one\ntwo"));
    assert_eq!(script("true", &json!({})).run("Run").done(), &Done::empty());
    // 5 bytes hold two of the characters and a half; the half is left out with the rest.
    let ran = script("printf üüüü", &json!({ "max_output": 5 })).run("Run");
    assert_eq!(text(&ran), "üü\n[4 more bytes of output are left out]");
    let ran = script("head -c 50000000 /dev/zero", &json!({ "max_output": 10 })).run("Run");
    assert!(text(&ran).ends_with("\n[49999990 more bytes of output are left out]"));
}

#[test]
fn stderr_goes_to_the_log_and_its_last_line_into_the_error() {
    let ran = script("echo first >&2; echo last >&2; exit 1", &json!({})).run("Run");
    let lines: Vec<_> = ran.logs.iter().map(|line| (line.level, line.message.as_str())).collect();
    assert_eq!(lines, [(Level::Info, "first"), (Level::Info, "last")]);
    assert_eq!(ran.logs[0].fields, [("stream".to_owned(), "stderr".to_owned())]);
    assert_eq!(ran.failure().message(), "/bin/sh ended with exit status 1: last");
    let ran = script("yes | head -n 5000 >&2", &json!({})).run("Run");
    assert_eq!(ran.logs.len(), 1_001);
    assert_eq!(ran.logs[1_000].message, "4000 more lines of stderr are left out");
}

/// Runs a script that writes to `$READY` when it has begun; then it is cancelled.
fn cancelled(body: &str, more: &Value) -> Ran {
    let place = tempfile::tempdir().expect("a directory");
    let fifo = place.path().join("ready");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("a new name");
    let mut kit = script(body, &with(json!({ "env": { "READY": fifo } }), more));
    let canceller = kit.canceller();
    let watch = std::thread::spawn(move || {
        let mut word = String::new();
        fs::File::open(fifo).and_then(|mut fifo| fifo.read_to_string(&mut word)).expect("the script writes");
        canceller.cancel();
    });
    let ran = kit.run("Run");
    watch.join().expect("no panic");
    ran
}

#[test]
fn a_cancelled_task_stops_its_command_and_is_not_done() {
    for (body, more) in [
        ("echo x > $READY; exec sleep 1000", json!({})),
        ("trap '' TERM; echo x > $READY; while :; do sleep 1000; done", json!({ "kill_after": "20ms" })),
        ("trap 'exit 0' TERM; sleep 1000 & echo x > $READY; wait", json!({})),
    ] {
        let ran = cancelled(body, &more);
        assert!(ran.failure().is_cancelled(), "{body}: {}", ran.failure());
    }
}

#[test]
fn a_deadline_stops_the_command() {
    let mut kit = script("exec sleep 1000", &json!({}));
    kit.deadline(Duration::from_millis(50));
    let ran = kit.run("Run");
    assert!(ran.failure().is_cancelled() && ran.failure().code() == "timeout", "{}", ran.failure());
}

#[test]
fn a_task_that_cannot_be_passed_is_rejected_and_says_why() {
    let mut echo = kit(json!({ "command": ["/bin/echo", "{header:lang}"] }));
    assert_eq!(echo.run("Run").failure().code(), "missing-header");
    assert_eq!(text(&echo.run(TaskSpec::text("Run").header("lang", "de"))), "de");
    let mut echo = kit(json!({ "command": ["/bin/echo", "{body}"] }));
    assert_eq!(echo.run(TaskSpec::typed("Run", b"a\0b".to_vec())).failure().code(), "nul-byte");
    let long = format!("Run {}", "x".repeat(200_000));
    let ran = echo.run(long.as_str());
    assert!(ran.failure().is_reject() && ran.failure().code() == "argument-too-long", "{}", ran.failure());
    // A command that reads its stdin takes it all the same.
    assert_eq!(text(&kit(json!({ "command": ["wc", "-c"] })).run(long)), "200004");
}

#[test]
fn a_command_that_has_vanished_is_retried() {
    let place = tempfile::tempdir().expect("a directory");
    let program = place.path().join("program");
    fs::copy("/bin/true", &program).expect("a copy");
    let mut kit = kit(json!({ "command": [program] }));
    fs::remove_file(&program).expect("it was there");
    let ran = kit.run("Run");
    assert!(ran.failure().is_retry() && ran.failure().code() == "cannot-run", "{}", ran.failure());
    assert!(ran.failure().message().contains("program in /"), "{}", ran.failure());
}

#[test]
fn the_command_runs_in_its_directory_under_the_name_it_was_given() {
    let place = tempfile::tempdir().expect("a directory");
    let real = place.path().canonicalize().expect("it is there");
    let ran = script("pwd", &json!({ "directory": real })).run("Run");
    assert_eq!(Path::new(&text(&ran)), real);
    assert_eq!(text(&kit(json!({ "command": ["sh", "-c", "echo $0"] })).run("Run")), "sh");
}

#[test]
fn wrong_settings_are_refused_with_key_and_remedy() {
    let refused = |settings: &Value| TestKit::<Exec>::new(settings).err().expect("refused").to_string();
    for (command, part) in [
        (json!(null), "command"),
        (json!([]), "command: it is empty: write [\"/path/to/program\""),
        (json!("/bin/true"), "command"),
        (json!(["/nowhere/program"]), "command[0]: /nowhere/program is not an executable file"),
        (json!(["/etc/passwd"]), "command[0]: /etc/passwd is not an executable file"),
        (json!(["bin/true"]), "command[0]: \"bin/true\" is a relative path"),
        (json!(["no-such-program"]), "command[0]: no program \"no-such-program\" in PATH"),
        (json!(["/bin/{argument}"]), "command[0]: the program cannot depend on the task"),
        (json!(["/bin/true", "{arg}"]), "command[1]: {arg} is no placeholder"),
    ] {
        let error = refused(&json!({ "command": command }));
        assert!(error.contains(part), "{command}: {error}");
    }
    for (more, part) in [
        (json!({ "directory": "/nowhere" }), "directory: /nowhere is not an existing directory"),
        (json!({ "directory": "tmp" }), "directory: tmp is not an existing directory"),
        (json!({ "done": [] }), "done: no exit status would mean success"),
        (json!({ "reject": [0] }), "reject: exit status 0 stands in done too"),
        (json!({ "max_output": 1_000_000 }), "max_output: 1000000 is too much"),
        (json!({ "kill_after": 5 }), "kill_after"),
        (json!({ "kill_after": "5 seconds" }), "kill_after: \"5 seconds\" is not a duration"),
        (json!({ "env": { "A=B": "x" } }), "env: \"A=B\" cannot be a variable's name"),
        (json!({ "output_type": "" }), "output_type: it is empty"),
        (json!({ "shell": true }), "shell"),
    ] {
        let error = refused(&with(json!({ "command": ["/bin/true"] }), &more));
        assert!(error.contains(part), "{more}: {error}");
    }
    let both = refused(&json!({ "command": ["/bin/true", "{x}"], "directory": "tmp" }));
    assert!(both.contains("command[1]") && both.contains("directory"), "all at once: {both}");
}
