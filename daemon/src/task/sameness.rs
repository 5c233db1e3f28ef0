//! What makes two deliveries the same message, and two messages the same task. Pure.
//!
//! | question | answered from | asked for |
//! | --- | --- | --- |
//! | the same *message*, delivered again? | the body and every property and header that the broker leaves as they were | redeliveries after a lost link |
//! | the same *task*, published again or copied? | the body and what a handler or the sender of the task sees | queues with `deduplicate` |
//!
//! A delivery that is taken for another one is acknowledged without a run of its own. So everything counts that could
//! make a difference to anybody: where two deliveries differ in it, both run. Exchange and routing key do not count:
//! neither a handler nor a sender is told them, and no copy keeps them.
//!
//! Values are written out with their types and lengths, so that equal bytes mean equal values. The walk is a loop and
//! not a recursion, because AMQP has no bound on the depth of nested values.

use std::collections::btree_map;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::slice;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::is_transport_header;
use super::trace::is_trace_header;

/// Digests of messages for one process: its keys are random, so that nobody can publish two messages with one digest.
#[derive(Debug, Clone, Default)]
pub struct Digests(RandomState);

impl Digests {
    /// The digest of a message. Redeliveries of a message have the same one.
    pub fn of(&self, properties: &BasicProperties, body: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        write_message(properties, &mut |bytes| hasher.write(bytes));
        hasher.write(body);
        hasher.finish()
    }
}

/// Whether two deliveries are of one message, as far as anybody but the broker can tell.
pub fn is_same_message(one: (&BasicProperties, &[u8]), other: (&BasicProperties, &[u8])) -> bool {
    one.1 == other.1 && written(one.0) == written(other.0)
}

/// Writes what tells a task from others, its body aside: who it is, what its handler sees, and where its sender waits for
/// the answer. A producer that publishes a task again changes none of it, nor does a copy. The trace context is left
/// out, which producers renew with every publish.
pub fn write_task(properties: &BasicProperties, sink: &mut impl FnMut(&[u8])) {
    write_texts(properties, sink);
    let seen = |name: &str| !is_transport_header(name) && !is_trace_header(name);
    write_headers(properties.headers().as_ref(), seen, sink);
}

fn written(properties: &BasicProperties) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(properties, &mut |part| bytes.extend_from_slice(part));
    bytes
}

fn write_message(properties: &BasicProperties, sink: &mut impl FnMut(&[u8])) {
    write_texts(properties, sink);
    for text in [properties.expiration(), properties.user_id(), properties.app_id(), properties.cluster_id()]
    {
        write_optional(text.as_ref(), sink);
    }
    let numbers = [
        properties.timestamp().map(u128::from),
        properties.priority().map(u128::from),
        properties.delivery_mode().map(u128::from),
    ];
    for number in numbers {
        sink(&number.map_or(0, |number| number + 1).to_le_bytes());
    }
    write_headers(properties.headers().as_ref(), |name| !is_rewritten_by_broker(name), sink);
}

/// The properties that tell both tasks and messages apart.
fn write_texts(properties: &BasicProperties, sink: &mut impl FnMut(&[u8])) {
    for text in [
        properties.message_id(),
        properties.kind(),
        properties.content_type(),
        properties.content_encoding(),
        properties.reply_to(),
        properties.correlation_id(),
    ] {
        write_optional(text.as_ref(), sink);
    }
}

