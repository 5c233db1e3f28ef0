//! What is read from a dead letter, as tables.

use std::sync::Arc;
use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};

use super::*;
use crate::broker::copy::{self, DeadCopy, Failure, Original};
use crate::model::DeadReason;
use crate::task::own::{HEADER_ERROR, HEADER_FIRST_FAILURE, HEADER_LAST_FAILURE};

fn with_headers(fields: &[(&str, AMQPValue)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert((*name).into(), value.clone());
    }
    BasicProperties::default().with_headers(table)
}

fn long(text: &[u8]) -> AMQPValue {
    AMQPValue::LongString(text.to_vec().into())
}

/// A letter as the daemon writes it.
fn dead_letter(original: &BasicProperties, id: &TaskId) -> DeadLetter {
    let failure = Failure { handler: "backup", code: "io", message: "disk full" };
    let dead_copy = DeadCopy { reason: DeadReason::Attempts, attempt: 5, redeliveries: 2, id, failure };
    let properties = copy::dead(
        Original { properties: original, received: UnixMs::now() },
        "tasks",
        &dead_copy,
        UnixMs(1_700_000_123_456),
    );
    DeadLetter::read(properties, b"Backup database".to_vec())
}

#[test]
fn what_the_daemon_wrote_is_read_back() {
    let original = with_headers(&[(HEADER_FIRST_FAILURE, AMQPValue::Timestamp(1_700_000_000))]);
    let id = TaskId { text: "ours".into(), generated: true };
    let letter = dead_letter(&original, &id);
    assert_eq!(letter.id, Some(id));
    assert_eq!(letter.queue.as_deref(), Some("tasks"));
    assert_eq!(letter.reason.as_deref(), Some("attempts"));
    assert_eq!(letter.handler.as_deref(), Some("backup"));
    assert_eq!(letter.error_code.as_deref(), Some("io"));
    assert_eq!(letter.error.as_deref(), Some("disk full"));
    assert_eq!(letter.attempts, Some(5));
    assert_eq!(letter.first_failure, Some(UnixMs(1_700_000_000_000)));
    assert_eq!(letter.last_failure, Some(UnixMs(1_700_000_123_000)));
    assert_eq!((letter.returns, letter.body.as_slice()), (0, &b"Backup database"[..]));
}

#[test]
fn a_message_of_somebody_else_s_says_nothing_and_goes_back_to_the_work_queue() {
    let letter = DeadLetter::read(BasicProperties::default(), Vec::new());
    assert_eq!((letter.id.as_ref(), letter.attempts, letter.last_failure), (None, None, None));
    assert!(letter.queue.is_none() && letter.reason.is_none() && letter.handler.is_none());
    assert_eq!(letter.origin("tasks"), "tasks");
    let elsewhere = DeadLetter::read(with_headers(&[(HEADER_QUEUE, long(b"mail"))]), Vec::new());
    assert_eq!(elsewhere.origin("tasks"), "mail");
}

#[test]
fn headers_of_other_types_are_read_or_are_absent() {
    let read = |name: &str, value: AMQPValue| DeadLetter::read(with_headers(&[(name, value)]), Vec::new());
    let table = [
        (long(b"disk full"), Some("disk full")),
        (long(b"disk \xff"), Some("disk \u{fffd}")),
        (AMQPValue::ShortString("disk full".into()), Some("disk full")),
        (long(b""), None),
        (AMQPValue::LongInt(7), None),
        (AMQPValue::Void, None),
    ];
    for (value, expected) in table {
        assert_eq!(read(HEADER_ERROR, value.clone()).error.as_deref(), expected, "{value:?}");
    }
    let table = [
        (AMQPValue::LongInt(3), Some(3)),
        (AMQPValue::LongLongInt(3), Some(3)),
        (long(b"3"), Some(3)),
        (AMQPValue::LongInt(-3), None),
        (long(b"three"), None),
    ];
    for (value, expected) in table {
        assert_eq!(read(HEADER_ATTEMPT, value.clone()).attempts, expected, "{value:?}");
    }
    assert_eq!(
        read(HEADER_LAST_FAILURE, AMQPValue::Timestamp(u64::MAX)).last_failure,
        Some(UnixMs(u64::MAX))
    );
    assert_eq!(read(HEADER_LAST_FAILURE, AMQPValue::LongLongInt(5)).last_failure, None);
    assert_eq!(read(HEADER_RETURNS, AMQPValue::LongLongInt(12)).returns, 12);
}

#[test]
fn a_replay_is_the_original_without_its_history() {
    let lasting = with_headers(&[("tenant", long(b"acme"))])
        .with_content_type("text/plain".into())
        .with_priority(3)
        .with_correlation_id("c-1".into())
        .with_reply_to("answers".into())
        .with_message_id("o-1".into())
        .with_timestamp(1_600_000_000)
        .with_delivery_mode(2);
    let original = lasting.clone().with_expiration("60000".into());
    let id = TaskId { text: "o-1".into(), generated: false };
    let letter = dead_letter(&original, &id);
    assert!(
        own::deadline(&letter.properties, UnixMs::now()).is_some(),
        "the letter knows when it was to expire"
    );
    let replayed = copy::replay(&letter.properties);
    assert_eq!(replayed, lasting);
    assert!(own::deadline(&replayed, UnixMs::now()).is_none());
}

#[test]
fn a_replay_keeps_the_id_that_it_is_known_by_and_counts_from_one() {
    let ours: Arc<str> = "0190-ours".into();
    let letter =
        dead_letter(&BasicProperties::default(), &TaskId { text: Arc::clone(&ours), generated: true });
    let identity = crate::task::identified(&copy::replay(&letter.properties));
    assert_eq!((&identity.id.text, identity.id.generated), (&ours, true));
    assert_eq!((identity.attempt, identity.redeliveries), (1, 0));
    let nobody = copy::replay(&BasicProperties::default());
    assert_eq!(nobody, BasicProperties::default().with_delivery_mode(2), "no headers were made up");
    // Died again after its replay: nothing is left of the first life.
    let again = dead_letter(&copy::replay(&letter.properties), &TaskId { text: ours, generated: true });
    assert_eq!(again.first_failure, again.last_failure);
    assert_eq!(Duration::from_millis(again.last_failure.map_or(0, |time| time.0)).as_secs(), 1_700_000_123);
}
