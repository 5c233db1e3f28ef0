//! Makes a copy's properties fit into a frame. What a producer can send to the broker need not fit once what Warren has
//! to say is added; so the producer's headers are left out then, the largest first, and named in a header. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};

use super::size::{encoded_len, entry_len};
use crate::task::own::{
    HEADER_ATTEMPT, HEADER_COPY, HEADER_DEADLINE, HEADER_DROPPED, HEADER_DUE, HEADER_ID, HEADER_OUTCOME,
    HEADER_REASON, HEADER_REDELIVERIES, HEADER_SENT, HEADER_TASK, MAX_TEXT_BYTES, is_own, note_text, text,
};

use crate::text::cut;

/// Names in [`HEADER_DROPPED`] are cut to this: it is a note, not a list to work with.
const MAX_SHOWN_NAME: usize = 64;
/// Room that the note keeps for the number of those that it has no room for.
const COUNT_ROOM: usize = " and 1000000 more".len();
/// What Warren's other texts are cut to, once all of the producer's headers are gone.
const SHORT_TEXT: usize = 128;

/// What decides something: the last to go, and with the smallest frame that AMQP has there is room for it.
const NEEDED: [&str; 11] = [
    HEADER_ID,
    HEADER_ATTEMPT,
    HEADER_REDELIVERIES,
    HEADER_COPY,
    HEADER_DUE,
    HEADER_SENT,
    HEADER_DEADLINE,
    HEADER_REASON,
    HEADER_OUTCOME,
    HEADER_TASK,
    HEADER_DROPPED,
];

/// A header table that entries can be taken from.
type HeaderTable = BTreeMap<ShortString, AMQPValue>;

/// The properties in at most `limit` bytes.
pub(in crate::broker::publish) fn fit(properties: BasicProperties, limit: usize) -> BasicProperties {
    let len = encoded_len(&properties);
    if len <= limit {
        return properties;
    }
    let mut headers = headers_of(&properties);
    drop_largest(&mut headers, len, limit);
    let properties = properties.with_headers(headers.into());
    if encoded_len(&properties) <= limit { properties } else { shorten(properties, limit) }
}

/// The same without any of the producer's headers: for a broker that refuses the whole one.
pub(in crate::broker::publish) fn bare(properties: BasicProperties) -> BasicProperties {
    let mut headers = headers_of(&properties);
    drop_largest(&mut headers, usize::MAX, 0);
    properties.with_headers(headers.into())
}

fn headers_of(properties: &BasicProperties) -> HeaderTable {
    properties.headers().as_ref().map(|table| table.inner().clone()).unwrap_or_default()
}

/// Leaves out the producer's headers, the largest first, until the whole, of `len` bytes, is down to `limit`.
fn drop_largest(headers: &mut HeaderTable, mut len: usize, limit: usize) {
    let producers = headers.iter().filter(|(name, _)| !is_own(name.as_str()));
    let mut sizes: Vec<(usize, ShortString)> =
        producers.map(|(name, value)| (entry_len(name, value), name.clone())).collect();
    sizes.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let before = headers.remove(HEADER_DROPPED);
    len = len.saturating_sub(before.as_ref().map_or(0, note_len));
    let mut dropped = Dropped::after(before.as_ref());
    for (size, name) in sizes {
        if len.saturating_add(note_len(&dropped.value())) <= limit {
            break;
        }
        headers.remove(&name);
        dropped.add(name.as_str());
        len -= size;
    }
    if !dropped.names.is_empty() {
        headers.insert(HEADER_DROPPED.into(), dropped.value());
    }
}

/// Cuts Warren's texts, leaves out its records, and at last the properties that nothing hangs on.
fn shorten(properties: BasicProperties, limit: usize) -> BasicProperties {
    let mut headers = headers_of(&properties);
    let is_id = |name: &str| matches!(name, HEADER_ID | HEADER_TASK);
    for (_, value) in headers.iter_mut().filter(|(name, _)| !is_id(name.as_str())) {
        if let AMQPValue::LongString(long) = value
            && long.len() > SHORT_TEXT
        {
            *value = text(cut(&String::from_utf8_lossy(long.as_bytes()), SHORT_TEXT));
        }
    }
    let short = properties.with_headers(headers.clone().into());
    if encoded_len(&short) <= limit {
        return short;
    }
    headers.retain(|name, _| NEEDED.contains(&name.as_str()));
    let needed = short.with_headers(headers.into());
    if encoded_len(&needed) <= limit { needed } else { without_description(&needed) }
}

/// Without what only describes the message: the application's and the cluster's name, the type of its content.
fn without_description(properties: &BasicProperties) -> BasicProperties {
    let mut bare = BasicProperties::default();
    macro_rules! keep {
        ($($getter:ident => $setter:ident),*) => {
            $(if let Some(value) = properties.$getter().clone() { bare = bare.$setter(value); })*
        };
    }
    keep!(
        headers => with_headers,
        delivery_mode => with_delivery_mode,
        priority => with_priority,
        correlation_id => with_correlation_id,
        reply_to => with_reply_to,
        expiration => with_expiration,
        message_id => with_message_id,
        timestamp => with_timestamp,
        kind => with_type
    );
    bare
}

/// The names in [`HEADER_DROPPED`], as many as there is room for.
struct Dropped {
    names: String,
    /// Those that it had no room for.
    more: usize,
}

impl Dropped {
    /// Goes on with what an earlier copy says.
    fn after(before: Option<&AMQPValue>) -> Self {
        let mut names = before.and_then(note_text).unwrap_or_default();
        names.truncate(cut(&names, MAX_TEXT_BYTES - COUNT_ROOM).len());
        Self { names, more: 0 }
    }

    fn add(&mut self, name: &str) {
        let shown = cut(name, MAX_SHOWN_NAME);
        let cut_off = if shown.len() < name.len() { "…" } else { "" };
        let comma = if self.names.is_empty() { "" } else { ", " };
        if self.more > 0
            || self.names.len() + comma.len() + shown.len() + cut_off.len() > MAX_TEXT_BYTES - COUNT_ROOM
        {
            self.more += 1;
            return;
        }
        // Writing to a string cannot fail.
        let _ = write!(self.names, "{comma}{shown}{cut_off}");
    }

    fn value(&self) -> AMQPValue {
        if self.more == 0 {
            text(&self.names)
        } else {
            text(&format!("{} and {} more", self.names, self.more))
        }
    }
}

fn note_len(value: &AMQPValue) -> usize {
    entry_len(&HEADER_DROPPED.into(), value)
}
