//! `warrenctl doctor` on a real broker, with and without a real daemon: it finds real faults, each by its place and with
//! the exit code that it documents, and changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use lapin::types::AMQPValue;
use serde_json::Value;
use warren_tests::{Broker, Daemon, Home, Keys, Node, artefacts};

/// A directory with one good handler, whose configuration is nobody else's.
fn home(uri: &str, queue: &str) -> Home {
    let home = Home::new(uri, queue);
    home.install("fixture-scenario");
    configure(&home, Keys::default());
    fs::set_permissions(home.plugins(), fs::Permissions::from_mode(0o755)).expect("mode");
    home
}

/// The handler stands with a limit that a drain waits for, unless `keys.rest` has another one.
fn configure(home: &Home, keys: Keys<'_>) {
    let own = home.scenario("scenario", "scenario", "timeout = \"20s\"");
    let rest = if keys.rest.is_empty() { own.as_str() } else { keys.rest };
    let daemon = format!("state_dir = \"{}\"\n{}", home.directory().display(), keys.daemon);
    home.configure(Keys { daemon: &daemon, rest, ..keys });
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o600)).expect("mode");
}

/// What the doctor says.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Said {
    /// The finding of that severity, at a place that ends like this, with this in what it says or in its remedy.
    #[track_caller]
    fn has(&self, severity: &str, place: &str, part: &str) -> &Value {
        let text = |finding: &Value, key: &str| finding[key].as_str().expect("text").to_owned();
        let found = self.findings.iter().find(|finding| {
            finding["severity"] == severity
                && text(finding, "where").ends_with(place)
                && (text(finding, "what") + &text(finding, "remedy")).contains(part)
        });
        found.unwrap_or_else(|| panic!("no {severity} at {place} with {part:?} in {self:#?}"))
    }

    fn count(&self, severity: &str) -> usize {
        self.findings.iter().filter(|finding| finding["severity"] == severity).count()
    }
}

fn doctor(home: &Home, arguments: &[&str]) -> Said {
    let mut command = Command::new(artefacts::program("warrenctl"));
    command.args(["doctor", "--json", "--config"]).arg(home.config()).args(arguments);
    let output = command.output().expect("warrenctl");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("JSON; {stderr}"));
    let findings = said["findings"].as_array().expect("findings").clone();
    Said { code: output.status.code(), findings }
}

fn with_user(node: &Node, user: &str) -> String {
    node.uri().replace("guest:guest@", &format!("{user}:s3cret@"))
}

