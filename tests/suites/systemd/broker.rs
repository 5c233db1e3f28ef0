//! On a machine with Debian's RabbitMQ as a unit of its own.

use std::time::{Duration, Instant};

use serde_json::Value;
use warren_tests::{Machine, Network, Service, wait};

use crate::scenario;

/// For how long the broker is away. Longer than the longest wait between two dials, so that the last of them is met.
const OUTAGE: Duration = Duration::from_secs(60);

/// A machine on which nothing but the packages was installed: of this machine's RabbitMQ neither state nor settings
/// are taken over.
pub(crate) fn with_rabbitmq() -> Machine {
    let machine = Machine::start(Network::Own);
    machine.ok(&["sh", "-c", "rm -rf /var/lib/rabbitmq/mnesia /etc/rabbitmq/*"]);
    machine
}

/// What the entry about the end of a task that is done at its first attempt has to tell.
pub(crate) fn assert_fields(end: &Value, handler: &str, queue: &str) {
    for (field, value) in [("HANDLER", handler), ("QUEUE", queue), ("ATTEMPT", "1"), ("OUTCOME", "done")] {
        assert_eq!(end[field], value, "{end}");
    }
    let number = |field: &str| end[field].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(number("DURATION_MS").is_some() && number("GENERATION").is_some_and(|n| n > 0), "{end}");
    assert_eq!(end["PLUGIN_SHA256"].as_str().map(str::len), Some(64), "{end}");
}

#[test]
fn enabled_beside_rabbitmq_it_does_what_is_published_and_outlives_an_outage() {
    let machine = with_rabbitmq();
    let service = Service::of(&machine);
    let rest = scenario(&machine, &service);
    service.configure("", "task_queue", &rest);
    machine.ok(&["systemctl", "enable", "--now", "rabbitmq-server", "warrend"]);
    assert_eq!(service.show("StatusText"), "consuming: 0 running, 0 waiting");
    let end = service.do_task("order-1", "Task 1: Scenario ok");
    assert_fields(&end, "scenario", "task_queue");
    let life: Vec<Value> = machine.journal(&["TASK_ID=order-1"]);
    assert!(life.len() >= 2, "its start as well: {life:?}");

    let pid = service.pid();
    machine.ok(&["systemctl", "stop", "rabbitmq-server"]);
    let status = service.wait_show("StatusText", |text| text.contains("refused"));
    assert!(status.starts_with("not consuming (127.0.0.1:5672"), "{status}");
    // All the while: the watchdog of 30 s passes twice.
    let away = Instant::now();
    wait::until_within(OUTAGE + wait::BOUND, "the outage ends", || {
        assert_eq!((service.readyz(), service.show("ActiveState").as_str()), (503, "active"));
        (away.elapsed() >= OUTAGE).then_some(())
    });
    machine.ok(&["systemctl", "start", "rabbitmq-server"]);
    service.wait_show("StatusText", |text| text.starts_with("consuming"));
    assert_eq!((service.readyz(), service.pid()), (200, pid));
    service.do_task("order-2", "Task 2: Scenario ok");
}
