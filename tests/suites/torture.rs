//! Plugin files that are not what they should be: each is refused with a message that says why, and what runs goes on.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;
use warren_tests::{Broker, Daemon, Home, Keys, Node, artefacts};

/// Installs one bad plugin into the home, under the name given.
type Spoil = fn(&Home, &str);

/// Name, how it is made, and what the message says of it.
const FILES: [(&str, Spoil, &str); 13] = [
    ("zero-bytes", |home, name| drop(home.install_bytes(name, b"")), "empty"),
    ("text", |home, name| drop(home.install_bytes(name, b"#!/bin/sh\necho hello\n")), "text file"),
    ("half", truncated, "truncated"),
    ("machine", other_machine, "built for"),
    ("no-note", |home, name| torture(home, name, &["-DNO_MANIFEST"]), "no Warren manifest"),
    ("major", |home, name| torture(home, name, &["-DABI_MAJOR=2"]), "plugin ABI 2"),
    ("minor", |home, name| torture(home, name, &["-DABI_MINOR=99"]), "plugin ABI 1.99"),
    ("no-symbol", |home, name| torture(home, name, &["-DNO_SYMBOL"]), "warren_plugin_v1"),
    ("runpath", |home, name| torture(home, name, &["-Wl,--enable-new-dtags,-rpath,$ORIGIN"]), "$ORIGIN"),
    ("writable", writable, "chmod"),
    ("link", linked, "symbolic link"),
    ("directory", |home, name| fs::create_dir(plugin_path(home, name)).expect("mkdir"), "a directory"),
    ("executable", |home, name| drop(home.install_bytes(name, &read("/bin/true"))), ""),
];

/// What only shows when a host loads it: compiler flags, and what the message says.
const LOADS: [(&str, &str, &str); 5] = [
    ("-DCONSTRUCTOR_EXITS", "constructor-exits", "exit"),
    ("-DCONSTRUCTOR_CRASHES", "constructor-crashes", "SIGABRT"),
    ("-DLIES_ABOUT_ABI", "lies", "ABI"),
    ("-DNULL_TABLE", "null-table", ""),
    ("-DNULL_INSTANCE", "null-instance", ""),
];

fn stage(queue: &str) -> (Home, Broker) {
    let node = Node::shared();
    let home = Home::new(&node.uri(), queue);
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", "");
    home.configure(Keys { plugins: "probe_timeout = \"1s\"", rest: &rest, ..Keys::default() });
    (home, Broker::connect(&node.uri()))
}

#[test]
fn each_bad_file_is_refused_by_name_and_nothing_else_changes() {
    let (home, broker) = stage("torture_files");
    let mut daemon = Daemon::start(&home);
    let before = daemon.handler("scenario")["generation"].clone();
    for (name, spoil, says) in FILES {
        spoil(&home, name);
        let reload = daemon.reload();
        assert_eq!(reload["ok"], false, "{name}: {reload}");
        let error = error_about(&reload, name);
        assert!(error.contains(says), "{name}: {error:?} says {says:?}");
        remove(&plugin_path(&home, name));
    }
    let reload = daemon.reload();
    assert_eq!(reload["ok"], true, "{reload}");
    assert_eq!(daemon.handler("scenario")["generation"], before, "what was good kept its hosts");
    broker.publish(home.queue(), "good", "Scenario ok");
    daemon.wait_count("done", 1);
    assert!(daemon.terminate().success());
}

#[test]
fn each_plugin_that_breaks_when_it_is_loaded_is_refused_by_name() {
    let (home, broker) = stage("torture_loads");
    let mut daemon = Daemon::start(&home);
    for (flags, name, says) in LOADS {
        torture(&home, name, &[flags]);
        let reload = daemon.reload();
        assert_eq!(reload["ok"], false, "{name}: {reload}");
        let error = error_about(&reload, "torture");
        assert!(!error.is_empty() && error.contains(says), "{name}: {error:?} says {says:?}");
        remove(&plugin_path(&home, name));
    }
    broker.publish(home.queue(), "good", "Scenario ok");
    daemon.wait_count("done", 1);
    assert!(daemon.is_running());
}

