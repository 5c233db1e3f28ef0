//! What the view shows: the newest sample, and the past of every queue and handler. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use warren::control::client::ClientError;
use warren::model::status::{ActiveTask, HandlerStatus, QueueStatus, Status};

use super::track::{Point, Rates, Spans, Track};

/// One answer of the daemon.
#[derive(Debug)]
pub(super) struct Sample {
    /// When it was asked.
    pub(super) at: Instant,
    /// `/v1/status`.
    pub(super) status: Status,
    /// `/v1/active`.
    pub(super) active: Vec<ActiveTask>,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The newest status.
    pub(super) status: Status,
    /// The running tasks, longest first.
    pub(super) active: Vec<ActiveTask>,
    /// Why the daemon does not answer, while it does not.
    pub(super) lost: Option<String>,
    queues: BTreeMap<String, Track>,
    handlers: BTreeMap<String, Track>,
}

/// One queue or handler.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) state: String,
    /// Tasks running now.
    pub(super) running: usize,
    /// How many may run at once; absent: no bound of its own.
    pub(super) workers: Option<u16>,
    /// Deliveries held and not running.
    pub(super) waiting: usize,
    /// Of the last interval.
    #[serde(flatten)]
    pub(super) rates: Rates,
    /// Of the last minute: of a queue from delivery to start, of a handler a task's time.
    pub(super) spans: Option<Spans>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Figures<'a> {
    state: &'a str,
    ready: bool,
    broker: &'a str,
    queues: Vec<Row>,
    handlers: Vec<Row>,
    active: &'a [ActiveTask],
}

impl Model {
    /// Takes a new sample. A daemon that started anew counts from zero: its past is another one's.
    pub(super) fn take(&mut self, sample: Sample) {
        let Sample { at, status, active } = sample;
        if (status.pid, status.started_ms) != (self.status.pid, self.status.started_ms) {
            self.queues.clear();
            self.handlers.clear();
        }
        let queues = status.queues.iter().map(|queue| (&queue.name, queue.counts, queue.waits));
        follow(&mut self.queues, at, queues);
        let handlers =
            status.handlers.iter().map(|handler| (&handler.name, handler.counts, handler.durations));
        follow(&mut self.handlers, at, handlers);
        self.status = status;
        self.active = active;
        self.lost = None;
    }

    /// The daemon does not answer; what was known stays.
    pub(super) fn lose(&mut self, error: &ClientError) {
        self.lost = Some(error.to_string());
    }

    pub(super) fn queues(&self) -> Vec<(Row, &Track)> {
        let row = |queue: &QueueStatus| {
            let track = &self.queues[&queue.name];
            let row = Row {
                name: queue.name.clone(),
                state: queue.state.to_string(),
                running: queue.running,
                workers: Some(queue.workers),
                waiting: queue.waiting,
                rates: track.rates(),
                spans: track.spans(),
            };
            (row, track)
        };
        self.status.queues.iter().map(row).collect()
    }

    pub(super) fn handlers(&self) -> Vec<(Row, &Track)> {
        let row = |handler: &HandlerStatus| {
            let track = &self.handlers[&handler.name];
            let row = Row {
                name: handler.name.clone(),
                state: handler.state.to_string(),
                running: handler.running,
                workers: Some(handler.workers).filter(|workers| *workers > 0),
                waiting: handler.waiting,
                rates: track.rates(),
                spans: track.spans(),
            };
            (row, track)
        };
        self.status.handlers.iter().map(row).collect()
    }

    pub(super) fn figures(&self) -> Figures<'_> {
        let rows = |rows: Vec<(Row, &Track)>| rows.into_iter().map(|(row, _)| row).collect();
        Figures {
            state: self.status.state.as_str(),
            ready: self.status.ready,
            broker: self.status.broker.state.as_str(),
            queues: rows(self.queues()),
            handlers: rows(self.handlers()),
            active: &self.active,
        }
    }
}

