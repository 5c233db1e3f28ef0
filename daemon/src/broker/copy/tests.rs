//! What copies carry, as tables.

use proptest::prelude::*;

use super::*;
use lapin::types::AMQPValue;

use crate::task::own::{
    HEADER_ATTEMPT, HEADER_DEADLINE, HEADER_DROPPED, HEADER_ERROR, HEADER_ERROR_CODE, HEADER_FIRST_FAILURE,
    HEADER_HANDLER, HEADER_LAST_FAILURE, MAX_TEXT_BYTES, time_value,
};
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
    assert_eq!(names(&retried), ["tenant", "x-priority-hint", HEADER_ATTEMPT, HEADER_DEADLINE, HEADER_QUEUE]);
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

/// The library's own encoder.
fn encoded(properties: &BasicProperties) -> usize {
    let mut buffer = vec![0; 1 << 20];
    let encoded =
        lapin::protocol::basic::gen_properties(properties)(std::io::Cursor::new(&mut buffer[..]).into());
    usize::try_from(encoded.expect("room for it").position).expect("in memory")
}

fn any_value() -> impl Strategy<Value = AMQPValue> {
    let scalar = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f32>().prop_map(AMQPValue::Float),
        any::<f64>().prop_map(AMQPValue::Double),
        (any::<u8>(), any::<u32>())
            .prop_map(|(scale, value)| AMQPValue::DecimalValue(lapin::types::DecimalValue { scale, value })),
        "\\PC{0,60}".prop_map(|text| AMQPValue::ShortString(text.as_str().into())),
        prop::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| AMQPValue::LongString(bytes.into())),
        prop::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        Just(AMQPValue::Void),
    ];
    scalar.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| AMQPValue::FieldArray(items.into())),
            prop::collection::btree_map("\\PC{0,20}", inner, 0..6).prop_map(|fields| {
                let mut table = FieldTable::default();
                for (name, value) in fields {
                    table.insert(name.as_str().into(), value);
                }
                AMQPValue::FieldTable(table)
            }),
        ]
    })
}

prop_compose! {
    /// Any properties that a producer can send, with headers of ours among them.
    fn any_properties()(
        texts in prop::collection::vec(prop::option::of("\\PC{0,63}"), 9),
        numbers in (any::<Option<u8>>(), any::<Option<u8>>(), any::<Option<u64>>()),
        headers in prop::option::of(prop::collection::btree_map("(x-warren-[a-z-]{1,20}|[a-z]{1,60})", any_value(), 0..20)),
    ) -> BasicProperties {
        let mut properties = BasicProperties::default();
        let mut texts = texts.into_iter().map(|text| text.map(|text| ShortString::from(text.as_str())));
        macro_rules! set {
            ($($setter:ident),*) => {
                $(if let Some(Some(text)) = texts.next() { properties = properties.$setter(text); })*
            };
        }
        set!(with_content_type, with_content_encoding, with_correlation_id, with_reply_to, with_expiration);
        set!(with_message_id, with_type, with_app_id, with_cluster_id);
        if let (Some(mode), Some(priority), Some(timestamp)) = numbers {
            properties = properties.with_delivery_mode(mode).with_priority(priority).with_timestamp(timestamp);
        }
        if let Some(headers) = headers {
            let mut table = FieldTable::default();
            for (name, value) in headers {
                table.insert(name.as_str().into(), value);
            }
            properties = properties.with_headers(table);
        }
        properties
    }
}

/// What the smallest frame has room for, on the way to a queue with the longest name.
const SMALLEST: usize = 4096 - 20 - 512 - 4 * 255;