#[test]
fn a_healthy_service_gets_neither_errors_nor_warnings_and_is_not_touched() {
    let node = Node::shared();
    let home = home(&node.uri(), "doctor_healthy");
    let daemon = Daemon::start(&home);
    let said = doctor(&home, &["--strict"]);
    assert_eq!((said.code, said.count("error"), said.count("warning")), (Some(0), 0, 0), "{said:#?}");
    said.has("ok", "warren.toml", "1 queues, 1 configured handlers");
    said.has("ok", "plugins", "1 plugins can be loaded");
    said.has("ok", "/%2f", "login and vhost are good");
    said.has("ok", "default exchange", "publishing is allowed");
    said.has("ok", "doctor_healthy", "1 consumers");
    said.has("ok", &daemon.pid().to_string(), "running and ready");
    said.has("ok", "limits of warrend", "enough descriptors");
    let broker = Broker::connect(&node.uri());
    for name in ["doctor_healthy.dead", "doctor_healthy.retry.5000"] {
        assert_eq!(broker.depth(name), None, "{name} was declared");
    }

    assert!(daemon.warrenctl(&["handler", "pause", "scenario"]).status.success());
    fs::set_permissions(home.socket(), fs::Permissions::from_mode(0o666)).expect("mode");
    configure(&home, Keys { queue: "prefetch = 2\nworkers = 3", ..Keys::default() });
    let said = doctor(&home, &[]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    said.has("note", "handler scenario", "paused");
    said.has("warning", "control.sock", "chmod 660");
    said.has("note", &daemon.pid().to_string(), "1 × 4 instead of 2 × 3");
}

#[test]
fn tasks_that_wait_are_neither_taken_nor_marked() {
    let node = Node::shared();
    let home = home(&node.uri(), "doctor_waiting");
    let broker = Broker::connect(&node.uri());
    broker.declare(home.queue(), &[]);
    broker.publish(home.queue(), "t-1", "Scenario done");
    let said = doctor(&home, &[]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    said.has("warning", "doctor_waiting", "1 tasks wait and nobody consumes");
    said.has("warning", "control.sock", "no daemon answers");
    let (channel, runtime) = broker.channel();
    let options = lapin::options::BasicGetOptions::default();
    let got = runtime.block_on(channel.basic_get(home.queue().into(), options)).expect("get");
    assert!(!got.expect("the task is there").delivery.redelivered, "the task was handed out");
}

#[test]
fn a_configuration_with_errors_is_told_whole() {
    let home = home("amqp://localhost", "doctor_config");
    home.write_config("[broker]\nuri = \"http://x\"\n[queues.a]\nprefech = 1\n");
    let said = doctor(&home, &[]);
    assert_eq!(said.code, Some(78), "{said:#?}");
    said.has("error", "warren.toml:2:1", "amqp://");
    said.has("error", "warren.toml:4:1", "prefetch");
    said.has("note", "the rest", "were not looked at");
}

#[test]
fn a_broker_that_is_not_there_or_does_not_know_us_is_69() {
    let node = Node::shared();
    let wrong = node.uri().replace("guest:guest@", "guest:wr0ng@");
    let said = doctor(&home(&wrong, "doctor_login"), &[]);
    assert_eq!(said.code, Some(69), "{said:#?}");
    said.has("error", "/%2f", "login refused for user `guest`");
    assert!(!format!("{said:?}").contains("wr0ng"), "the password is shown");

    // Port 1 is nobody's.
    let both = Home::with_uris(&["amqp://guest:guest@127.0.0.1:1/%2f".to_owned(), node.uri()], "doctor_two");
    both.install("fixture-scenario");
    configure(&both, Keys::default());
    let said = doctor(&both, &[]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    said.has("warning", "127.0.0.1:1/%2f", "check that the broker runs");
    said.has("ok", &format!("{}/%2f", node.port()), "RabbitMQ");

    let said = doctor(&home("amqp://guest:guest@127.0.0.1:1/%2f", "doctor_gone"), &[]);
    assert_eq!(said.code, Some(69), "{said:#?}");
}

#[test]
fn missing_permissions_are_named_and_are_77() {
    let node = Node::shared();
    node.add_user("narrow", "s3cret", ["^$"; 3]);
    let home = home(&with_user(node, "narrow"), "doctor_rights");
    let permit = |configure: &str, write: &str, read: &str| node.permit("narrow", [configure, write, read]);

    permit("^doctor_rights(\\.retry\\..*)?$", "^amq\\.default$", "^doctor_rights(\\..*)?$");
    let said = doctor(&home, &[]);
    assert_eq!((said.code, said.count("error")), (Some(77), 1), "{said:#?}");
    said.has("error", "doctor_rights.dead", "configure has to match ^doctor_rights(\\..*)?$");

    // Where the dead queue is there, the right to make one is not needed; the right to read it is the operator's.
    Broker::connect(&node.uri()).declare("doctor_rights.dead", &[]);
    permit("^doctor_rights(\\.retry\\..*)?$", "^amq\\.default$", "^doctor_rights(\\.retry\\..*)?$");
    let said = doctor(&home, &[]);
    assert_eq!((said.code, said.count("error")), (Some(0), 0), "{said:#?}");
    said.has("note", "doctor_rights.dead", "warrenctl dead cannot look");

    permit("^$", "^$", "^$");
    let said = doctor(&home, &[]);
    assert_eq!(said.code, Some(77), "{said:#?}");
    said.has("error", "default exchange", "amq\\.default");
    said.has("error", "doctor_rights", "tasks cannot be consumed");
    // From 4.3 on the broker does not tell such a user that the queue is not there.
    if node.version() < (4, 3) {
        said.has("error", "doctor_rights", "it cannot be declared");
    }
    said.has("error", "doctor_rights.retry.*", "retries wait");
}

#[test]
fn what_the_guide_permits_a_user_is_enough() {
    let node = Node::shared();
    // As docs/operating.md has it, for another queue.
    let permitted = "^(doctor_guide(\\..*)?|amq\\.default|amq\\.gen-.*)$";
    node.add_user("guide", "s3cret", [permitted; 3]);
    let home = home(&with_user(node, "guide"), "doctor_guide");
    let said = doctor(&home, &[]);
    assert_eq!((said.code, said.count("error")), (Some(0), 0), "{said:#?}");

    let daemon = Daemon::start(&home);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(artefacts::program("warrenctl"));
        let output = command.arg("--config").arg(home.config()).args(arguments).output().expect("warrenctl");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &said)
    };
    let (code, text) = run(&["publish", "--wait=30s", "Scenario ok"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&["publish", "--wait=30s", "--delay=250ms", "Scenario ok"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&["publish", "Nobody's task"]);
    assert_eq!(code, Some(0), "{text}");
    daemon.wait_count("dead", 1);
    // Counted before it is confirmed.
    Broker::connect(&node.uri()).wait_depth(&home.dead(), 1);
    let (code, text) = run(&["dead", "replay", "--all"]);
    assert!(code == Some(0) && text.contains("1 letter replayed"), "{code:?} {text}");
}

#[test]
fn a_plugins_directory_that_everybody_can_write_to_and_plugins_that_are_none_are_found() {
    let node = Node::shared();
    let home = home(&node.uri(), "doctor_plugins");
    home.install_bytes("broken", b"no plugin");
    let said = doctor(&home, &[]);
    assert_eq!((said.code, said.count("error")), (Some(78), 1), "{said:#?}");
    said.has("error", "broken.so", "");
    fs::remove_file(home.plugins().join("broken.so")).expect("remove");

    fs::set_permissions(home.plugins(), fs::Permissions::from_mode(0o777)).expect("mode");
    let said = doctor(&home, &[]);
    assert_eq!(said.code, Some(78), "{said:#?}");
    said.has("error", "plugins", "chmod o-w");
    said.has("error", "handlers.scenario", "no plugin `scenario`");
}

#[test]
fn numbers_that_do_not_fit_together_are_warnings_and_fail_a_strict_run() {
    let node = Node::shared();
    let home = home(&node.uri(), "doctor_numbers");
    let handler = home.scenario("scenario", "scenario", "workers = 8\ntimeout = \"40m\"");
    configure(&home, Keys { queue: "prefetch = 1\nworkers = 4", rest: &handler, ..Keys::default() });
    let said = doctor(&home, &[]);
    assert_eq!((said.code, said.count("error")), (Some(0), 0), "{said:#?}");
    said.has("warning", "scenario", "may run 8 tasks at once, and its queues have 4 workers");
    said.has("warning", "warren.toml:17:11", "consumer_timeout");
    said.has("note", "scenario", "a stop waits 30s");
    assert_eq!(doctor(&home, &["--strict"]).code, Some(78));
}

#[test]
fn queues_that_cannot_do_their_work_are_found() {
    let node = Node::shared();
    let broker = Broker::connect(&node.uri());
    let said_of = |queue: &str| doctor(&home(&node.uri(), queue), &[]);

    broker.declare("doctor_stream", &[("x-queue-type", text("stream"))]);
    let said = said_of("doctor_stream");
    assert_eq!(said.code, Some(78), "{said:#?}");
    said.has("error", "doctor_stream", "it is a stream");

    let full = [("x-max-length", AMQPValue::LongLongInt(1)), ("x-overflow", text("reject-publish"))];
    broker.declare("doctor_full.dead", &full);
    broker.publish("doctor_full.dead", "old", "Scenario dead");
    let said = said_of("doctor_full");
    assert_eq!(said.code, Some(78), "{said:#?}");
    said.has("error", "doctor_full.dead", "takes no more dead letters");

    broker.declare("doctor_delay.retry.5000", &[("x-message-ttl", AMQPValue::LongLongInt(7))]);
    let said = said_of("doctor_delay");
    assert_eq!(said.code, Some(78), "{said:#?}");
    said.has("error", "doctor_delay.retry.5000", "another delay");

    let limited = [("x-queue-type", text("quorum")), ("x-delivery-limit", AMQPValue::LongLongInt(3))];
    broker.declare("doctor_limited", &limited);
    let said = said_of("doctor_limited");
    assert_eq!(said.code, Some(0), "{said:#?}");
    said.has("warning", "doctor_limited", "more than 3 times");
}

#[test]
fn it_reads_as_text_with_a_remedy_below_each_finding() {
    let node = Node::shared();
    let home = home(&node.uri(), "doctor_text");
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o666)).expect("mode");
    let output = Command::new(artefacts::program("warrenctl"))
        .args(["doctor", "--config"])
        .arg(home.config())
        .output()
        .expect("warrenctl");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(78), "{text}");
    let line =
        |path: &Path| format!("ERROR    files     {}: everyone may change it (mode 666)\n", path.display());
    let remedy = format!("                     -> chmod o-w {}\n", home.config().display());
    assert!(text.contains(&(line(&home.config()) + &remedy)), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("1 error, ")), "{text}");
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[test]
fn two_handlers_on_one_target_are_told_by_doctor_config_check_and_daemon() {
    let node = Node::shared();
    let home = home(&node.uri(), "doctor_targets");
    home.install("backup-database");
    home.install("clean-temp");
    let tmp = home.directory().join("tmp");
    let backups = tmp.join("backups");
    fs::create_dir_all(&backups).expect("directories");
    let backup = |name: &str, database: &str, keep: u32| {
        format!(
            "[handlers.{name}]\nplugin = \"backup-database\"\nprefixes = [\"Backup {name}\"]\ntimeout = \"20s\"\n\
             [handlers.{name}.settings]\ndatabase = \"{database}\"\ndirectory = \"{}\"\nkeep = {keep}\n",
            backups.display()
        )
    };
    let [scenario, weekly, daily, crm] = [
        home.scenario("scenario", "scenario", "timeout = \"20s\""),
        backup("weekly", "/shop/app.db", 7),
        backup("daily", "/shop//app.db", 2),
        backup("crm", "/crm/app.db", 2),
    ];
    let clean = format!(
        "[handlers.sweep]\nplugin = \"clean-temp\"\ntimeout = \"20s\"\n[handlers.sweep.settings]\n\
         directories = [\"{}\"]\nolder_than = \"1d\"\n",
        tmp.display()
    );
    configure(&home, Keys { rest: &format!("{scenario}{weekly}{crm}"), ..Keys::default() });
    let said = doctor(&home, &[]);
    assert!(!format!("{said:?}").contains("agree in"), "one file name alone is no conflict: {said:#?}");

    configure(&home, Keys { rest: &format!("{scenario}{weekly}{daily}{crm}{clean}"), ..Keys::default() });
    let said = doctor(&home, &[]);
    said.has("warning", "weekly", "`daily` and `weekly` agree in `database`, `directory`, `name` and `host`");
    said.has("warning", "sweep", "deletes old files below");
    assert_eq!(said.findings.iter().filter(|finding| finding["where"] == "sweep").count(), 3, "{said:#?}");
    let check = Command::new(artefacts::program("warrenctl"))
        .args(["config", "check", "--json", "--config"])
        .arg(home.config())
        .output()
        .expect("warrenctl");
    let check: Value = serde_json::from_slice(&check.stdout).expect("JSON");
    let warnings = check["warnings"].as_array().expect("warnings");
    let target =
        warnings.iter().find(|warning| warning["key"] == "handlers.weekly.settings").expect("a warning");
    assert!(target["line"].as_u64() > Some(1) && target["remedy"].as_str().is_some(), "{target}");

    let daemon = Daemon::start(&home);
    daemon.wait_log(0, &["`daily` and `weekly` agree in"]);
}
