//! The Debian package on a clean machine: installed, used, removed, purged.

use std::process::Command;

use warren_tests::{Machine, Service, artefacts};

use crate::broker::assert_fields;

/// A handler that needs nothing but what the package and a minimal Debian have.
const GREET: &str = "[handlers.greet]\nplugin = \"exec\"\nprefixes = [\"Greet\"]\n\
    [handlers.greet.settings]\ncommand = [\"/bin/echo\", \"{argument}\"]\n";

#[test]
fn lintian_finds_no_error() {
    let lintian = Command::new("lintian")
        .args(["--allow-root", "--fail-on", "error"])
        .arg(artefacts::package())
        .output()
        .expect("lintian; `scripts/setup deb` installs it");
    let said = String::from_utf8_lossy(&lintian.stdout).into_owned();
    assert!(lintian.status.success(), "{said}");
    println!("{said}");
}

#[test]
fn installed_on_a_clean_machine_it_does_tasks_and_purged_it_leaves_nothing() {
    let machine = Machine::clean();
    machine.ok(&["systemctl", "enable", "--now", "rabbitmq-server"]);
    let before = traces(&machine);
    machine.dpkg(&["--install"], artefacts::package());
    let service = Service::of(&machine);
    let instance = Service::instance(&machine, "mail");
    assert_eq!(service.show("UnitFileState"), "disabled");
    assert_eq!(service.show("ActiveState"), "inactive");
    let configuration = machine.ok(&["stat", "--format", "%U:%G %a", "/etc/warren/warren.toml"]);
    assert_eq!(configuration, "root:warren 640\n");

    service.configure("", "task_queue", GREET);
    instance.configure("", "mail_queue", GREET);
    machine.ok(&["systemctl", "enable", "--now", "warrend", "warrend@mail"]);
    let end = service.do_task("order-1", "Task 1: Greet Ada");
    assert_fields(&end, "greet", "task_queue");
    instance.do_task("mail-1", "Greet Grace");

    machine.ok(&["dpkg", "--remove", "warren"]);
    assert_eq!(machine.run(&["pgrep", "warrend"]).status.code(), Some(1), "nothing runs");
    assert!(machine.read("/etc/warren/warren.toml").is_some_and(|text| text.contains("Greet")), "kept");
    machine.dpkg(&["--install"], artefacts::package());
    assert_eq!(service.show("ActiveState"), "inactive", "installed again");
    service.start();
    service.do_task("order-2", "Greet Ada");

    machine.write("/etc/warren/broker-uri", "amqp://warren:secret@127.0.0.1/");
    let installed = traces(&machine);
    for trace in ["/usr/bin/warrend", "/var/lib/warren-mail", "/etc/systemd/system/warren.service", "warren"]
    {
        assert!(installed.iter().any(|there| there == trace), "{trace}: this would not have been seen");
    }
    machine.ok(&["dpkg", "--purge", "warren"]);
    let after = traces(&machine);
    let left: Vec<_> = after.iter().filter(|trace| !before.contains(trace)).collect();
    assert_eq!(left, Vec::<&String>::new());
    let lost: Vec<_> = before.iter().filter(|trace| !after.contains(trace)).collect();
    assert_eq!(lost, Vec::<&String>::new());
}

/// Every file of the machine and everybody in its user database; without what others write as time goes by: logs, dpkg's
/// own records, caches, the broker's state.
fn traces(machine: &Machine) -> Vec<String> {
    let files = machine.ok(&[
        "find",
        "/",
        "-xdev",
        "-regex",
        "/\\(proc\\|sys\\|dev\\|tmp\\|run\\|var/log\\|var/cache\\|var/tmp\\|\
         var/lib/dpkg\\|var/lib/rabbitmq\\|etc/[a-z]*-\\)",
        "-prune",
        "-o",
        "-print",
    ]);
    let users = machine.ok(&["cat", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"]);
    let run = machine.ok(&["ls", "/run"]);
    [files, users, run].iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
}