proptest! {
    #[test]
    fn a_size_is_what_the_library_writes(properties in any_properties()) {
        prop_assert_eq!(encoded_len(&properties), encoded(&properties));
    }

    #[test]
    fn there_is_no_task_for_which_no_copy_can_be_made(original in any_properties(), limit in SMALLEST..20_000_usize) {
        let id = TaskId { text: "i".repeat(255).into(), generated: true };
        let message = "e".repeat(2 * MAX_TEXT_BYTES);
        let failure = Failure { handler: &message, code: &message, message: &message };
        let queue = "q".repeat(230);
        let dead_copy = DeadCopy { reason: DeadReason::Attempts, attempt: 5, redeliveries: 9, id: &id, failure };
        let again = RetryCopy { redeliveries: 9, ..copy(&id, Some(failure)) };
        for copy in [dead(seen(&original), &queue, &dead_copy, NOW), retry(seen(&original), &queue, &again, NOW)] {
            let fitted = fit(copy.clone(), limit);
            prop_assert!(encoded(&fitted) <= limit, "{} > {limit}", encoded(&fitted));
            prop_assert_eq!(fitted.kind(), copy.kind());
            prop_assert_eq!(fitted.reply_to(), copy.reply_to());
            prop_assert_eq!(identified(&fitted), identified(&copy));
            prop_assert_eq!(header(&fitted, HEADER_REASON), header(&copy, HEADER_REASON));
            if encoded(&copy) <= limit {
                prop_assert_eq!(fitted, copy);
            }
        }
    }
}

#[test]
fn what_does_not_fit_loses_the_producers_headers_the_largest_first_and_says_which() {
    let sized = |bytes: usize| text(&"x".repeat(bytes));
    let original = with_headers(&[
        ("big", sized(900)),
        ("bigger", sized(1_000)),
        ("biggest", sized(1_100)),
        ("small", sized(9)),
    ]);
    let id = given("o-1");
    let whole = retry(seen(&original), "tasks", &copy(&id, FAILED), NOW);
    let len = encoded_len(&whole);
    assert_eq!(fit(whole.clone(), len), whole, "to the byte");
    let dropped = |properties: &BasicProperties| own::note(properties, HEADER_DROPPED);
    let one = fit(whole.clone(), len - 1);
    assert_eq!(dropped(&one).as_deref(), Some("biggest"));
    assert!(header(&one, "bigger").is_some() && header(&one, HEADER_ERROR).is_some());
    // The next copy says it on, and adds what it lost itself; so does a replay.
    let next = retry(seen(&one), "tasks", &copy(&id, FAILED), NOW);
    assert_eq!(dropped(&next).as_deref(), Some("biggest"));
    let two = fit(next, encoded_len(&one) - 1);
    assert_eq!(dropped(&two).as_deref(), Some("biggest, bigger"));
    assert_eq!(dropped(&replay(&two)), dropped(&two));
    let bare = bare(two);
    assert_eq!(dropped(&bare).as_deref(), Some("biggest, bigger, big, small"));
    assert!(names(&bare).iter().all(|name| own::is_own(name)));
    // A handler is told.
    let told = crate::task::Headers::of(bare.headers().as_ref()).fields;
    assert_eq!(told, [(HEADER_DROPPED.to_owned(), "biggest, bigger, big, small".to_owned())]);
}

#[test]
fn so_many_headers_that_their_names_have_no_room_are_counted() {
    let names: Vec<String> = (0..9_900).map(|n| format!("h{n:05}")).collect();
    let fields: Vec<(&str, AMQPValue)> = names.iter().map(|name| (name.as_str(), AMQPValue::Void)).collect();
    let whole = with_headers(&fields);
    assert_eq!(encoded_len(&whole), 2 + 4 + 9_900 * 8);
    let fitted = fit(whole, 4_000);
    let note = own::note(&fitted, HEADER_DROPPED).expect("a note");
    assert!(
        encoded_len(&fitted) <= 4_000 && note.len() <= MAX_TEXT_BYTES,
        "{} {}",
        encoded_len(&fitted),
        note.len()
    );
    let kept = fitted.headers().as_ref().map_or(0, |table| table.inner().len()) - 1;
    let (named, more) = note.rsplit_once(" and ").expect("more than there is room for");
    let more: usize = more.strip_suffix(" more").and_then(|more| more.parse().ok()).expect("a number");
    assert_eq!(named.split(", ").count() + more + kept, 9_900);
}
