//! Every shipped handler does its work under the shipped unit, with no more than the drop-in that is shipped for it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use warren_tests::shop::{self, Places};
use warren_tests::{Machine, Servers, Service};

use crate::broker::with_rabbitmq;

/// Not this machine's loopback: packets to it stay here all the same, because the address is given to `lo`.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// What is done without any drop-in, with files in the state directory alone.
const WITHOUT: [(&str, &str); 4] = [
    ("orders", "Process order #1001"),
    ("payments", "Process payment #2001"),
    ("report", "Generate report for Q3"),
    ("command", "Greet Ada"),
];
/// What needs one.
const WITH: [(&str, &str); 4] = [
    ("mail", "Send email to user@example.com"),
    ("notification", "Send notification"),
    ("backup", "Backup database"),
    ("temp", "Clean up temp files"),
];

#[test]
fn each_does_its_work_and_what_needs_a_drop_in_does_not_without() {
    let machine = with_rabbitmq();
    machine.ok(&["ip", "address", "add", &format!("{ELSEWHERE}/32"), "dev", "lo"]);
    let servers = machine.on_its_network(|| Servers::start(ELSEWHERE)).expect("servers");
    let places = prepare(&machine);
    let service = Service::of(&machine);
    service.configure("", "task_queue", &(shop::handlers(&places, &servers, "hook", "1h") + QUICK));
    machine.ok(&["systemctl", "start", "rabbitmq-server", "warrend"]);

    for (id, text) in WITHOUT {
        service.do_task(id, text);
    }
    for (id, text) in WITH {
        service.publish(&format!("{id}-without"), text);
    }
    for (id, _) in WITH {
        assert_without(&machine, &service, id);
    }
    assert!(servers.mails().is_empty() && servers.requests().is_empty(), "nothing came through");

    service.example("network", |text| text.replace("192.0.2.0/24", &format!("{ELSEWHERE}")));
    service.example("backup-directory", |text| text);
    service.example("clean-temp", |text| text);
    assert!(service.systemctl("restart"));
    for (id, text) in WITH {
        service.do_task(id, text);
    }
    assert_eq!((servers.mails().len(), servers.requests().len()), (1, 1));
    let listed = |directory: &str| machine.ok(&["ls", directory]);
    assert!(listed("/var/backups/warren").ends_with(".db.gz\n"), "{}", listed("/var/backups/warren"));
    assert_eq!(listed("/tmp/uploads"), "fresh.tmp\n");
    assert!(listed("/var/lib/warren/reports").contains("Sales-Q3.html"));
    assert_eq!(service.show("Result"), "success");
}

/// No second attempt, and no long wait for servers that cannot be reached.
const QUICK: &str = "[handlers.send-email]\nretry.attempts = 1\ntimeout = \"2s\"\n\
    [handlers.webhook]\nretry.attempts = 1\ntimeout = \"2s\"\n\
    [handlers.backup-database]\nretry.attempts = 1\n";

/// The shop's files, and the directories that README and examples tell the administrator to make.
fn prepare(machine: &Machine) -> Places {
    machine.ok(&["install", "-d", "-o", "warren", "-g", "warren", "-m", "0750", "/var/backups/warren"]);
    machine.ok(&[
        "install",
        "-d",
        "-o",
        "warren",
        "/var/lib/warren",
        "/var/lib/warren/reports",
        "/tmp/uploads",
    ]);
    // Made here: SQLite does not find its way through /proc.
    let database = tempfile::NamedTempFile::new().expect("a file");
    shop::database(database.path()).expect("a database");
    machine.write("/var/lib/shop/shop.db", std::fs::read(database.path()).expect("read"));
    shop::aged(&machine.path("/tmp/uploads/fresh.tmp"), 0).expect("a file");
    shop::aged(&machine.path("/tmp/uploads/old.tmp"), 2).expect("a file");
    machine.ok(&["sh", "-c", "chown warren /tmp/uploads/*"]);
    Places {
        shop: PathBuf::from("/var/lib/shop/shop.db"),
        orders: PathBuf::from("/var/lib/warren/orders.db"),
        reports: PathBuf::from("/var/lib/warren/reports"),
        backups: PathBuf::from("/var/backups/warren"),
        temp: PathBuf::from("/tmp/uploads"),
    }
}

/// What becomes of a task whose handler the unit keeps from its work.
fn assert_without(machine: &Machine, service: &Service<'_>, id: &str) {
    let task = format!("{id}-without");
    match id {
        // The handler does not even start: its tasks wait, and are done once it does.
        "backup" => {
            service.wait_entry(&task, |entry| {
                entry["MESSAGE"].as_str().is_some_and(|text| text.starts_with("task parked"))
            });
        }
        // It looked at a /tmp of its own, in which there is nothing to do.
        "temp" => {
            service.wait_task(&task);
            assert_eq!(machine.ok(&["ls", "/tmp/uploads"]), "fresh.tmp\nold.tmp\n");
        }
        _ => {
            let end = service.wait_task(&task);
            assert_ne!(end["OUTCOME"], "done", "{end}");
        }
    }
}
