//! `systemctl reload` tells whether what was asked for is in force.

use warren_tests::{Broker, Machine, Network, Node, Service};

use crate::scenario;

#[test]
fn a_reload_succeeds_or_fails_with_its_reason_and_the_daemon_goes_on() {
    let machine = Machine::start(Network::Shared);
    let service = Service::of(&machine);
    let uri = Node::shared().uri();
    // From elsewhere: with a bad configuration `warrenctl` here knows no queue.
    let broker = Broker::connect(&uri);
    let do_task = |id: &str, text: &str| {
        broker.publish("systemd_reload", id, text);
        assert_eq!(service.wait_task(id)["OUTCOME"], "done", "{id}");
    };
    let good = scenario(&machine, &service);
    service.configure(&uri, "systemd_reload", &good);
    service.start();
    let pid = service.pid();

    let more = "[handlers.greet]\nplugin = \"exec\"\nprefixes = [\"Greet\"]\n[handlers.greet.settings]\n";
    let better = format!("{good}{more}command = [\"/bin/echo\", \"hello\"]\n");
    service.configure(&uri, "systemd_reload", &better);
    assert!(service.systemctl("reload"), "{}", service.said());
    do_task("greeting", "Greet Ada");

    service.write_config("[queues.systemd_reload]\nprefetch = 0\n");
    assert!(!service.systemctl("reload"), "a bad configuration");
    let said = service.said();
    assert!(said.contains("nothing was reloaded") && said.contains("warren.toml:2"), "{said}");
    do_task("after-bad", "Greet Ada");

    // One handler is gone, the other cannot start.
    let partly = format!("{good}start = \"fail\"\n");
    service.configure(&uri, "systemd_reload", &partly);
    assert!(!service.systemctl("reload"), "a partly bad change");
    let said = service.said();
    assert!(said.contains("told to fail at its start"), "{said}");
    do_task("after-partly", "Scenario ok");
    assert_eq!(
        service.warrenctl(&["route", "Greet Ada"]).status.code(),
        Some(65),
        "the good part is in force"
    );

    service.configure(&uri, "systemd_reload", &better);
    assert!(service.systemctl("reload"));
    assert_eq!((service.pid(), service.show("ActiveState").as_str()), (pid, "active"));
}
