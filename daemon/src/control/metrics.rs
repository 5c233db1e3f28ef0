//! `/metrics`: the status as Prometheus text. Units are base units; labels are bounded by the configuration: queue,
//! handler, and a fixed set of outcomes and states.

use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use crate::model::status::{
    BUCKETS_S, BrokerState, Counts, HandlerState, HandlerStatus, Histogram, QueueState, QueueStatus, Status,
};

/// The MIME type of what [`render`] returns.
pub(super) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The status as Prometheus text.
pub(super) fn render(status: &Status) -> String {
    let mut families = Vec::new();
    daemon(status, &mut families);
    queues(&status.queues, &mut families);
    handlers(&status.handlers, &mut families);
    process(status, &mut families);
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    // The encoder fails on a family without a name or a metric, and there is none.
    let _ = TextEncoder::new().encode(&families, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn daemon(status: &Status, into: &mut Vec<MetricFamily>) {
    let flag = |on: bool| [(Labels::new(), f64::from(u8::from(on)))];
    let version = [(vec![("version", status.version.clone())], 1.0)];
    into.push(gauges("warren_build_info", "Always 1; the version is in the label.", version));
    let ready = "Whether every queue that is to be consumed is, none is stuck, and copies can be published.";
    into.push(gauges("warren_ready", ready, flag(status.ready)));
    let up = "Whether both connections to the broker are up.";
    into.push(gauges(
        "warren_broker_connected",
        up,
        flag(matches!(status.broker.state, BrokerState::Connected | BrokerState::Blocked)),
    ));
    let blocked = "Whether the broker takes no messages at the moment (a memory or disk alarm).";
    into.push(gauges(
        "warren_broker_publishing_blocked",
        blocked,
        flag(status.broker.state == BrokerState::Blocked),
    ));
    let links = [(Labels::new(), status.broker.connects as f64)];
    into.push(counters("warren_broker_connects_total", "Times the broker was connected to.", links));
    let (ok, failed) = status.reloads;
    let reloads = [
        (vec![("result", "ok".to_owned())], ok as f64),
        (vec![("result", "failed".to_owned())], failed as f64),
    ];
    into.push(counters(
        "warren_reloads_total",
        "Reloads, by whether all that was asked for is in force.",
        reloads,
    ));
    let lost = [(Labels::new(), status.log_lines_lost as f64)];
    into.push(counters("warren_log_lines_lost_total", "Log lines lost because the log was too slow.", lost));
}

fn queues(queues: &[QueueStatus], into: &mut Vec<MetricFamily>) {
    let label = |queue: &'_ QueueStatus| vec![("queue", queue.name.clone())];
    let values = |value: fn(&QueueStatus) -> f64| -> Vec<(Labels, f64)> {
        queues.iter().map(|queue| (label(queue), value(queue))).collect()
    };
    into.push(counters(
        "warren_queue_deliveries_total",
        "Deliveries taken from the broker.",
        values(|queue| queue.counts.delivered as f64),
    ));
    // Known before the handler is: it has no such count.
    let deduplicated = |queue: &QueueStatus| {
        let labels = vec![("queue", queue.name.clone()), ("outcome", "deduplicated".to_owned())];
        (labels, queue.counts.deduplicated as f64)
    };
    let outcomes = queues.iter().flat_map(|queue| {
        by_outcome("queue", &queue.name, &queue.counts).chain(std::iter::once(deduplicated(queue)))
    });
    into.push(counters(
        "warren_queue_tasks_total",
        "Tasks of the queue, by what became of their deliveries.",
        outcomes,
    ));
    into.push(counters(
        "warren_queue_expired_total",
        "Dead letters of the queue whose time was up before they could start.",
        values(|queue| queue.counts.expired as f64),
    ));
    into.push(gauges(
        "warren_queue_unsettled",
        "Tasks that ended some time ago and cannot be settled.",
        values(|queue| queue.unsettled.as_ref().map_or(0.0, |unsettled| unsettled.tasks as f64)),
    ));
    into.push(gauges(
        "warren_queue_consuming",
        "Whether the queue is being consumed, and takes tasks.",
        values(|queue| f64::from(u8::from(queue.state == QueueState::Consuming))),
    ));
    into.push(gauges("warren_queue_running", "Tasks that run.", values(|queue| queue.running as f64)));
    into.push(gauges(
        "warren_queue_waiting",
        "Deliveries held and not running.",
        values(|queue| queue.waiting as f64),
    ));
    into.push(gauges(
        "warren_queue_settling",
        "Tasks that ended and are not settled at the broker yet.",
        values(|queue| queue.settling as f64),
    ));
    into.push(gauges(
        "warren_queue_workers",
        "Tasks that may run at once.",
        values(|queue| f64::from(queue.workers)),
    ));
    let remembering = queues.iter().filter_map(|queue| {
        let memory = queue.deduplication.as_ref()?;
        Some((label(queue), f64::from(u8::from(memory.fault.is_none()))))
    });
    into.push(gauges(
        "warren_queue_memory_on_disk",
        "Whether the tasks that `deduplicate` remembers are written to disk.",
        remembering,
    ));
    let waits = queues.iter().map(|queue| (label(queue), &queue.waits));
    into.push(histograms("warren_queue_wait_seconds", "From the delivery of a task to its start.", waits));
}

fn handlers(handlers: &[HandlerStatus], into: &mut Vec<MetricFamily>) {
    let label = |handler: &HandlerStatus| vec![("handler", handler.name.clone())];
    let values = |value: fn(&HandlerStatus) -> f64| -> Vec<(Labels, f64)> {
        handlers.iter().map(|handler| (label(handler), value(handler))).collect()
    };
    let outcomes = handlers.iter().flat_map(|handler| by_outcome("handler", &handler.name, &handler.counts));
    into.push(counters(
        "warren_handler_tasks_total",
        "Tasks of the handler, by what became of them.",
        outcomes,
    ));
    into.push(counters(
        "warren_handler_faults_total",
        "Tasks that panicked, crashed or broke the plugin contract; they are retried or dead, too.",
        values(|handler| handler.counts.faults as f64),
    ));
    let durations = handlers.iter().map(|handler| (label(handler), &handler.durations));
    into.push(histograms("warren_handler_task_duration_seconds", "How long tasks ran.", durations));
    into.push(gauges("warren_handler_running", "Tasks that run.", values(|handler| handler.running as f64)));
    into.push(gauges(
        "warren_handler_waiting",
        "Tasks that wait for a worker or a host.",
        values(|handler| handler.waiting as f64),
    ));
    into.push(gauges(
        "warren_handler_hosts",
        "Its plugin hosts.",
        values(|handler| handler.hosts.len() as f64),
    ));
    let states = handlers.iter().flat_map(|handler| {
        HandlerState::ALL.iter().map(|state| {
            let labels = vec![("handler", handler.name.clone()), ("state", state.to_string())];
            (labels, f64::from(u8::from(handler.state == *state)))
        })
    });
    into.push(gauges("warren_handler_state", "1 for the state that the handler is in.", states));
}

/// What every Prometheus client shows of its process; missing where `/proc` is.
fn process(status: &Status, into: &mut Vec<MetricFamily>) {
    let start = [(Labels::new(), status.started_ms as f64 / 1000.0)];
    into.push(gauges("process_start_time_seconds", "Start of the daemon since the Unix epoch.", start));
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", status.pid)).unwrap_or_default();
    let file = read("status");
    let resident = file.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let resident = resident.map(|kib| (Labels::new(), kib * 1024.0));
    into.push(gauges("process_resident_memory_bytes", "Resident memory of the daemon.", resident));
    let fds = std::fs::read_dir(format!("/proc/{}/fd", status.pid)).map(Iterator::count).ok();
    let fds = fds.map(|count| (Labels::new(), count as f64));
    into.push(gauges("process_open_fds", "Open file descriptors of the daemon.", fds));
}

fn by_outcome(
    kind: &'static str,
    name: &str,
    counts: &Counts,
) -> impl Iterator<Item = (Labels, f64)> + use<> {
    let Counts { done, retried, dead, requeued, parked, .. } = *counts;
    let name = name.to_owned();
    [("done", done), ("retried", retried), ("dead", dead), ("requeued", requeued), ("parked", parked)]
        .into_iter()
        .map(move |(outcome, count)| {
            (vec![(kind, name.clone()), ("outcome", outcome.to_owned())], count as f64)
        })
}

/// Labels of one metric.
type Labels = Vec<(&'static str, String)>;

fn counters(name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) -> MetricFamily {
    let metrics = values.into_iter().map(|(labels, value)| {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_counter(counter);
        metric
    });
    family(name, help, MetricType::COUNTER, metrics.collect())
}

fn gauges(name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) -> MetricFamily {
    let metrics = values.into_iter().map(|(labels, value)| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_gauge(gauge);
        metric
    });
    family(name, help, MetricType::GAUGE, metrics.collect())
}

fn histograms<'a>(
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels, &'a Histogram)>,
) -> MetricFamily {
    let metrics = values.into_iter().map(|(labels, histogram)| {
        let mut cumulative = 0;
        let buckets = BUCKETS_S.iter().zip(&histogram.counts).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut shown = prometheus::proto::Histogram::default();
        shown.set_bucket(buckets.collect());
        shown.set_sample_count(histogram.count());
        shown.set_sample_sum(histogram.sum_s);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(shown);
        metric
    });
    family(name, help, MetricType::HISTOGRAM, metrics.collect())
}

fn pairs(labels: Labels) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    labels.into_iter().map(pair).collect()
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::status::{Deduplication, Unsettled};

    fn status() -> Status {
        let mut waits = Histogram::default();
        for millis in [1, 2, 700, 4_000_000] {
            waits.observe(Duration::from_millis(millis));
        }
        let counts = Counts {
            delivered: 9,
            done: 5,
            retried: 2,
            dead: 1,
            expired: 1,
            deduplicated: 1,
            ..Counts::default()
        };
        let queue = QueueStatus {
            name: "a \"b\"".into(),
            state: QueueState::Consuming,
            counts,
            waits,
            unsettled: Some(Unsettled { tasks: 3, why: "full".into() }),
            deduplication: Some(Deduplication { fault: Some("full".into()), ..Deduplication::default() }),
            ..QueueStatus::default()
        };
        let handler = HandlerStatus {
            name: "mail".into(),
            state: HandlerState::Paused,
            counts,
            ..HandlerStatus::default()
        };
        Status {
            pid: std::process::id(),
            queues: vec![queue],
            handlers: vec![handler],
            reloads: (3, 1),
            ..Status::default()
        }
    }

    #[test]
    fn counts_states_and_spans_are_there_under_their_names() {
        let text = render(&status());
        for line in [
            "warren_queue_deliveries_total{queue=\"a \\\"b\\\"\"} 9",
            "warren_queue_tasks_total{queue=\"a \\\"b\\\"\",outcome=\"retried\"} 2",
            "warren_queue_tasks_total{queue=\"a \\\"b\\\"\",outcome=\"deduplicated\"} 1",
            "warren_queue_expired_total{queue=\"a \\\"b\\\"\"} 1",
            "warren_queue_unsettled{queue=\"a \\\"b\\\"\"} 3",
            "warren_queue_memory_on_disk{queue=\"a \\\"b\\\"\"} 0",
            "warren_handler_tasks_total{handler=\"mail\",outcome=\"done\"} 5",
            "warren_handler_state{handler=\"mail\",state=\"paused\"} 1",
            "warren_handler_state{handler=\"mail\",state=\"active\"} 0",
            "warren_queue_wait_seconds_bucket{queue=\"a \\\"b\\\"\",le=\"0.001\"} 1",
            "warren_queue_wait_seconds_bucket{queue=\"a \\\"b\\\"\",le=\"1\"} 3",
            "warren_queue_wait_seconds_bucket{queue=\"a \\\"b\\\"\",le=\"+Inf\"} 4",
            "warren_queue_wait_seconds_count{queue=\"a \\\"b\\\"\"} 4",
            "warren_reloads_total{result=\"failed\"} 1",
            "warren_ready 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        assert!(
            text.contains("process_resident_memory_bytes ") && text.contains("process_open_fds "),
            "{text}"
        );
    }

    #[test]
    fn every_metric_has_its_help_and_its_type_and_no_other_comment() {
        let text = render(&status());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            for comment in ["HELP", "TYPE"] {
                let wanted = format!("# {comment} {base} ");
                assert!(text.lines().any(|line| line.starts_with(&wanted)), "no {comment} of {name}");
            }
        }
    }

    #[test]
    fn a_daemon_without_queues_and_handlers_has_metrics_too() {
        assert!(render(&Status::default()).contains("warren_broker_connected 0"));
    }
}
