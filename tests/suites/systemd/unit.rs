//! The unit files: what they allow, and that the two are one.

use std::fs;
use std::io::Write;

use warren_tests::{Machine, Network, artefacts};

/// In tenths: `systemd-analyze security` calls everything below 2.0 "OK" and prints such a figure.
const MOST_EXPOSED: &str = "15";

#[test]
fn the_service_is_exposed_to_little() {
    let machine = Machine::start(Network::Own);
    for unit in ["warrend.service", "warrend@mail.service"] {
        let analysis = machine.ok(&["systemd-analyze", "security", "--threshold", MOST_EXPOSED, unit]);
        // Not by println!, which nobody sees of a test that passes.
        writeln!(std::io::stderr(), "{}", analysis.lines().last().expect("a verdict")).expect("stderr");
    }
    let verified =
        machine.run(&["systemd-analyze", "verify", "--man=no", "warrend.service", "warren-plugins.path"]);
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !said.contains("warren"), "{said}");
}

/// The template says in its own words where it is; all else is the unit's.
#[test]
fn the_template_is_the_unit_line_for_line() {
    let read = |name: &str| {
        let text = fs::read_to_string(artefacts::root().join("systemd").join(name)).expect("read");
        let counts = |line: &&str| !line.is_empty() && !line.starts_with('#');
        text.lines().filter(counts).map(str::to_owned).collect::<Vec<_>>()
    };
    let unit: Vec<String> = read("warrend.service")
        .into_iter()
        .filter(|line| line != "Alias=warren.service")
        .map(|line| {
            line.replace("Warren task daemon", "Warren task daemon, instance %i")
                .replace("/etc/warren/", "/etc/warren/%i/")
                .replace("Directory=warren", "Directory=warren-%i")
                .replace("/var/lib/warren", "/var/lib/warren-%i")
        })
        .collect();
    assert_eq!(unit, read("warrend@.service"));
}
