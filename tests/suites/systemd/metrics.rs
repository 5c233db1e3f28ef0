//! What Prometheus is given: text that its own tool accepts, and totals that are right.

use warren_tests::{Machine, Service};

use crate::broker::with_rabbitmq;
use crate::scenario;

/// The sum of a metric over all its labels that contain `labels`.
fn total(text: &str, name: &str, labels: &str) -> f64 {
    let samples =
        text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
    samples
        .filter(|(found, _)| found.contains(labels))
        .map(|(_, value)| value.parse::<f64>().expect("a number"))
        .sum()
}

/// What promtool says against the metrics; nothing is good.
fn promtool(machine: &Machine, text: &str) -> String {
    machine.write("/tmp/metrics", text);
    let checked = machine.run(&["sh", "-c", "promtool check metrics </tmp/metrics 2>&1"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.success(), said.is_empty(), "{said}");
    said
}

#[test]
fn promtool_accepts_the_metrics_and_their_totals_are_the_tasks_published() {
    let machine = with_rabbitmq();
    let service = Service::of(&machine);
    let retry = "[handlers.scenario.retry]\nattempts = 2\ndelay = \"1s\"\n";
    let rest = scenario(&machine, &service) + retry;
    service.configure("", "task_queue", &rest);
    machine.ok(&["systemctl", "start", "rabbitmq-server", "warrend"]);
    for n in 0..12 {
        service.publish(&format!("good-{n}"), "Task 1: Scenario ok");
    }
    for n in 0..3 {
        service.publish(&format!("bad-{n}"), "Task 2: Scenario reject");
    }
    service.publish("worn", "Task 3: Scenario retry");
    service.publish("stray", "Nobody's");
    warren_tests::wait::until("every task to be over", || {
        let (_, text) = service.get("/metrics");
        let over = ["done", "dead", "retried"]
            .map(|outcome| total(&text, "warren_queue_tasks_total", &format!("outcome=\"{outcome}\"")));
        (over.iter().sum::<f64>() >= 18.0).then_some(())
    });

    let (code, text) = service.get("/metrics");
    assert_eq!(code, 200);
    assert_eq!(promtool(&machine, &text), "");
    // A check that cannot fail would prove nothing.
    let unexplained = "# TYPE warren_tasks_total counter\nwarren_tasks_total 1\n";
    assert!(promtool(&machine, unexplained).contains("no help text"));
    let queue = |outcome: &str| total(&text, "warren_queue_tasks_total", &format!("outcome=\"{outcome}\""));
    assert_eq!((queue("done"), queue("dead"), queue("retried")), (12.0, 5.0, 1.0), "{text}");
    let deliveries = total(&text, "warren_queue_deliveries_total", "queue=\"task_queue\"");
    assert_eq!(deliveries, 18.0, "17 tasks, one of them twice: {text}");
    // No handler takes the stray one.
    let handler = |outcome: &str| {
        total(&text, "warren_handler_tasks_total", &format!("handler=\"scenario\",outcome=\"{outcome}\""))
    };
    assert_eq!((handler("done"), handler("dead"), handler("retried")), (12.0, 4.0, 1.0), "{text}");
}