/// Headers that the broker writes, with another value each time it hands a message over or moves it.
fn is_rewritten_by_broker(name: &str) -> bool {
    const PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];
    const NAMES: [&str; 3] = ["x-death", "x-delivery-count", "x-acquired-count"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

fn write_headers(table: Option<&FieldTable>, counts: impl Fn(&str) -> bool, sink: &mut impl FnMut(&[u8])) {
    for (name, value) in table.into_iter().flatten().filter(|(name, _)| counts(name.as_str())) {
        write_bytes(name.as_str().as_bytes(), sink);
        write_value(value, sink);
    }
}

/// What of a nested value is still to be written.
enum Rest<'v> {
    Table(btree_map::Iter<'v, ShortString, AMQPValue>),
    Array(slice::Iter<'v, AMQPValue>),
}

fn write_value(value: &AMQPValue, sink: &mut impl FnMut(&[u8])) {
    let mut open = Vec::new();
    let mut next = Some(value);
    loop {
        if let Some(value) = next {
            open.extend(write_shallow(value, sink));
        }
        let Some(rest) = open.last_mut() else { return };
        next = match rest {
            Rest::Array(items) => items.next(),
            Rest::Table(fields) => fields.next().map(|(name, value)| {
                write_bytes(name.as_str().as_bytes(), sink);
                value
            }),
        };
        if next.is_none() {
            open.pop();
        }
    }
}

/// Writes a value; of a nested one only how much it holds, and gives what it holds.
fn write_shallow<'v>(value: &'v AMQPValue, sink: &mut impl FnMut(&[u8])) -> Option<Rest<'v>> {
    let mut plain = |kind: u8, bytes: &[u8]| {
        sink(&[kind]);
        sink(bytes);
    };
    match value {
        AMQPValue::Void => plain(b'V', &[]),
        AMQPValue::Boolean(flag) => plain(b't', &[u8::from(*flag)]),
        AMQPValue::ShortShortInt(number) => plain(b'b', &number.to_le_bytes()),
        AMQPValue::ShortShortUInt(number) => plain(b'B', &number.to_le_bytes()),
        AMQPValue::ShortInt(number) => plain(b's', &number.to_le_bytes()),
        AMQPValue::ShortUInt(number) => plain(b'u', &number.to_le_bytes()),
        AMQPValue::LongInt(number) => plain(b'I', &number.to_le_bytes()),
        AMQPValue::LongUInt(number) => plain(b'i', &number.to_le_bytes()),
        AMQPValue::LongLongInt(number) => plain(b'l', &number.to_le_bytes()),
        AMQPValue::Timestamp(number) => plain(b'T', &number.to_le_bytes()),
        // By their bits: what is not a number is the same as itself here.
        AMQPValue::Float(number) => plain(b'f', &number.to_bits().to_le_bytes()),
        AMQPValue::Double(number) => plain(b'd', &number.to_bits().to_le_bytes()),
        AMQPValue::DecimalValue(number) => {
            plain(b'D', &[number.scale]);
            sink(&number.value.to_le_bytes());
        }
        AMQPValue::ShortString(text) => {
            sink(b"z");
            write_bytes(text.as_str().as_bytes(), sink);
        }
        AMQPValue::LongString(text) => {
            sink(b"S");
            write_bytes(text.as_bytes(), sink);
        }
        AMQPValue::ByteArray(bytes) => {
            sink(b"x");
            write_bytes(bytes.as_slice(), sink);
        }
        AMQPValue::FieldArray(array) => {
            plain(b'A', &array.as_slice().len().to_le_bytes());
            return Some(Rest::Array(array.as_slice().iter()));
        }
        AMQPValue::FieldTable(table) => {
            plain(b'F', &table.inner().len().to_le_bytes());
            return Some(Rest::Table(table.inner().iter()));
        }
    }
    None
}

fn write_optional(text: Option<&ShortString>, sink: &mut impl FnMut(&[u8])) {
    sink(&[u8::from(text.is_some())]);
    write_bytes(text.map_or(&[], |text| text.as_str().as_bytes()), sink);
}