#[test]
fn a_start_with_bad_plugins_runs_the_good_ones_and_names_the_bad() {
    let (home, broker) = stage("torture_start");
    home.install_bytes("text", b"hello");
    torture(&home, "constructor-exits", &["-DCONSTRUCTOR_EXITS"]);
    let daemon = Daemon::start(&home);
    daemon.wait_log(0, &["ERROR", "text.so", "text file"]);
    daemon.wait_log(0, &["ERROR", "torture", "exit"]);
    broker.publish(home.queue(), "good", "Scenario ok");
    daemon.wait_count("done", 1);
}

#[test]
fn settings_that_a_plugin_refuses_or_dies_of_keep_the_old_generation() {
    for plugin in ["scenario", "scenario-c"] {
        let (home, broker) = stage(&format!("torture_create_{}", plugin.replace('-', "_")));
        home.install_c("scenario-c", "scenario.c", &[]);
        let configure = |start: &str| {
            let table = home.scenario("scenario", plugin, "");
            let rest = format!("{table}start = \"{start}\"\n");
            home.configure(Keys { plugins: "probe_timeout = \"1s\"", rest: &rest, ..Keys::default() });
        };
        // Only one of the two fixtures is to take the prefix.
        let other = if plugin == "scenario" { "scenario-c" } else { "fixture-scenario" };
        remove(&plugin_path(&home, other));
        configure("");
        let daemon = Daemon::start(&home);
        let before = daemon.handler("scenario")["generation"].clone();
        for (start, says) in
            [("fail", "told to fail at its start"), ("hang", "1s"), ("abort", "SIGABRT"), ("exit0", "exit")]
        {
            configure(start);
            let reload = daemon.reload();
            let error = error_about(&reload, "scenario");
            assert!(error.contains(says), "{plugin}, {start}: {error:?} says {says:?}");
            assert_eq!(reload["ok"], false);
            assert_eq!(daemon.handler("scenario")["generation"], before, "{plugin}, {start}");
            broker.publish(home.queue(), start, "Scenario ok");
            home.wait_run("end", start, 1);
        }
    }
}

#[test]
fn a_status_that_does_not_exist_is_a_fault_of_its_task() {
    let (home, broker) = stage("torture_status");
    torture(&home, "torture", &["-DUNKNOWN_STATUS"]);
    let rest = home.scenario("scenario", "scenario", "")
        + "[handlers.torture]\nplugin = \"torture\"\nretry = { attempts = 1 }\n";
    home.configure(Keys { rest: &rest, ..Keys::default() });
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "odd", "Torture it");
    let letter = broker.take(&home.dead());
    assert!(letter.header("x-warren-error").is_some_and(|text| text.contains("77")), "{letter:?}");
    assert_eq!(daemon.counts()["faults"], 1);
}

/// The error of the row whose handler, or file, has this in its name.
fn error_about(reload: &Value, name: &str) -> String {
    let rows = reload["handlers"].as_array().expect("rows");
    let row = rows.iter().find(|row| {
        row["error"].is_string()
            && (row["handler"].as_str().is_some_and(|handler| handler.contains(name))
                || row["error"].as_str().is_some_and(|error| error.contains(&format!("{name}.so"))))
    });
    row.unwrap_or_else(|| panic!("no row about {name}: {reload}"))["error"].as_str().expect("text").to_owned()
}

fn plugin_path(home: &Home, name: &str) -> std::path::PathBuf {
    home.plugins().join(format!("{name}.so"))
}

fn torture(home: &Home, name: &str, flags: &[&str]) {
    home.install_c(name, "torture.c", flags);
}

fn truncated(home: &Home, name: &str) {
    let bytes = read(artefacts::plugin("fixture-scenario"));
    home.install_bytes(name, &bytes[..bytes.len() / 2]);
}

/// ELF says at byte 18 what machine a file is for; 20 is PowerPC.
fn other_machine(home: &Home, name: &str) {
    let mut bytes = read(artefacts::plugin("fixture-scenario"));
    bytes[18] = 20;
    home.install_bytes(name, &bytes);
}

fn writable(home: &Home, name: &str) {
    torture(home, name, &[]);
    fs::set_permissions(plugin_path(home, name), fs::Permissions::from_mode(0o666)).expect("mode");
}

/// To where everybody may put another file.
fn linked(home: &Home, name: &str) {
    let open = home.path("open");
    fs::create_dir(&open).expect("a directory");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("mode");
    fs::copy(artefacts::plugin("fixture-scenario"), open.join("plugin")).expect("copy");
    symlink(open.join("plugin"), plugin_path(home, name)).expect("link");
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path).expect("read")
}

fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }.expect("remove");
}
