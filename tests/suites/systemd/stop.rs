//! A stop that lets tasks finish.

use std::time::{Duration, Instant};

use warren_tests::{Machine, Network, Node, Service, wait};

use crate::scenario;

/// More than the unit's patience and one request for more time together.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_stop_waits_for_a_long_task_beyond_the_units_time_limit() {
    let machine = Machine::start(Network::Shared);
    let service = Service::of(&machine);
    let rest = format!("[daemon]\ndrain_timeout = \"60s\"\n{}", scenario(&machine, &service));
    service.configure(&Node::shared().uri(), "systemd_stop", &rest);
    service.drop_in("patience", "[Service]\nTimeoutStopSec=2s\nWatchdogSec=2s\n");
    service.start();
    service.publish("long", "Scenario hold gate");
    let record = format!("{}/record", service.state());
    wait::until("it runs", || machine.read(&record).filter(|record| record.contains("start long")));

    let begun = Instant::now();
    machine.ok(&["systemctl", "stop", "--no-block", "warrend"]);
    wait::until("a long time", || {
        assert!(
            ["active", "deactivating"].contains(&service.show("ActiveState").as_str()),
            "{}",
            service.said()
        );
        (begun.elapsed() > LONG).then_some(())
    });
    assert_eq!(service.show("StatusText"), "draining: 1 running, 0 to settle");
    machine.write(&format!("{}/gate", service.state()), "");
    service.wait_show("ActiveState", |state| state == "inactive");
    assert_eq!(service.show("Result"), "success");
    assert_eq!(service.wait_task("long")["OUTCOME"], "done");
}