fn write_bytes(bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
    sink(&bytes.len().to_le_bytes());
    sink(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in fields {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    fn with(fields: &[(&str, AMQPValue)]) -> BasicProperties {
        BasicProperties::default().with_headers(headers(fields))
    }

    fn is_same(one: &BasicProperties, other: &BasicProperties) -> bool {
        let digests = Digests::default();
        let same = is_same_message((one, b"body"), (other, b"body"));
        assert_eq!(same, digests.of(one, b"body") == digests.of(other, b"body"), "{one:?} {other:?}");
        same
    }

    fn task(properties: &BasicProperties) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_task(properties, &mut |part| bytes.extend_from_slice(part));
        bytes
    }

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    #[test]
    fn every_property_and_header_of_the_producer_tells_messages_apart() {
        let plain = BasicProperties::default();
        let table = [
            plain.clone().with_message_id("1".into()),
            plain.clone().with_type("1".into()),
            plain.clone().with_content_type("1".into()),
            plain.clone().with_content_encoding("1".into()),
            plain.clone().with_reply_to("1".into()),
            plain.clone().with_correlation_id("1".into()),
            plain.clone().with_expiration("1".into()),
            plain.clone().with_user_id("1".into()),
            plain.clone().with_app_id("1".into()),
            plain.clone().with_cluster_id("1".into()),
            plain.clone().with_timestamp(0),
            plain.clone().with_timestamp(u64::MAX),
            plain.clone().with_priority(0),
            plain.clone().with_priority(1),
            plain.clone().with_delivery_mode(2),
            plain.clone().with_message_id("".into()),
            with(&[("customer", text("alice"))]),
            with(&[("customer", text("carol"))]),
            with(&[("customer", AMQPValue::ShortString("alice".into()))]),
            with(&[("customer", AMQPValue::LongInt(1))]),
            with(&[("customer", AMQPValue::LongLongInt(1))]),
            with(&[("customer", AMQPValue::Double(f64::NAN))]),
            with(&[("x-warren-attempt", AMQPValue::LongInt(2))]),
            with(&[("x-warren-id", text("1"))]),
            with(&[("a", AMQPValue::FieldTable(headers(&[("b", AMQPValue::Void)])))]),
            with(&[("a", AMQPValue::FieldTable(headers(&[]))), ("b", AMQPValue::Void)]),
            with(&[("a", AMQPValue::FieldArray(vec![AMQPValue::Void].into()))]),
            with(&[("a", AMQPValue::FieldArray(vec![AMQPValue::FieldArray(vec![].into())].into()))]),
            plain,
        ];
        for (n, one) in table.iter().enumerate() {
            for (m, other) in table.iter().enumerate() {
                assert_eq!(is_same(one, other), n == m, "{one:?} {other:?}");
            }
        }
        assert!(!is_same_message((&table[0], b"one"), (&table[0], b"two")));
    }

    #[test]
    fn what_the_broker_writes_at_each_delivery_does_not() {
        let first = BasicProperties::default();
        let again = with(&[
            ("x-delivery-count", AMQPValue::LongLongInt(1)),
            ("x-acquired-count", AMQPValue::LongLongInt(2)),
            ("x-death", AMQPValue::FieldArray(vec![].into())),
            ("x-first-death-queue", text("q")),
        ]);
        assert!(is_same(&first, &again));
    }

    #[test]
    fn a_task_is_known_again_in_its_copies_and_when_it_is_published_twice() {
        let first = with(&[("customer", text("alice")), ("traceparent", text("00-1"))])
            .with_message_id("1".into())
            .with_timestamp(1)
            .with_expiration("1000".into());
        let again = with(&[("customer", text("alice")), ("traceparent", text("00-2"))])
            .with_message_id("1".into())
            .with_timestamp(2)
            .with_delivery_mode(2);
        let copy = with(&[("customer", text("alice")), ("x-warren-attempt", AMQPValue::LongInt(2))])
            .with_message_id("1".into());
        assert_eq!(task(&first), task(&again));
        assert_eq!(task(&first), task(&copy));
        for other in [
            first.clone().with_reply_to("carol".into()),
            first.clone().with_correlation_id("2".into()),
            first.clone().with_content_type("text/plain".into()),
            first.clone().with_headers(headers(&[("customer", text("carol"))])),
        ] {
            assert_ne!(task(&first), task(&other), "{other:?}");
        }
    }

    #[test]
    fn no_depth_of_nested_values_is_too_much() {
        let mut value = AMQPValue::Void;
        for _ in 0..500 {
            value = AMQPValue::FieldArray(vec![value].into());
        }
        assert!(is_same(&with(&[("deep", value.clone())]), &with(&[("deep", value)])));
    }
}
