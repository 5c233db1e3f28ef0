//! The W3C trace context of a task: the headers `traceparent` and `tracestate`. Warren makes no spans; it hands the
//! context on to what comes of a task, and names the trace in the log. Pure.

use lapin::types::{AMQPValue, FieldTable, ShortString};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Bytes of a `traceparent` of version 00, `00-<32 digits>-<16 digits>-<2 digits>`; later versions may append.
const LENGTH: usize = 55;
/// A longer `traceparent` is no use to anyone, a longer `tracestate` may be cut off by the standard: neither is handed
/// on, as what a task inherits must fit into its frame.
const MAX_BYTES: usize = 512;

/// The trace's id, 32 hexadecimal digits, when the headers name a valid one.
pub fn id(headers: Option<&FieldTable>) -> Option<&str> {
    let traceparent = text_of(headers?.inner().get(TRACEPARENT)?)?;
    trace_id(traceparent)
}

/// Whether this header belongs to the trace context.
pub fn is_trace_header(name: &str) -> bool {
    [TRACEPARENT, TRACESTATE].contains(&name)
}

/// Puts the trace context of `from` into the headers of what comes of it. Headers that have a `traceparent` of their
/// own keep both as they are, because a `tracestate` belongs to its `traceparent`.
pub fn inherit(headers: &mut FieldTable, from: Option<&FieldTable>) {
    let (Some(from), false) = (from, headers.contains_key(TRACEPARENT)) else { return };
    if id(Some(from)).is_none() {
        return;
    }
    for name in [TRACEPARENT, TRACESTATE] {
        let value = from.inner().get(name).filter(|value| text_of(value).is_some());
        if let Some(value) = value.filter(|_| !headers.contains_key(name)) {
            headers.insert(ShortString::from(name), value.clone());
        }
    }
}

fn text_of(value: &AMQPValue) -> Option<&str> {
    let text = match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok()?,
        AMQPValue::ShortString(text) => text.as_str(),
        _ => return None,
    };
    (text.len() <= MAX_BYTES).then_some(text)
}

fn trace_id(traceparent: &str) -> Option<&str> {
    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_nothing = |text: &str| text.bytes().all(|b| b == b'0');
    let (known, rest) = traceparent.split_at_checked(LENGTH)?;
    let mut parts = known.split('-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length && is_hex(part));
    let (version, trace, parent) = (part(2)?, part(32)?, part(16)?);
    part(2)?; // flags
    let ends_well = match version {
        "ff" => false,
        "00" => rest.is_empty(),
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    (ends_well && !is_nothing(trace) && !is_nothing(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn table(fields: &[(&str, &str)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in fields {
            table.insert(ShortString::from(*name), AMQPValue::LongString((*value).into()));
        }
        table
    }

    #[test]
    fn only_a_valid_traceparent_names_a_trace() {
        let zeros = "0".repeat(32);
        for (text, valid) in [
            (PARENT.to_owned(), true),
            (PARENT.replacen("00-", "cc-", 1), true),
            (PARENT.replacen("00-", "cc-", 1) + "-what-comes-later", true),
            (PARENT.replacen("00-", "cc-", 1) + ".what", false),
            (PARENT.to_owned() + "-more", false),
            (PARENT.replacen("00-", "ff-", 1), false),
            (PARENT.to_uppercase(), false),
            (PARENT.replace(TRACE, &zeros), false),
            (PARENT.replace("00f067aa0ba902b7", &zeros[..16]), false),
            (PARENT.replace("4736-", "473-6"), false),
            (PARENT[..54].to_owned(), false),
            ("é".repeat(30), false),
            (String::new(), false),
        ] {
            let headers = table(&[("traceparent", &text)]);
            assert_eq!(id(Some(&headers)), valid.then_some(TRACE), "{text}");
        }
        assert_eq!(id(None), None);
    }

    #[test]
    fn what_comes_of_a_task_is_of_its_trace_unless_it_has_one_of_its_own() {
        let other = PARENT.replace("4736", "0000");
        let long = "x".repeat(513);
        let from = [("traceparent", PARENT), ("tracestate", "a=1"), ("tenant", "acme")];
        for (own, from, expected) in [
            (&[][..], &from[..], &[("traceparent", PARENT), ("tracestate", "a=1")][..]),
            (&[("traceparent", &*other)], &from, &[("traceparent", &*other)]),
            (&[("tracestate", "b=2")], &from, &[("traceparent", PARENT), ("tracestate", "b=2")]),
            (&[], &[("traceparent", PARENT), ("tracestate", &*long)], &[("traceparent", PARENT)]),
            (&[], &[("traceparent", "mine"), ("tracestate", "a=1")], &[]),
            (&[], &[("tracestate", "a=1")], &[]),
        ] {
            let mut headers = table(own);
            inherit(&mut headers, Some(&table(from)));
            assert_eq!(headers, table(expected), "{own:?} {from:?}");
        }
    }
}
