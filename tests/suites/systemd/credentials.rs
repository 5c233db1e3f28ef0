//! The broker's password as a credential, and where it is not to be seen.

use warren_tests::{Machine, Network, Node, Service, wait};

use crate::scenario;

/// A word that is nowhere by chance.
const PASSWORD: &str = "kestrel-9b1f-quarry";
const USER: &str = "systemd_credentials";

/// What any user of the machine, or of the control socket, can see of its processes and its log.
fn visible(machine: &Machine, service: &Service<'_>) -> String {
    machine.ok(&["journalctl", "--sync"]);
    let mut text = machine.ok(&["journalctl", "--all", "--output=export"]);
    text += &machine.ok(&["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'"]);
    text += &machine.ok(&["systemctl", "show", &service.unit()]);
    for verb in ["status", "handlers", "active"] {
        text += &String::from_utf8_lossy(&service.warrenctl(&["--json", verb]).stdout);
    }
    text
}

fn assert_hidden(machine: &Machine, service: &Service<'_>) {
    let text = visible(machine, service);
    assert!(text.contains("warren-host: scenario"), "a host is among what was looked at");
    let line = text.lines().find(|line| line.contains(PASSWORD));
    assert_eq!(line, None);
}

#[test]
fn the_password_is_a_credential_and_nowhere_to_be_seen() {
    let node = Node::shared();
    node.ctl(&["add_user", USER, PASSWORD]).expect("a user");
    node.ctl(&["set_permissions", USER, ".*", ".*", ".*"]).expect("permissions");
    let uri = format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}/%2f", node.port());
    let machine = Machine::start(Network::Shared);
    let service = Service::of(&machine);
    // Debug is the level at which most is said.
    let rest = scenario(&machine, &service);
    service.write_config(&format!(
        "[broker]\nuri_file = \"/etc/warren/broker-uri\"\n[log]\nlevel = \"debug,lapin=debug\"\n\
         [queues.systemd_credentials]\n{rest}"
    ));

    machine.write("/etc/warren/broker-uri", format!("{uri}\n"));
    machine.ok(&["chmod", "0600", "/etc/warren/broker-uri"]);
    service.example("credentials", |text| text);
    service.start();
    let consumes = |text: &str| text.starts_with("consuming");
    service.wait_show("StatusText", consumes);
    // By warrenctl as root, which reads the file that warrend may not.
    service.do_task("plain", "Scenario ok");
    assert!(service.systemctl("reload"));
    assert_hidden(&machine, &service);

    // A wrong password is an error that does not show it either.
    machine.write("/etc/warren/broker-uri", uri.replace("kestrel", "hawk") + "\n");
    assert!(service.systemctl("restart"));
    service.wait_show("StatusText", |text| text.contains("login refused"));
    let text = visible(&machine, &service);
    assert!(!text.contains("quarry"), "{:?}", text.lines().find(|line| line.contains("quarry")));

    encrypted(&machine, &service, &uri);
    service.wait_show("StatusText", consumes);
    publish(node, "encrypted");
    assert_eq!(service.wait_task("encrypted")["OUTCOME"], "done");
    assert_hidden(&machine, &service);
}

/// By the example's own instructions; only the commands in it are run, and its lines swapped.
fn encrypted(machine: &Machine, service: &Service<'_>, uri: &str) {
    machine.ok(&["rm", "/etc/warren/broker-uri"]);
    machine.write("/run/broker-uri.txt", uri);
    machine.ok(&["systemd-creds", "setup"]);
    machine.ok(&[
        "systemd-creds",
        "encrypt",
        "--with-key=host",
        "--name=broker-uri",
        "/run/broker-uri.txt",
        "/etc/warren/broker-uri.cred",
    ]);
    machine.ok(&["rm", "/run/broker-uri.txt"]);
    service.example("credentials", |text| {
        text.replace("\nLoadCredential=", "\n#LoadCredential=")
            .replace("#LoadCredentialEncrypted=", "LoadCredentialEncrypted=")
    });
    assert!(service.systemctl("restart"));
}

/// As another client: the file that `warrenctl` would read is encrypted now.
fn publish(node: &Node, id: &str) {
    let broker = warren_tests::Broker::connect(&node.uri());
    wait::until("the queue", || broker.depth("systemd_credentials"));
    broker.publish("systemd_credentials", id, "Scenario ok");
}
