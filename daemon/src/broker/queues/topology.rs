//! Names and arguments of every queue that Warren declares: one table, because a queue's arguments can never change.
//! Pure; `declare.rs` declares them.
//!
//! | queue | name | arguments |
//! | --- | --- | --- |
//! | work | `<queue>` | none, or `x-queue-type` as configured; a quorum one on 4.0 and later also `x-delivery-limit=-1` |
//! | delay | `<queue>.retry.<ms>` | `x-message-ttl=<ms>`, `x-dead-letter-exchange=""`, `x-dead-letter-routing-key=<queue>`; a quorum one also `x-dead-letter-strategy=at-least-once`, `x-overflow=reject-publish`, and `x-delivery-limit=-1` on 4.0 and later |
//! | dead | `<queue>.dead` | as the work queue, with the configured type; classic unless configured |
//!
//! All are durable, none expires or is ever deleted: `x-expires` deletes a queue with its messages.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};

use crate::broker::server::Server;
use crate::config::{Queue, QueueType};
pub use crate::model::queue_name::{dead_name, delay_name, work_queue_of};

/// The delays there are queues for, in milliseconds. A task waits on the first rung that is not shorter than its
/// delay: never less than asked, and above a second never three times as much (twice, for the delays of the default
/// policy). Few rungs, because each one in use is a permanent queue for each work queue.
const LADDER_MS: [u64; 20] = [
    250, 500, 1_000, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    1_800_000, 3_600_000, 7_200_000, 14_400_000, 43_200_000, 86_400_000,
];

/// The longest delay there is a queue for; a longer one takes several waits (`hops.rs`).
pub const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest delay there is a queue for.
pub(in crate::broker) const SHORTEST: Duration = Duration::from_millis(LADDER_MS[0]);

/// The next rung of a delay that is waited for in several: the longest one that is not longer, else the shortest.
pub fn hop(left: Duration) -> Duration {
    let ms = left.as_millis();
    let rung = LADDER_MS.into_iter().rev().find(|&rung| u128::from(rung) <= ms);
    rung.map_or(SHORTEST, Duration::from_millis)
}

/// The rung for a delay: the first one that is not shorter, at most [`MAX_DELAY`].
pub fn rung(delay: Duration) -> Duration {
    let ms = delay.as_millis();
    let rung = LADDER_MS.into_iter().find(|&rung| u128::from(rung) >= ms);
    rung.map_or(MAX_DELAY, Duration::from_millis)
}

/// Every rung there is, the shortest first.
pub(in crate::broker) fn rungs() -> impl Iterator<Item = Duration> {
    LADDER_MS.into_iter().map(Duration::from_millis)
}

/// How long a delay queue keeps a message, by its name; `None`: it is none.
pub fn delay_of(name: &str) -> Option<Duration> {
    let ms = name.rsplit_once(".retry.")?.1.parse().ok()?;
    LADDER_MS.contains(&ms).then(|| Duration::from_millis(ms))
}

/// The regular expression that the permissions of Warren's user have to match for a work queue, its delay queues and its
/// dead letters.
pub fn permission_pattern(queue: &str) -> String {
    let mut pattern = "^".to_owned();
    for c in queue.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + r"(\..*)?$"
}

/// The kind of a work queue's delay queues: as configured, else quorum where that loses nothing on the way back.
pub fn delay_type(configured: Option<QueueType>, server: &Server) -> QueueType {
    configured.unwrap_or(if server.has_lossless_delay() { QueueType::Quorum } else { QueueType::Classic })
}

/// Arguments of a work queue that does not exist yet.
pub fn work_arguments(queue: &Queue, server: &Server) -> FieldTable {
    plain_arguments(queue.queue_type, server)
}

/// Arguments of a dead queue that does not exist yet.
pub fn dead_arguments(queue: &Queue, server: &Server) -> FieldTable {
    plain_arguments(queue.dead_type, server)
}

/// Arguments of a quorum dead queue of ours on this broker, which never discards a letter for having been looked at.
pub fn quorum_dead_arguments(server: &Server) -> FieldTable {
    plain_arguments(Some(QueueType::Quorum), server)
}

/// Arguments of the delay queue of `target` for one rung.
pub fn delay_arguments(target: &str, rung: Duration, kind: QueueType, server: &Server) -> FieldTable {
    let mut arguments = plain_arguments(Some(kind), server);
    let ttl = i64::try_from(rung.as_millis()).unwrap_or(i64::MAX);
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ttl));
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(target));
    if kind == QueueType::Quorum {
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        // at-least-once is refused together with the default, drop-head.
        arguments.insert("x-overflow".into(), text("reject-publish"));
    }
    arguments
}

