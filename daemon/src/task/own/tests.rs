//! Every header that is read × every type of AMQP, as tables.

use lapin::types::{ByteArray, DecimalValue, FieldArray};
use proptest::prelude::*;

use super::*;
use crate::task::identified;

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const HOUR: u64 = 3_600_000;

fn with(name: &'static str, value: AMQPValue) -> BasicProperties {
    let mut headers = FieldTable::default();
    put(&mut headers, name, value);
    BasicProperties::default().with_headers(headers)
}

fn bytes(value: &[u8]) -> AMQPValue {
    AMQPValue::ByteArray(ByteArray::from(value.to_vec()))
}

fn decimal(value: i32, scale: u8) -> AMQPValue {
    AMQPValue::DecimalValue(DecimalValue { scale, value: value.cast_unsigned() })
}

fn whole(ms: u64) -> AMQPValue {
    AMQPValue::LongLongInt(ms.cast_signed())
}

/// What is not read for anything.
fn meaningless() -> [AMQPValue; 9] {
    [
        AMQPValue::Boolean(true),
        AMQPValue::FieldArray(FieldArray::default()),
        AMQPValue::FieldTable(FieldTable::default()),
        AMQPValue::Double(f64::NAN),
        AMQPValue::Double(f64::INFINITY),
        AMQPValue::Float(f32::NEG_INFINITY),
        text("NaN"),
        AMQPValue::LongString(vec![0xff].into()),
        bytes(&[0xff, 0]),
    ]
}

#[test]
fn a_time_of_any_type_is_read_for_what_it_plainly_means() {
    let later = NOW.0 + HOUR;
    let table = [
        (AMQPValue::Void, None),
        (whole(later), Some(later)),
        (whole(0), Some(0)),
        (AMQPValue::ShortShortInt(0), Some(0)),
        (AMQPValue::LongUInt(0), Some(0)),
        (AMQPValue::Double(later as f64), Some(later)),
        (AMQPValue::Double(later as f64 + 0.5), Some(later + 1)),
        // What a float has of it: it counts in steps of 131 seconds.
        (AMQPValue::Float(later as f32), Some(later as f32 as u64)),
        (AMQPValue::Timestamp(later / 1000), Some(later)),
        (text(&later.to_string()), Some(later)),
        (text(&format!(" {later}.25\n")), Some(later + 1)),
        (text("1.7000036e12"), Some(later)),
        (bytes(later.to_string().as_bytes()), Some(later)),
        (AMQPValue::ShortString(later.to_string().as_str().into()), Some(later)),
        (text("2023-11-14T23:13:20Z"), Some(later)),
        (text("2023-11-15T00:13:20.0001+01:00"), Some(later + 1)),
        (whole(NOW.0 + 3650 * 24 * HOUR), Some(NOW.0 + 3650 * 24 * HOUR)),
        (whole(NOW.0 - 24 * HOUR), Some(NOW.0 - 24 * HOUR)),
    ];
    for (value, expected) in table {
        let expected = expected.map(UnixMs);
        let due = times(&with(HEADER_DUE, value.clone()), NOW).map(|times| times.due.map(|due| due.at));
        assert_eq!(due, Ok(expected), "{value:?}");
        let deadline = times(&with(HEADER_DEADLINE, value.clone()), NOW).map(|times| times.deadline);
        assert_eq!(deadline, Ok(expected), "{value:?}");
        assert_eq!(own_deadline(&value), expected, "{value:?}");
        assert!(times(&with(HEADER_SENT, value.clone()), NOW).is_ok(), "{value:?}");
    }
}

fn own_deadline(value: &AMQPValue) -> Option<UnixMs> {
    deadline(&with(HEADER_DEADLINE, value.clone()), NOW)
}

#[test]
fn what_is_no_time_is_named_with_what_it_may_have_been() {
    let far = NOW.0 + HOUR;
    let mut table = vec![
        (AMQPValue::LongLongInt(-1), "before 1970"),
        (AMQPValue::LongLongInt(i64::MIN), "before 1970"),
        (AMQPValue::Double(-1.5), "before 1970"),
        (decimal(-15, 1), "before 1970"),
        (text("-5"), "before 1970"),
        (whole(far / 1000), "looks like seconds"),
        (AMQPValue::LongInt(1_700_000_000), "looks like seconds"),
        (AMQPValue::LongUInt(1_700_000_000), "looks like seconds"),
        (decimal(1_700_000_000, 0), "looks like seconds"),
        (text("1700000000.5"), "looks like seconds"),
        (AMQPValue::LongInt(30_000), "first years after 1970"),
        (AMQPValue::ShortInt(30_000), "first years after 1970"),
        (AMQPValue::ShortUInt(60_000), "first years after 1970"),
        (AMQPValue::ShortShortUInt(60), "first years after 1970"),
        (AMQPValue::ShortShortInt(60), "first years after 1970"),
        (AMQPValue::Timestamp(60), "first years after 1970"),
        (whole(far * 1_000), "looks like microseconds"),
        (AMQPValue::Double(far as f64 * 1e3), "looks like microseconds"),
        (whole(far * 1_000_000), "looks like nanoseconds"),
        (AMQPValue::Timestamp(far), "timestamp has seconds"),
        (whole(NOW.0 + 2 * 3655 * 24 * HOUR), "more than ten years from now"),
        (AMQPValue::LongLongInt(i64::MAX), "more than ten years from now"),
        (AMQPValue::Timestamp(u64::MAX), "more than ten years from now"),
        (text("99999999999999999999999999999"), "more than ten years from now"),
        (text("1e300"), "more than ten years from now"),
        (AMQPValue::Double(f64::MAX), "more than ten years from now"),
        (text("9999-12-31T23:59:59Z"), "more than ten years from now"),
        (text("2023-11-14T23:13:20"), "zone"),
        (text("tomorrow"), "milliseconds since 1970"),
        (text(""), "milliseconds since 1970"),
    ];
    table.extend(meaningless().map(|value| (value, "milliseconds since 1970")));
    for (value, part) in table {
        for name in [HEADER_DUE, HEADER_DEADLINE, HEADER_SENT] {
            let error = times(&with(name, value.clone()), NOW).expect_err("no time").to_string();
            assert!(error.contains(part) && error.contains(name), "{value:?}: {error}");
            assert!(error.contains(&value.get_type().to_string()), "{value:?}: {error}");
        }
        assert_eq!(own_deadline(&value), None, "{value:?}");
    }
}