/// Adds a point to the tracks of those that are there, and forgets the others.
fn follow<'a>(
    tracks: &mut BTreeMap<String, Track>,
    at: Instant,
    now: impl Iterator<Item = (&'a String, warren::model::status::Counts, warren::model::status::Histogram)>,
) {
    let mut before = std::mem::take(tracks);
    for (name, counts, spans) in now {
        let mut track = before.remove(name).unwrap_or_default();
        track.push(Point { at, counts, spans });
        tracks.insert(name.clone(), track);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use warren::model::status::{
        BrokerState, BrokerStatus, Counts, DaemonState, HandlerState, Histogram, QueueState,
    };

    use super::*;

    /// A daemon with one queue and two handlers, so many seconds and tasks after its start.
    pub(in crate::top) fn sample(start: Instant, second: u64, done: u64) -> Sample {
        let counts = Counts { done, dead: second, ..Counts::default() };
        let mut spans = Histogram::default();
        (0..done).for_each(|_| spans.observe(Duration::from_millis(20)));
        let handler = |name: &str, state: HandlerState| HandlerStatus {
            name: name.into(),
            state,
            ..HandlerStatus::default()
        };
        Sample {
            at: start + Duration::from_secs(second),
            status: Status {
                version: "1.2.3".into(),
                pid: 4711,
                state: DaemonState::Running,
                ready: true,
                broker: BrokerStatus { state: BrokerState::Connected, ..BrokerStatus::default() },
                queues: vec![QueueStatus {
                    name: "task_queue".into(),
                    state: QueueState::Consuming,
                    workers: 4,
                    running: 1,
                    waiting: 3,
                    waits: spans,
                    counts,
                    ..QueueStatus::default()
                }],
                handlers: vec![
                    HandlerStatus {
                        counts,
                        durations: spans,
                        running: 1,
                        ..handler("orders", HandlerState::Active)
                    },
                    HandlerStatus {
                        held: Some("it dies".into()),
                        ..handler("mail", HandlerState::Suspended)
                    },
                ],
                ..Status::default()
            },
            active: vec![ActiveTask {
                id: "t-1".into(),
                queue: "task_queue".into(),
                handler: "orders".into(),
                attempt: 2,
                text: "Process order #1\x1b[2J".into(),
                running_ms: 61_000,
                timeout_ms: 900_000,
                permille: Some(425),
                ..ActiveTask::default()
            }],
        }
    }

    #[test]
    fn a_row_has_the_rates_between_two_samples() {
        let start = Instant::now();
        let mut model = Model::default();
        model.take(sample(start, 0, 0));
        model.take(sample(start, 2, 100));
        let figures = serde_json::to_value(model.figures()).unwrap();
        assert_eq!(figures["queues"][0]["done_per_s"], 50.0);
        assert_eq!(figures["queues"][0]["failed_per_s"], 1.0);
        assert_eq!(figures["queues"][0]["workers"], 4);
        let mean = figures["handlers"][0]["spans"]["mean_s"].as_f64().unwrap();
        assert!((mean - 0.02).abs() < 1e-9, "{figures}");
        assert_eq!(figures["handlers"][1]["workers"], serde_json::Value::Null);
        assert_eq!(figures["active"][0]["id"], "t-1");
    }

    #[test]
    fn a_daemon_that_started_anew_has_no_past() {
        let start = Instant::now();
        let mut model = Model::default();
        model.take(sample(start, 0, 1000));
        let mut later = sample(start, 1, 5);
        later.status.pid = 4712;
        model.take(later);
        assert_eq!(model.queues()[0].0.rates, Rates::default());
        assert_eq!(model.queues()[0].1.done().count(), 0);
    }

    #[test]
    fn what_a_reload_took_away_is_forgotten() {
        let start = Instant::now();
        let mut model = Model::default();
        model.take(sample(start, 0, 0));
        let mut less = sample(start, 1, 0);
        less.status.handlers.remove(1);
        model.take(less);
        assert_eq!(model.handlers().len(), 1);
        model.take(sample(start, 2, 0));
        assert_eq!(model.handlers()[1].1.done().count(), 0);
    }

    #[test]
    fn a_lost_daemon_leaves_what_was_known_until_it_is_back() {
        let start = Instant::now();
        let mut model = Model::default();
        model.take(sample(start, 0, 0));
        let path = "/run/w.sock".into();
        model.lose(&ClientError::NoDaemon { path, why: std::io::ErrorKind::NotFound.into() });
        assert!(model.lost.as_ref().unwrap().contains("/run/w.sock"));
        assert_eq!(model.queues().len(), 1);
        model.take(sample(start, 1, 0));
        assert!(model.lost.is_none());
    }
}