/// Without a type nothing at all: what the RabbitMQ tutorial's producer declares must stay equal to it.
fn plain_arguments(kind: Option<QueueType>, server: &Server) -> FieldTable {
    let mut arguments = FieldTable::default();
    if let Some(kind) = kind {
        arguments.insert("x-queue-type".into(), text(kind_name(kind)));
    }
    if kind == Some(QueueType::Quorum) && server.takes_unlimited_deliveries() {
        // Attempts are counted in our own header; the default of 20 drops the message.
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(-1));
    }
    arguments
}

fn kind_name(kind: QueueType) -> &'static str {
    match kind {
        QueueType::Classic => "classic",
        QueueType::Quorum => "quorum",
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: &str) -> Server {
        Server { product: "RabbitMQ".to_owned(), version: version.to_owned() }
    }

    fn queue(kind: Option<QueueType>) -> Queue {
        Queue { queue_type: kind, dead_type: kind, ..Queue::new("tasks") }
    }

    #[test]
    fn a_delay_is_never_shortened_below_a_day_nor_tripled_above_a_second() {
        for ms in (1..90_000_000_u64).step_by(997) {
            let asked = Duration::from_millis(ms);
            let got = rung(asked);
            if asked <= MAX_DELAY {
                assert!(got >= asked, "{asked:?} became {got:?}");
                assert!(asked < Duration::from_secs(1) || got < asked * 3, "{asked:?} became {got:?}");
            } else {
                assert_eq!(got, MAX_DELAY);
            }
        }
    }

    #[test]
    fn delays_on_a_rung_stay_as_they_are() {
        let table = [(0, 250), (250, 250), (251, 500), (1_000, 1_000), (5_000, 5_000), (600_000, 600_000)];
        for (asked, got) in table {
            assert_eq!(rung(Duration::from_millis(asked)), Duration::from_millis(got), "{asked} ms");
        }
        assert_eq!(rung(Duration::MAX), MAX_DELAY);
    }

    #[test]
    fn a_queue_of_ours_is_known_by_its_name() {
        for (name, queue) in [
            ("tasks.retry.250", Some("tasks")),
            ("tasks.dead", Some("tasks")),
            ("a.dead.retry.5", Some("a.dead")),
            ("a.retry.5.dead", Some("a.retry.5")),
            ("tasks", None),
            ("tasks.retry.", None),
            ("tasks.retry.5s", None),
            ("tasks.retry", None),
            (".dead", None),
            (".retry.5", None),
            ("dead", None),
        ] {
            assert_eq!(work_queue_of(name), queue, "{name}");
        }
        assert_eq!(permission_pattern("task_queue"), r"^task_queue(\..*)?$");
        assert_eq!(permission_pattern("tasks.mail (x)"), r"^tasks\.mail \(x\)(\..*)?$");
    }

    #[test]
    fn an_unconfigured_work_queue_has_no_arguments_at_all() {
        for version in ["3.8.0", "3.10.8", "4.1.0"] {
            assert_eq!(work_arguments(&queue(None), &server(version)), FieldTable::default());
        }
    }

    #[test]
    fn an_unlimited_delivery_limit_is_set_only_where_it_means_that() {
        let limit = |version: &str| {
            let arguments = work_arguments(&queue(Some(QueueType::Quorum)), &server(version));
            arguments.inner().get("x-delivery-limit").cloned()
        };
        assert_eq!(limit("3.10.8"), None);
        assert_eq!(limit("3.13.0"), None);
        assert_eq!(limit("4.0.1"), Some(AMQPValue::LongLongInt(-1)));
        let classic = work_arguments(&queue(Some(QueueType::Classic)), &server("4.0.1"));
        assert!(!classic.contains_key("x-delivery-limit"));
    }

    #[test]
    fn delay_queues_are_lossless_where_the_broker_can() {
        assert_eq!(delay_type(None, &server("3.10.8")), QueueType::Quorum);
        assert_eq!(delay_type(None, &server("3.9.27")), QueueType::Classic);
        assert_eq!(delay_type(Some(QueueType::Classic), &server("4.1.0")), QueueType::Classic);
        let arguments =
            delay_arguments("tasks", Duration::from_secs(5), QueueType::Quorum, &server("3.10.8"));
        let expected = [
            ("x-queue-type", text("quorum")),
            ("x-message-ttl", AMQPValue::LongLongInt(5_000)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text("tasks")),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ];
        assert_eq!(arguments.inner().len(), expected.len());
        for (name, value) in expected {
            assert_eq!(arguments.inner().get(name), Some(&value), "{name}");
        }
        assert_eq!(delay_name("tasks", Duration::from_secs(5)), "tasks.retry.5000");
        for (name, delay) in
            [("tasks.retry.5000", Some(5_000)), ("tasks.retry.5001", None), ("tasks.dead", None)]
        {
            assert_eq!(delay_of(name), delay.map(Duration::from_millis), "{name}");
        }
    }
}