#[test]
fn a_count_of_any_type_is_read_for_what_it_plainly_means() {
    let table = [
        (AMQPValue::LongUInt(4), 4),
        (AMQPValue::ShortShortInt(3), 3),
        (AMQPValue::ShortShortUInt(3), 3),
        (AMQPValue::ShortInt(3), 3),
        (AMQPValue::ShortUInt(3), 3),
        (AMQPValue::LongInt(3), 3),
        (AMQPValue::LongLongInt(2), 2),
        (AMQPValue::Float(2.0), 2),
        (AMQPValue::Double(2.0), 2),
        (decimal(20, 1), 2),
        (text("5"), 5),
        (text("5.0"), 5),
        (bytes(b"5"), 5),
        (AMQPValue::ShortString("5".into()), 5),
        (AMQPValue::LongInt(0), 0),
        (AMQPValue::Void, 0),
        (AMQPValue::LongLongInt(i64::MAX), MAX_COUNT),
        (AMQPValue::LongUInt(u32::MAX), MAX_COUNT),
        (AMQPValue::Double(1e300), MAX_COUNT),
        (text("99999999999999999999999"), MAX_COUNT),
    ];
    for (value, expected) in table {
        let attempt = with(HEADER_ATTEMPT, value.clone());
        assert_eq!(
            (times(&attempt, NOW), identified(&attempt).attempt),
            (Ok(Times::default()), expected.max(1))
        );
        let redelivered = with(HEADER_REDELIVERIES, value.clone());
        assert_eq!(
            (times(&redelivered, NOW), identified(&redelivered).redeliveries),
            (Ok(Times::default()), expected)
        );
    }
    let mut table = vec![
        AMQPValue::LongInt(-9),
        AMQPValue::LongLongInt(i64::MIN),
        AMQPValue::Double(-1.0),
        AMQPValue::Double(2.5),
        AMQPValue::Float(0.5),
        decimal(-20, 1),
        decimal(25, 1),
        AMQPValue::Timestamp(3),
        text("many"),
        text("-1"),
        text(""),
    ];
    table.extend(meaningless());
    for value in table {
        for name in [HEADER_ATTEMPT, HEADER_REDELIVERIES] {
            let error = times(&with(name, value.clone()), NOW).expect_err("no count").to_string();
            assert!(error.contains(name) && error.contains("whole number"), "{value:?}: {error}");
        }
        assert_eq!(identified(&with(HEADER_ATTEMPT, value)).attempt, 1, "a dead letter has one as well");
    }
}

#[test]
fn an_id_of_ours_is_text_or_a_whole_number() {
    for (value, expected) in [
        (text("0190-ours"), Some("0190-ours")),
        (bytes(b"0190-ours"), Some("0190-ours")),
        (AMQPValue::ShortString("0190-ours".into()), Some("0190-ours")),
        (text("7"), Some("7")),
        (AMQPValue::LongInt(-7), Some("-7")),
        (AMQPValue::Void, None),
    ] {
        assert_eq!(times(&with(HEADER_ID, value.clone()), NOW), Ok(Times::default()), "{value:?}");
        assert_eq!(id(with(HEADER_ID, value.clone()).headers().as_ref()).as_deref(), expected, "{value:?}");
    }
    let long = "x".repeat(256);
    let mut table = vec![text(""), text(&long), bytes(b""), AMQPValue::Double(1.5), AMQPValue::Timestamp(3)];
    table.extend(meaningless().into_iter().filter(|value| *value != text("NaN")));
    for value in table {
        let properties = with(HEADER_ID, value.clone());
        assert!(times(&properties, NOW).expect_err("no id").to_string().contains(HEADER_ID), "{value:?}");
        assert_eq!(identified(&properties).id.text.len(), 36, "a new id instead");
    }
}

#[test]
fn a_message_without_headers_of_ours_says_nothing() {
    let mut headers = FieldTable::default();
    headers.insert("x-warp".into(), AMQPValue::Boolean(true));
    headers.insert("x-warrens".into(), AMQPValue::Boolean(true));
    for properties in [BasicProperties::default(), BasicProperties::default().with_headers(headers)] {
        assert_eq!(times(&properties, NOW), Ok(Times::default()));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(ahead in 0..3650 * 24 * HOUR, count in 0..MAX_COUNT) {
        let at = UnixMs(NOW.0 + ahead);
        let due = times(&with(HEADER_DUE, time_value(at)), NOW).map(|times| times.due.map(|due| due.at));
        prop_assert_eq!(due, Ok(Some(at)));
        prop_assert_eq!(identified(&with(HEADER_ATTEMPT, count_value(count))).attempt, count.max(1));
    }

    #[test]
    fn any_text_is_a_time_or_is_refused_with_its_beginning(value in "\\PC{0,300}") {
        if let Err(unusable) = times(&with(HEADER_DUE, text(&value)), NOW) {
            prop_assert!(unusable.to_string().len() < 500, "{}", unusable);
        }
    }
}
