//! From one version of the package to the next, while tasks run.

use std::path::{Path, PathBuf};
use std::process::Command;

use warren_tests::{Machine, Service, artefacts, ledger, wait};

/// Higher than any version of the workspace.
const NEXT: &str = "999.0";
const LEDGER: &str = "/var/lib/warren/ledger";
/// Publishes until it is told that it is enough, and then says how many. The bound is more than a minute's worth.
const PUBLISH: &str = "n=0; { while [ ! -e /run/enough ] && [ $n -lt 4000 ]; do \
    n=$((n + 1)); echo 'Ledger slow 30'; sleep 0.02; done; echo $n >/run/published; } | warrenctl publish -";

#[test]
fn an_upgrade_under_load_loses_no_task_and_keeps_the_configuration() {
    let machine = Machine::clean();
    machine.dpkg(&["--install"], artefacts::package());
    let fixture = std::fs::read(artefacts::plugin("fixture-ledger")).expect("read");
    machine.install_plugin("fixture-ledger", &fixture);
    let service = Service::of(&machine);
    let instance = Service::instance(&machine, "mail");
    let handler = format!(
        "workers = 3\n[handlers.ledger]\nplugin = \"ledger\"\n[handlers.ledger.settings]\nrecord = \"{LEDGER}\"\n"
    );
    service.configure("", "task_queue", &handler);
    instance.configure("", "mail_queue", "");
    machine.ok(&["systemctl", "start", "rabbitmq-server", "warrend", "warrend@mail"]);
    let edited = machine.read("/etc/warren/warren.toml").expect("written");
    let in_force = machine.ok(&["warrenctl", "config", "show", "--json"]);
    let pids = [service.pid(), instance.pid()];
    let directory = tempfile::tempdir().expect("a directory");
    let next = next_version(directory.path());

    let done = || ledger::count(&ledger::read(&machine.path(LEDGER)), "done");
    let published: usize = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| machine.ok(&["sh", "-c", PUBLISH]));
        wait::until("tasks that are done", || (done().len() > 20).then_some(()));
        // Longer than the rest of the upgrade takes: it has to wait for this one.
        service.publish("long", "Ledger slow 4000");
        wait::until("the long task", || {
            ledger::read(&machine.path(LEDGER)).iter().any(|entry| entry.id == "long").then_some(())
        });
        // The question that dpkg would ask about the edited file, answered as is its default.
        machine.dpkg(&["--force-confdef", "--force-confold", "--install"], &next);
        let so_far = done().len();
        assert!(done().contains_key(&("long".to_owned(), 1)), "it was finished, not given back");
        wait::until("tasks done by the next version", || (done().len() > so_far + 20).then_some(()));
        machine.write("/run/enough", "");
        publisher.join().expect("every task is confirmed");
        machine.read("/run/published").expect("written").trim().parse().expect("a number")
    });
    wait::until("every task", || (done().len() > published).then_some(()));

    let entries = ledger::read(&machine.path(LEDGER));
    let started = ledger::count(&entries, "start");
    assert_eq!(started.len(), published + 1, "of every task the first attempt and no other");
    assert!(started.values().chain(done().values()).all(|&times| times == 1), "twice: {started:?}");

    assert_eq!(machine.ok(&["dpkg-query", "--show", "--showformat=${Version}", "warren"]), NEXT);
    for (service, pid) in [service, instance].iter().zip(pids) {
        assert_ne!(service.pid(), pid, "{}", service.unit());
        let exe = machine.ok(&["readlink", &format!("/proc/{}/exe", service.pid())]);
        assert_eq!(exe, "/usr/bin/warrend\n", "not what was replaced");
    }
    assert_eq!(machine.read("/etc/warren/warren.toml"), Some(edited));
    assert_eq!(machine.ok(&["warrenctl", "config", "show", "--json"]), in_force);
    let offered = machine.read("/etc/warren/warren.toml.dpkg-dist").expect("the next version's, beside it");
    assert!(offered.ends_with("# new\n"));
    assert_eq!(machine.ok(&["stat", "--format", "%U:%G %a", "/etc/warren/warren.toml"]), "root:warren 640\n");
}

/// The package once more, as a later version with another configuration file.
fn next_version(directory: &Path) -> PathBuf {
    let (tree, next) = (directory.join("tree"), directory.join("next.deb"));
    let dpkg_deb = |option: &[&str], from: &Path, to: &Path| {
        let status = Command::new("dpkg-deb").args(option).arg(from).arg(to).status().expect("dpkg-deb");
        assert!(status.success(), "dpkg-deb {option:?}: {status}");
    };
    dpkg_deb(&["--raw-extract"], artefacts::package(), &tree);
    edit(&tree.join("DEBIAN/control"), |text| {
        let version = |line: &str| line.starts_with("Version: ");
        assert!(text.lines().any(version), "{text}");
        let lines =
            text.lines().map(|line| if version(line) { format!("Version: {NEXT}") } else { line.into() });
        lines.map(|line| line + "\n").collect()
    });
    edit(&tree.join("etc/warren/warren.toml"), |text| text + "# new\n");
    dpkg_deb(&["--root-owner-group", "-Zgzip", "-z1", "--build"], &tree, &next);
    next
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(path).expect("read");
    std::fs::write(path, change(text)).expect("write");
}
