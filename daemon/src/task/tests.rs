//! Reading a delivery, as tables.

use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, ShortString};
use proptest::prelude::*;

use super::own::{HEADER_ATTEMPT, HEADER_ID};
use super::*;
use crate::router::RouteEntry;

fn table(fields: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(ShortString::from(*name), value.clone());
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn with_headers(fields: &[(&str, AMQPValue)]) -> BasicProperties {
    BasicProperties::default().with_headers(table(fields))
}

#[test]
fn label_is_stripped_only_where_it_is_one() {
    let cases = [
        ("Task 1: Process order", "Process order"),
        ("Task 1:Process order", "Process order"),
        ("Task  42 : \tProcess order", "Process order"),
        ("Task 12345678901234567890123: x", "x"),
        ("Task 1: Task 2: x", "Task 2: x"),
        ("Task 1:", ""),
        ("Task 1 Process", "Task 1 Process"),
        ("Task1: x", "Task1: x"),
        ("Task : x", "Task : x"),
        ("Task one: x", "Task one: x"),
        ("Task -1: x", "Task -1: x"),
        ("task 1: x", "task 1: x"),
        (" Task 1: x", " Task 1: x"),
        ("Task 1\n: x", "Task 1\n: x"),
        ("Task", "Task"),
        ("", ""),
    ];
    for (whole, rest) in cases {
        assert_eq!(split_label(whole.as_bytes()), rest.as_bytes(), "{whole:?}");
    }
}

#[test]
fn one_newline_is_trimmed() {
    for (whole, rest) in
        [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a\r", "a\r"), ("\n", ""), ("", "")]
    {
        assert_eq!(trim_newline(whole.as_bytes()), rest.as_bytes(), "{whole:?}");
    }
}

#[test]
fn message_id_is_the_id_and_one_of_ours_stands_in() {
    let given = identified(&BasicProperties::default().with_message_id("order-7".into()));
    assert_eq!((&*given.id.text, given.id.generated), ("order-7", false));
    assert_eq!((given.attempt, given.redeliveries), (1, 0));

    let first = identified(&BasicProperties::default());
    let second = identified(&BasicProperties::default().with_message_id("".into()));
    assert!(first.id.generated && second.id.generated);
    assert_ne!(first.id, second.id);
    assert_eq!(Uuid::parse_str(&first.id.text).unwrap().get_version_num(), 7);

    let copy = identified(&with_headers(&[(HEADER_ID, text(&first.id.text))]));
    assert_eq!(copy.id, first.id, "a copy keeps the id and its mark");
}

fn backup_router() -> Router {
    let entry = RouteEntry { prefix: "Backup".into(), handler: 3, queues: None, incumbent: false };
    Router::build([entry]).0
}

#[test]
fn delivery_is_routed_or_refused_with_its_reason() {
    let router = backup_router();
    let plain = BasicProperties::default();
    let typed = |name: &str| BasicProperties::default().with_type(name.into());
    let outcome = |properties: &BasicProperties, body: &[u8]| {
        route(&router, "q", properties, body, 64)
            .map(|to| (to.handler, to.argument.to_owned()))
            .map_err(|e| e.reason)
    };
    assert_eq!(outcome(&plain, b"Task 1: Backup  mail \n"), Ok((3, "mail".into())));
    assert_eq!(outcome(&typed("Backup"), b"{\"x\": 1}"), Ok((3, String::new())));
    assert_eq!(
        outcome(&typed("Backup"), b"\xff\x00"),
        Ok((3, String::new())),
        "any bytes when routed by type"
    );
    assert_eq!(outcome(&typed("other"), b"Backup"), Ok((3, String::new())));
    assert_eq!(outcome(&plain, b"Backup \xff"), Err(DeadReason::Malformed));
    assert_eq!(outcome(&plain, b"\xff"), Err(DeadReason::Malformed));
    assert_eq!(outcome(&plain, b""), Err(DeadReason::Unroutable));
    assert_eq!(outcome(&plain, b"Task 1: \n"), Err(DeadReason::Unroutable));
    assert_eq!(outcome(&plain, b"Restore"), Err(DeadReason::Unroutable));
    assert_eq!(outcome(&plain, &[b'x'; 64]), Err(DeadReason::Unroutable), "at the limit");
    assert_eq!(outcome(&plain, &[b'x'; 65]), Err(DeadReason::TooLarge));
    assert_eq!(outcome(&typed("Backup"), &[b'x'; 65]), Err(DeadReason::TooLarge));
}

#[test]
fn refusal_says_what_is_wrong() {
    let router = backup_router();
    let message = |properties: &BasicProperties, body: &[u8]| {
        route(&router, "q", properties, body, 20).expect_err("refused").message
    };
    let plain = BasicProperties::default();
    assert_eq!(message(&plain, b"\n"), "the task is empty");
    assert_eq!(message(&plain, b"Task 5:\n"), "the task is a label and nothing else");
    assert!(message(&plain, b"Restore").contains("neither its text begins with a registered prefix"));
    assert!(message(&plain, "\u{feff}Backup mail".as_bytes()).contains("begins with a byte order mark"));
    let typed = BasicProperties::default().with_type("Rest".into());
    assert!(message(&typed, b"Restore").contains("neither its text nor its type `Rest`"));
    assert!(
        message(&plain, &[0; 21]).starts_with("the body has 21 bytes, `daemon.max_task_bytes` allows 20")
    );
    assert!(message(&plain, b"abc\xff").starts_with("the text is not UTF-8 from byte 3 on"));
}

#[test]
fn headers_reach_the_handler_as_text_without_the_transport_ones() {
    let nested = FieldArray::from(vec![AMQPValue::LongInt(1), text("two"), AMQPValue::Void]);
    let source = table(&[
        ("array", AMQPValue::FieldArray(nested)),
        ("bool", AMQPValue::Boolean(true)),
        ("binary", AMQPValue::LongString(vec![0xff, 1].into())),
        ("bytes", AMQPValue::ByteArray(ByteArray::from(vec![1, 2]))),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1250 })),
        ("decimal-below-zero", AMQPValue::DecimalValue(DecimalValue { scale: 1, value: u32::MAX - 14 })),
        ("decimal-tiny", AMQPValue::DecimalValue(DecimalValue { scale: 30, value: 1 })),
        ("float", AMQPValue::Float(0.1)),
        ("infinite", AMQPValue::Double(f64::NEG_INFINITY)),
        ("nan", AMQPValue::Double(f64::NAN)),
        ("number", AMQPValue::LongLongInt(-5)),
        ("table", AMQPValue::FieldTable(table(&[("k", text("v"))]))),
        ("text", text("as it \"is\"")),
        ("x-death", AMQPValue::FieldArray(FieldArray::default())),
        ("x-first-death-queue", text("q")),
        ("x-delivery-count", AMQPValue::LongInt(3)),
        ("x-acquired-count", AMQPValue::LongInt(4)),
        (HEADER_ATTEMPT, AMQPValue::LongInt(3)),
        ("CC", AMQPValue::FieldArray(FieldArray::default())),
    ]);
    let headers = Headers::of(Some(&source));
    let fields: Vec<(&str, &str)> = headers.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let expected = [
        ("array", "[1,\"two\",null]"),
        ("binary", "[255,1]"),
        ("bool", "true"),
        ("bytes", "[1,2]"),
        ("decimal", "12.5"),
        ("decimal-below-zero", "-1.5"),
        ("decimal-tiny", "1e-30"),
        ("float", "0.1"),
        ("infinite", "-inf"),
        ("nan", "NaN"),
        ("number", "-5"),
        ("table", "{\"k\":\"v\"}"),
        ("text", "as it \"is\""),
    ];
    assert_eq!(fields, expected);
    assert_eq!(headers.omitted, 0);
    assert_eq!(Headers::of(None).fields.capacity(), 0);
    assert_eq!(Headers::of(Some(&with_headers_of_ours())).fields.capacity(), 0);
}

