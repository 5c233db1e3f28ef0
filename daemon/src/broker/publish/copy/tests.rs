//! What copies carry, as tables.

mod fit;

use proptest::prelude::*;

use super::*;
use lapin::types::AMQPValue;

use crate::broker::hops::{Basis, Wait, mark};
use crate::task::own::{
    HEADER_ATTEMPT, HEADER_COPY, HEADER_DEADLINE, HEADER_DROPPED, HEADER_ERROR, HEADER_ERROR_CODE,
    HEADER_FIRST_FAILURE, HEADER_HANDLER, HEADER_LAST_FAILURE, MAX_TEXT_BYTES, time_value,
};
use crate::task::sameness::is_same_message;
use crate::task::{header, identified};

const NOW: UnixMs = UnixMs(1_700_000_000_500);

fn given(text: &str) -> TaskId {
    TaskId { text: text.into(), generated: false }
}

fn copy<'a>(id: &'a TaskId, failure: Option<Failure<'a>>) -> RetryCopy<'a> {
    RetryCopy { delay: Duration::from_secs(5), attempt: 3, redeliveries: 0, id, failure }
}

const FAILED: Option<Failure<'static>> =
    Some(Failure { handler: "backup", code: "io", message: "disk full" });

/// A follow-up of a task without headers.
fn child(task: &FollowUp, parent: &str, n: usize) -> Result<BasicProperties, String> {
    follow_up(task, Parent { id: parent, properties: &BasicProperties::default() }, n, NOW)
}

fn with_headers(fields: &[(&str, AMQPValue)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(ShortString::from(*name), value.clone());
    }
    BasicProperties::default().with_headers(table)
}

/// A message as it was delivered.
fn seen(properties: &BasicProperties) -> Original<'_> {
    Original { properties, received: NOW }
}

fn names(properties: &BasicProperties) -> Vec<String> {
    let table = properties.headers().clone().unwrap_or_default();
    table.inner().keys().map(|name| name.as_str().to_owned()).collect()
}

#[test]
fn what_the_broker_wrote_about_the_original_is_stripped() {
    let mut original = with_headers(&[
        ("x-death", AMQPValue::FieldArray(vec![].into())),
        ("x-first-death-queue", text("a")),
        ("x-first-death-reason", text("expired")),
        ("x-last-death-exchange", text("b")),
        ("x-delivery-count", AMQPValue::LongLongInt(4)),
        ("x-acquired-count", AMQPValue::LongLongInt(5)),
        ("x-dead-letter-reason", text("c")),
        ("CC", AMQPValue::FieldArray(vec![].into())),
        ("BCC", AMQPValue::FieldArray(vec![].into())),
        ("x-warren-reason", text("forged")),
        ("tenant", text("acme")),
        ("x-priority-hint", AMQPValue::LongInt(7)),
    ]);
    original = original.with_expiration("60000".into()).with_user_id("producer".into());
    let id = given("o-1");
    let retried = retry(seen(&original), "tasks", &copy(&id, None), NOW);
    assert_eq!(
        names(&retried),
        ["tenant", "x-priority-hint", HEADER_ATTEMPT, HEADER_COPY, HEADER_DEADLINE, HEADER_QUEUE]
    );
    assert!(retried.expiration().is_none() && retried.user_id().is_none());
}

#[test]
fn what_the_producer_wrote_is_kept() {
    let original = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("gzip".into())
        .with_priority(7)
        .with_correlation_id("c".into())
        .with_reply_to("r".into())
        .with_message_id("o-1".into())
        .with_timestamp(1_600_000_000)
        .with_type("order.created".into())
        .with_app_id("shop".into())
        .with_cluster_id("x".into());
    let id = given("o-1");
    let retried = retry(seen(&original), "tasks", &copy(&id, None), NOW);
    let headers = retried.headers().clone().expect("our own headers");
    assert_eq!(retried, original.with_delivery_mode(2).with_headers(headers));
}

#[test]
fn a_copy_is_read_back_as_the_next_attempt_of_the_same_task() {
    for generated in [false, true] {
        let id = TaskId { text: "t-9".into(), generated };
        let original = if generated {
            BasicProperties::default()
        } else {
            BasicProperties::default().with_message_id("t-9".into())
        };
        let copy = RetryCopy { redeliveries: 2, ..copy(&id, FAILED) };
        let seen = identified(&retry(seen(&original), "tasks", &copy, NOW));
        assert_eq!((seen.id, seen.attempt, seen.redeliveries), (id, 3, 2));
    }
}

