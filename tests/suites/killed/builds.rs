//! Failpoints are in the daemon that is tested, and in no other process and no other build.

use std::path::Path;
use std::process::Command;

use warren_tests::artefacts;

use super::stage::Stage;

/// As `make install` and `make bench` build.
const WITHOUT: [&[&str]; 2] = [
    &["--package", "warren"],
    &["--package", "warren", "--package", "warren-tests", "--no-default-features"],
];

#[test]
fn what_is_installed_and_what_is_measured_has_no_failpoints() {
    assert!(depends_on_fail(&["--package", "warren-tests"]), "the tests have them");
    for arguments in WITHOUT {
        assert!(!depends_on_fail(arguments), "{arguments:?}");
    }
    let makefile = std::fs::read_to_string(artefacts::root().join("Makefile")).expect("read");
    for line in ["--locked --package warren --bins", "--release --no-default-features --package warren "] {
        assert!(makefile.contains(line), "the Makefile still builds with {line:?}");
    }
}

fn depends_on_fail(arguments: &[&str]) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none"])
        .args(arguments)
        .current_dir(artefacts::root())
        .output()
        .expect("cargo is there");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().any(|line| line.starts_with("fail v"))
}

#[test]
fn plugin_hosts_do_not_inherit_them() {
    let stage = Stage::new("killed_environment");
    let daemon = stage.doomed("nowhere=off");
    stage.broker.publish(stage.home.queue(), "t", "Ledger ok");
    stage.wait_ends(1);
    let hosts = daemon.handler("ledger")["hosts"].clone();
    let hosts: Vec<u64> =
        hosts.as_array().expect("hosts").iter().filter_map(serde_json::Value::as_u64).collect();
    assert!(!hosts.is_empty());
    for pid in hosts.into_iter().map(Some).chain([None]) {
        let process = pid.unwrap_or_else(|| daemon.pid().into());
        let path = Path::new("/proc").join(process.to_string()).join("environ");
        let environment = String::from_utf8_lossy(&std::fs::read(path).expect("it is there")).into_owned();
        assert_eq!(environment.contains("FAILPOINTS="), pid.is_none(), "{environment:?}");
    }
    stage.finish(daemon);
}
