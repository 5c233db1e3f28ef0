//! The path unit that reloads when plugins change.

use warren_tests::artefacts::{self, Versions};
use warren_tests::{Machine, Network, Node, Service, wait};

use crate::scenario;

#[test]
fn a_changed_plugin_is_taken_up_and_a_bad_one_is_told_of() {
    let machine = Machine::start(Network::Shared);
    let uri = Node::shared().uri();
    let services = [Service::of(&machine), Service::instance(&machine, "shop")];
    for (service, queue) in services.iter().zip(["systemd_plugins", "systemd_plugins_shop"]) {
        service.configure(&uri, queue, &scenario(&machine, service));
        service.start();
    }
    let pids = services.map(|service| service.pid());
    let version = |service: &Service<'_>| {
        let state = service.state();
        let record = machine.read(&format!("{state}/record")).unwrap_or_default();
        record.lines().last().and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
    };
    assert_eq!(
        machine.run(&["systemctl", "is-enabled", "warren-plugins.path"]).status.code(),
        Some(1),
        "off"
    );
    machine.ok(&["systemctl", "enable", "--now", "warren-plugins.path"]);

    let versions = Versions::of(&artefacts::plugin("fixture-scenario"));
    machine.install_plugin("fixture-scenario", &versions.version(2));
    for (n, service) in services.iter().enumerate() {
        wait::until("the reload", || {
            let reload = service.status()?["last_reload"].clone();
            (reload["ok"] == true).then_some(())
        });
        service.do_task(&format!("changed-{n}"), "Scenario ok");
        assert_eq!(version(service), Some(2));
    }

    // Written in place and in pieces, as a slow copy does it, and it ends in the middle.
    machine.ok(&["sh", "-c", "cd /usr/lib/warren/plugins && head -c 1000000 exec.so > fixture-scenario.so"]);
    wait::until("the reload that fails", || {
        let failed = machine.run(&["systemctl", "is-failed", "warren-plugins.service"]);
        failed.status.success().then_some(())
    });
    for (n, service) in services.iter().enumerate() {
        service.do_task(&format!("kept-{n}"), "Scenario ok");
        assert_eq!(version(service), Some(2), "what ran goes on");
    }
    machine.install_plugin("fixture-scenario", &versions.version(3));
    wait::until("the reload that is good again", || {
        let state =
            machine.run(&["systemctl", "show", "--value", "--property=Result", "warren-plugins.service"]);
        (state.stdout == b"success\n").then_some(())
    });
    assert_eq!(services.map(|service| service.pid()), pids);
    for (n, service) in services.iter().enumerate() {
        wait::until("the reload", || (service.status()?["last_reload"]["ok"] == true).then_some(()));
        service.do_task(&format!("again-{n}"), "Scenario ok");
        assert_eq!(version(service), Some(3));
    }
}