/// A redelivery of one would be taken for the other: what is not due yet has the same due time from copy to copy.
#[test]
fn a_copy_differs_from_the_message_that_it_was_made_of() {
    let id = given("o-1");
    let wait = Wait { due: NOW.plus(Duration::from_secs(3_600)), basis: Basis::Clock };
    let onward = RetryCopy { delay: Duration::ZERO, attempt: 1, ..copy(&id, None) };
    for counted in
        [None, Some(AMQPValue::LongInt(1_000_000)), Some(AMQPValue::LongUInt(u32::MAX)), Some(text("x"))]
    {
        let mut headers = FieldTable::default();
        if let Some(counted) = counted.clone() {
            headers.insert(HEADER_COPY.into(), counted);
        }
        let mut message = BasicProperties::default().with_message_id("o-1".into()).with_headers(headers);
        for n in 1..=3 {
            let next = mark(retry(seen(&message), "tasks", &onward, NOW), wait, NOW);
            assert!(!is_same_message((&message, b"Task"), (&next, b"Task")), "copy {n} of {counted:?}");
            message = next;
        }
    }
}

#[test]
fn an_expiration_counts_from_the_delivery_and_stays_the_same_from_copy_to_copy() {
    let id = given("o-1");
    let deadline = |properties: &BasicProperties| header(properties, HEADER_DEADLINE).cloned();
    // (expiration, timestamp in s, deadline in ms): the timestamp is the application's.
    let table = [
        ("60000", None, Some(NOW.0 + 60_000)),
        ("60000", Some(1_699_996_400), Some(NOW.0 + 60_000)),
        ("60000", Some(1_800_000_000), Some(NOW.0 + 60_000)),
        ("60000", Some(u64::MAX), Some(NOW.0 + 60_000)),
        ("soon", None, None),
    ];
    for (expiration, timestamp, expected) in table {
        let mut original = BasicProperties::default().with_expiration(expiration.into());
        if let Some(timestamp) = timestamp {
            original = original.with_timestamp(timestamp);
        }
        let later = NOW.plus(Duration::from_secs(30));
        let first = retry(seen(&original), "tasks", &copy(&id, FAILED), later);
        let expected = expected.map(|ms| AMQPValue::LongLongInt(ms as i64));
        assert_eq!(deadline(&first), expected, "{expiration} {timestamp:?}");
        let again = Original { properties: &first, received: later };
        assert_eq!(deadline(&retry(again, "tasks", &copy(&id, FAILED), later)), expected);
    }
}

#[test]
fn the_first_failure_is_kept_and_the_last_one_replaced() {
    let id = given("o-1");
    let first = retry(seen(&BasicProperties::default()), "tasks", &copy(&id, FAILED), UnixMs(5_000));
    let parked = retry(seen(&first), "tasks", &copy(&id, None), UnixMs(7_000));
    let dead_copy = DeadCopy {
        reason: DeadReason::Attempts,
        attempt: 5,
        redeliveries: 0,
        id: &id,
        failure: Failure { handler: "backup", code: "timeout", message: "too slow" },
    };
    let dead = dead(seen(&parked), "tasks", &dead_copy, UnixMs(9_000));
    let expected = [
        (HEADER_FIRST_FAILURE, AMQPValue::Timestamp(5)),
        (HEADER_LAST_FAILURE, AMQPValue::Timestamp(9)),
        (HEADER_REASON, text("attempts")),
        (HEADER_HANDLER, text("backup")),
        (HEADER_ERROR_CODE, text("timeout")),
        (HEADER_ERROR, text("too slow")),
        (HEADER_QUEUE, text("tasks")),
        (HEADER_ATTEMPT, AMQPValue::LongInt(5)),
    ];
    assert_eq!(header(&parked, HEADER_LAST_FAILURE), Some(&AMQPValue::Timestamp(5)));
    assert_eq!(dead.headers().as_ref().map(|table| table.inner().len()), Some(expected.len()));
    for (name, value) in expected {
        assert_eq!(header(&dead, name), Some(&value), "{name}");
    }
}

#[test]
fn a_long_error_is_cut_between_characters() {
    let message = "é".repeat(1000);
    let id = given("o-1");
    let failure = Failure { handler: "h", code: "c", message: &message };
    let copy = RetryCopy { failure: Some(failure), ..copy(&id, None) };
    let retried = retry(seen(&BasicProperties::default()), "tasks", &copy, NOW);
    assert_eq!(header(&retried, HEADER_ERROR), Some(&text(&"é".repeat(512))));
}

#[test]
fn a_follow_up_repeats_its_id_when_its_parent_runs_again() {
    let id = |parent: &str| {
        let properties = child(&FollowUp { priority: -1, ..FollowUp::default() }, parent, 2);
        properties.expect("nothing too long").message_id().clone().expect("always one")
    };
    assert_eq!(id("o-1").as_str(), "o-1/2");
    let long = "x".repeat(255);
    assert_eq!(id(&long), id(&long));
    assert_ne!(id(&long), id(&format!("y{}", &long[1..])));
}

