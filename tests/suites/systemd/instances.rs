//! Several daemons on one machine.

use warren_tests::{Machine, Network, Node, Service};

use crate::scenario;

#[test]
fn two_instances_have_nothing_in_common_but_the_plugins() {
    let machine = Machine::start(Network::Shared);
    let uri = Node::shared().uri();
    let services = ["mail", "shop"].map(|name| Service::instance(&machine, name));
    for (service, queue) in services.iter().zip(["systemd_mail", "systemd_shop"]) {
        service.configure(&uri, queue, &scenario(&machine, service));
        service.start();
    }
    for (service, queue) in services.iter().zip(["systemd_mail", "systemd_shop"]) {
        // Published by `warrenctl --instance`, to the only queue in that one's configuration.
        let end = service.do_task("same-id", "Scenario ok");
        assert_eq!(end["QUEUE"], queue);
        let record = machine.read(&format!("{}/record", service.state())).expect("its own state directory");
        assert_eq!(record, "start same-id 1 00000001\nend same-id 1 00000001\n");
        assert!(service.systemctl("reload"));
    }
    let [mail, shop] = services;
    assert_ne!(mail.pid(), shop.pid());
    let pid = shop.pid();
    assert!(mail.systemctl("stop"));
    assert!(machine.read("/run/warren-mail").is_none() && mail.status().is_none());
    assert_eq!((shop.readyz(), shop.pid()), (200, pid));
    shop.do_task("alone", "Scenario ok");
}
