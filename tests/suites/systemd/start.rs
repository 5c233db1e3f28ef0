//! When the service counts as started.

use std::time::{Duration, Instant};

use lapin::types::AMQPValue;
use warren_tests::{Broker, Machine, Network, Node, Proxy, Service, wait};

use crate::scenario;

#[test]
fn it_is_active_when_it_consumes_and_not_before() {
    const QUEUE: &str = "systemd_start";
    let broker = Broker::connect(&Node::shared().uri());
    // A queue that cannot be consumed.
    broker.declare(QUEUE, &[("x-queue-type", AMQPValue::LongString("stream".into()))]);
    let proxy = Proxy::start(Node::shared().port());
    proxy.refuse();
    let machine = Machine::start(Network::Shared);
    let service = Service::of(&machine);
    let rest = format!("[daemon]\nstart_wait = \"0s\"\n{}", scenario(&machine, &service));
    service.configure(&proxy.uri(), QUEUE, &rest);
    // Waiting is no reason to fail, however short the unit's patience.
    service.drop_in("patience", "[Service]\nTimeoutStartSec=2s\nWatchdogSec=2s\n");
    let begun = Instant::now();
    machine.ok(&["systemctl", "start", "--no-block", "warrend"]);
    service.wait_show("StatusText", |text| text.starts_with("not consuming (127.0.0.1"));
    wait::until("more than the unit's patience", || {
        assert_eq!(service.show("ActiveState"), "activating");
        (begun.elapsed() > Duration::from_secs(4)).then_some(())
    });
    proxy.forward();
    service.wait_show("StatusText", |text| text.contains("stream"));
    assert_eq!((service.show("ActiveState").as_str(), service.readyz()), ("activating", 503));

    broker.delete(QUEUE);
    service.wait_show("ActiveState", |state| state == "active");
    assert_eq!(service.show("StatusText"), "consuming: 0 running, 0 waiting");
    assert_eq!((service.readyz(), service.show("NRestarts").as_str()), (200, "0"));
    service.do_task("first", "Scenario ok");
}

#[test]
fn without_a_broker_it_is_active_after_start_wait_and_says_that_it_does_not_consume() {
    let proxy = Proxy::start(Node::shared().port());
    proxy.refuse();
    let machine = Machine::start(Network::Shared);
    let service = Service::of(&machine);
    let rest = format!("[daemon]\nstart_wait = \"1s\"\n{}", scenario(&machine, &service));
    service.configure(&proxy.uri(), "systemd_away", &rest);
    service.start();
    assert_eq!(service.show("ActiveState"), "active");
    let status = service.wait_show("StatusText", |text| text.contains("refused"));
    assert!(status.starts_with("not consuming (127.0.0.1"), "{status}");
    assert_eq!(service.readyz(), 503);
    let pid = service.pid();

    proxy.forward();
    service.wait_show("StatusText", |text| text.starts_with("consuming"));
    assert_eq!((service.readyz(), service.pid()), (200, pid));
    service.do_task("first", "Scenario ok");
}

#[test]
fn a_configuration_that_cannot_work_is_not_tried_again() {
    let machine = Machine::start(Network::Own);
    let service = Service::of(&machine);
    service.write_config("[queues.q]\nprefetch = 0\n");
    assert!(!service.systemctl("start"));
    let properties = ["ActiveState", "Result", "ExecMainStatus", "NRestarts"].map(|name| service.show(name));
    assert_eq!(properties, ["failed", "exit-code", "78", "0"]);
    let said = service.said();
    assert!(said.contains("warren.toml:2") && said.contains("prefetch"), "{said}");
}
