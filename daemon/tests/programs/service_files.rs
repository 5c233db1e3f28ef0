//! What systemd is given: the unit verifies, and agrees with the defaults it depends on.

use std::process::Command;
use std::time::Duration;

use warren::config::{Daemon, Environment};

const UNIT: &str = include_str!("../../../systemd/warrend.service");

/// The value of a key of the unit that is stated once.
fn value(key: &str) -> &'static str {
    let mut values = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {key}="));
    assert_eq!(values.next(), None, "{key}= twice");
    value
}

fn seconds(key: &str) -> Duration {
    warren::model::duration::parse_duration(value(key)).expect(key)
}

#[test]
fn the_unit_gives_a_drain_the_time_it_may_take() {
    let daemon = Daemon::new(&Environment::new());
    assert!(seconds("TimeoutStopSec") > daemon.drain_timeout);
    assert!(seconds("TimeoutStartSec") > daemon.start_wait);
}

#[test]
fn the_unit_comes_back_from_every_end_but_a_configuration_that_cannot_work() {
    assert_eq!((value("Restart"), value("RestartPreventExitStatus")), ("always", "78"));
}

#[test]
fn the_unit_leaves_the_machine_some_of_its_memory() {
    let share = value("MemoryMax").strip_suffix('%').expect("a share of the machine's");
    assert!((50..100).contains(&share.parse::<u32>().expect("a number")));
}

#[test]
fn the_units_runtime_directory_is_where_the_control_socket_is() {
    let directory = format!("/run/{}", value("RuntimeDirectory"));
    assert_eq!(Daemon::new(&Environment::new()).socket.parent(), Some(directory.as_ref()));
}

#[test]
fn the_units_state_directory_is_where_finished_tasks_are_remembered() {
    let directory = format!("/var/lib/{}", value("StateDirectory"));
    assert_eq!(Daemon::new(&Environment::new()).state_dir, std::path::Path::new(&directory));
}

#[test]
fn the_unit_verifies_where_systemd_is_installed() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("not checked: systemd-analyze is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("warrend.service");
    let unit = UNIT
        .replace("/usr/bin/warrenctl", env!("CARGO_BIN_EXE_warrenctl"))
        .replace("/usr/bin/warrend", env!("CARGO_BIN_EXE_warrend"));
    std::fs::write(&path, unit).expect("written");
    let verify =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().expect("it runs");
    let said = String::from_utf8_lossy(&verify.stderr);
    // Other units of the machine may have faults of their own.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("warrend")).collect();
    assert_eq!(ours, Vec::<&str>::new());
}