#[test]
fn a_follow_up_expires_by_property_or_after_its_delay_by_deadline() {
    let mut task = FollowUp { expires: Duration::from_secs(60), priority: 9, ..FollowUp::default() };
    let at_once = child(&task, "o-1", 1).expect("nothing too long");
    assert_eq!(at_once.expiration().as_ref().map(ShortString::as_str), Some("60000"));
    assert_eq!(at_once.priority(), &Some(9));
    task.delay = Duration::from_secs(5);
    let later = child(&task, "o-1", 1).expect("nothing too long");
    assert!(later.expiration().is_none());
    assert_eq!(header(&later, HEADER_DEADLINE), Some(&AMQPValue::LongLongInt(NOW.0 as i64 + 65_000)));
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let task = FollowUp { expires: days(60), priority: -1, ..FollowUp::default() };
    let longer_than_the_broker_takes = child(&task, "o-1", 1).expect("nothing too long");
    assert!(longer_than_the_broker_takes.expiration().is_none());
    assert_eq!(header(&longer_than_the_broker_takes, HEADER_DEADLINE), Some(&time_value(NOW.plus(days(60)))));
    for task in [
        FollowUp { expires: days(3_651), ..FollowUp::default() },
        FollowUp { delay: days(3_651), ..FollowUp::default() },
    ] {
        assert!(child(&task, "o-1", 1).expect_err("nobody waits for that").contains("3650d"));
    }
}

#[test]
fn a_follow_up_that_amqp_has_no_room_for_is_refused_by_name() {
    let long = "n".repeat(256);
    let task = FollowUp { headers: vec![(long.clone(), "v".to_owned())], ..FollowUp::default() };
    let error = child(&task, "o-1", 1).expect_err("header name of 256 bytes");
    assert!(error.contains("header name") && error.contains("256"), "{error}");
    let task = FollowUp { message_type: long, ..FollowUp::default() };
    assert!(child(&task, "o-1", 1).expect_err("type of 256 bytes").contains("type"));
}

#[test]
fn a_follow_ups_own_id_is_kept_as_far_as_amqp_has_room_and_digested_beyond() {
    let id = |length: usize| {
        let task = FollowUp { id: "i".repeat(length), priority: -1, ..FollowUp::default() };
        child(&task, "o-1", 1).expect("nothing too long").message_id().clone().expect("an id").to_string()
    };
    assert_eq!(id(255), "i".repeat(255));
    assert_eq!((id(256).len(), id(256)), (64, id(256)));
    assert_ne!(id(256), id(257));
}

#[test]
fn a_handler_cannot_forge_our_headers_in_a_follow_up() {
    let headers =
        vec![(HEADER_ATTEMPT.to_owned(), "99".to_owned()), ("tenant".to_owned(), "acme".to_owned())];
    let task = FollowUp { headers, priority: -1, ..FollowUp::default() };
    assert_eq!(names(&child(&task, "o-1", 1).expect("nothing too long")), ["tenant"]);
}

#[test]
fn a_trace_goes_on_in_every_copy_and_follow_up_but_where_the_handler_began_its_own() {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let original = with_headers(&[
        ("traceparent", text(traceparent)),
        ("tracestate", text("vendor=1")),
        ("tenant", text("acme")),
    ]);
    let id = given("o-1");
    let dead_copy = DeadCopy {
        reason: DeadReason::Attempts,
        attempt: 5,
        redeliveries: 0,
        id: &id,
        failure: Failure::default(),
    };
    let parent = Parent { id: "o-1", properties: &original };
    let plain = follow_up(&FollowUp::default(), parent, 1, NOW).expect("nothing too long");
    let copies = [
        retry(seen(&original), "tasks", &copy(&id, FAILED), NOW),
        dead(seen(&original), "tasks", &dead_copy, NOW),
        plain.clone(),
    ];
    for copy in &copies {
        assert_eq!(header(copy, "traceparent"), Some(&text(traceparent)));
        assert_eq!(header(copy, "tracestate"), Some(&text("vendor=1")));
    }
    assert_eq!(names(&plain), ["traceparent", "tracestate"], "other headers are the parent's own");
    let own = traceparent.replace("4736", "0000");
    let task = FollowUp { headers: vec![("traceparent".to_owned(), own.clone())], ..FollowUp::default() };
    let begun = follow_up(&task, parent, 1, NOW).expect("nothing too long");
    assert_eq!((header(&begun, "traceparent"), header(&begun, "tracestate")), (Some(&text(&own)), None));
}

#[test]
fn a_follow_up_answers_nobody_and_a_copy_never_asks_for_what_the_broker_refuses() {
    let id = given("o-1");
    let asking = |to: &str| BasicProperties::default().with_reply_to(to.into());
    let parent = asking("answers");
    let parent = Parent { id: "o-1", properties: &parent };
    assert_eq!(follow_up(&FollowUp::default(), parent, 1, NOW).expect("nothing too long").reply_to(), &None);
    for (to, kept) in
        [("answers", true), ("amq.rabbitmq.reply-to.g1h2", true), ("amq.rabbitmq.reply-to", false)]
    {
        let original = asking(to);
        let retried = retry(seen(&original), "tasks", &copy(&id, FAILED), NOW);
        assert_eq!(retried.reply_to(), &Some(ShortString::from(to)).filter(|_| kept), "{to}");
    }
}