fn with_headers_of_ours() -> FieldTable {
    table(&[(HEADER_ID, text("7")), (HEADER_ATTEMPT, AMQPValue::LongInt(2))])
}

#[test]
fn headers_are_bounded_in_number_bytes_and_depth() {
    let names: Vec<String> = (0..100).map(|n| format!("h{n:03}")).collect();
    let many: Vec<(&str, AMQPValue)> = names.iter().map(|name| (name.as_str(), text("v"))).collect();
    let headers = Headers::of(Some(&table(&many)));
    assert_eq!((headers.fields.len(), headers.omitted), (MAX_HEADERS, 100 - MAX_HEADERS));

    let big = "x".repeat(MAX_HEADER_BYTES);
    let headers = Headers::of(Some(&table(&[("big", text(&big)), ("small", text("fits"))])));
    assert_eq!(headers.fields, [("small".to_owned(), "fits".to_owned())]);
    assert_eq!(headers.omitted, 1);

    let deep = (0..1000).fold(AMQPValue::Void, |inner, _| AMQPValue::FieldArray(vec![inner].into()));
    let headers = Headers::of(Some(&table(&[("deep", deep)])));
    assert_eq!(headers.fields[0].1, format!("{}null{}", "[".repeat(16), "]".repeat(16)));
}

proptest! {
    #[test]
    fn any_body_is_routed_or_refused(body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let router = backup_router();
        let result = route(&router, "q", &BasicProperties::default(), &body, 64);
        prop_assert!(result.is_ok() || result.is_err_and(|refusal| !refusal.message.is_empty()));
    }

    #[test]
    fn label_is_always_a_head_of_the_text(text in "(Task)?[ \t]{0,2}[0-9x]{0,3}[ :]{0,3}.{0,5}") {
        prop_assert!(text.as_bytes().ends_with(split_label(text.as_bytes())));
    }
}
