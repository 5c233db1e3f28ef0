//! The properties of a task's copies: what is stripped, what is kept, what is added. Pure.
//!
//! A copy carries the original's properties and headers, without what the broker (or a client posing as one) wrote
//! about the original's own way: `x-death` makes 3.10 drop the message at the second hop, `CC` and `BCC` deliver it
//! again, `expiration` kills it in its delay queue, a foreign `user_id` closes the channel.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use sha2::{Digest, Sha256};

use super::hops::{self, HEADER_DUE};
use super::reply;
use crate::host::FollowUp;
use crate::settlement::DeadReason;
use crate::task::{
    HEADER_ALTERED, HEADER_ATTEMPT, HEADER_ID, HEADER_REDELIVERIES, TaskId, header, is_transport_header,
    known_id, trace,
};

/// When the task expires, in milliseconds since 1970: its `expiration`, made absolute by the first copy.
pub const HEADER_DEADLINE: &str = "x-warren-deadline";
/// Why a dead letter is dead: a [`DeadReason`] as text.
pub const HEADER_REASON: &str = "x-warren-reason";
/// The handler that failed last.
pub const HEADER_HANDLER: &str = "x-warren-handler";
/// The last failure's code.
pub const HEADER_ERROR_CODE: &str = "x-warren-error-code";
/// The last failure's message.
pub const HEADER_ERROR: &str = "x-warren-error";
/// When it failed for the first time (AMQP timestamp, seconds).
pub const HEADER_FIRST_FAILURE: &str = "x-warren-first-failure";
/// When it failed for the last time (AMQP timestamp, seconds).
pub const HEADER_LAST_FAILURE: &str = "x-warren-last-failure";
/// The work queue it belongs to.
pub const HEADER_QUEUE: &str = "x-warren-queue";

/// Handler, error code and message are cut to this many bytes each: headers travel in one frame.
pub const MAX_ERROR_BYTES: usize = 1024;
/// AMQP `delivery_mode`: survives a restart of the broker.
pub(super) const PERSISTENT: u8 = 2;

/// How a copy of a task that is to run again differs from the original.
#[derive(Debug, Clone, Copy)]
pub struct RetryCopy<'a> {
    /// How long it waits, rounded up to the ladder; zero: straight to the work queue.
    pub delay: Duration,
    /// The attempt it will be, from 1.
    pub attempt: u32,
    /// How often its start was cut short by the daemon's own end.
    pub redeliveries: u32,
    /// The task's id; one of ours is kept in a header.
    pub id: &'a TaskId,
    /// What happened; `None` when nothing failed (a parked task, a restart copy). Earlier failures stay on record.
    pub failure: Option<Failure<'a>>,
}

/// Why a task is given up.
#[derive(Debug, Clone, Copy)]
pub struct Grave<'a> {
    /// The reason.
    pub reason: DeadReason,
    /// The attempt that was its last, from 1.
    pub attempt: u32,
    /// How often its start was cut short by the daemon's own end.
    pub redeliveries: u32,
    /// The task's id; one of ours is kept in a header.
    pub id: &'a TaskId,
    /// What happened.
    pub failure: Failure<'a>,
}

/// One failure, for people and for `warrenctl`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failure<'a> {
    /// The handler; empty when none took it.
    pub handler: &'a str,
    /// Short code.
    pub code: &'a str,
    /// One line.
    pub message: &'a str,
}

/// A point in time as the copies carry it: milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The wall clock.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// So much later; parts of a millisecond are dropped.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to here; `None` when that is the later one.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_millis)
    }

    /// The same in whole seconds, as AMQP has it.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

impl From<SystemTime> for UnixMs {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The task's deadline has passed: it is not to be started. Only copies carry one; an original that expires never
/// arrives.
pub fn is_expired(properties: &BasicProperties, now: UnixMs) -> bool {
    header(properties, HEADER_DEADLINE).and_then(milliseconds).is_some_and(|deadline| deadline <= now)
}

/// A task that publishes a follow-up.
#[derive(Debug, Clone, Copy)]
pub struct Parent<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its properties: the follow-up belongs to the same trace.
    pub properties: &'a BasicProperties,
}

/// The same message, to be discarded if it has not been started by then.
pub fn with_deadline(properties: BasicProperties, deadline: UnixMs) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    put(&mut headers, HEADER_DEADLINE, milliseconds_value(deadline));
    properties.with_headers(headers)
}

/// Properties of a copy that is to run again. A task that is not due yet stays so.
pub fn retry(original: &BasicProperties, queue: &str, copy: &RetryCopy<'_>, now: UnixMs) -> BasicProperties {
    let mut headers = kept_headers(original, now);
    identity(&mut headers, copy.id, copy.attempt, copy.redeliveries);
    put(&mut headers, HEADER_QUEUE, bounded(queue));
    if let Some(due) = hops::carried_on(original, now) {
        put(&mut headers, HEADER_DUE, due);
    }
    match &copy.failure {
        Some(failure) => record(&mut headers, original, failure, now),
        None => keep_record(&mut headers, original),
    }
    kept(original).with_headers(headers)
}

/// Properties of a dead letter.
pub fn dead(original: &BasicProperties, queue: &str, grave: &Grave<'_>, now: UnixMs) -> BasicProperties {
    let mut headers = kept_headers(original, now);
    identity(&mut headers, grave.id, grave.attempt, grave.redeliveries);
    put(&mut headers, HEADER_QUEUE, bounded(queue));
    put(&mut headers, HEADER_REASON, text(grave.reason.as_str()));
    record(&mut headers, original, &grave.failure, now);
    kept(original).with_headers(headers)
}

/// Properties of a dead letter's copy that starts afresh: those that its producer gave it, and the id it is known by. What
/// Warren or the broker recorded is left out, the deadline as well: who replays an expired task wants it to run.
pub fn replay(dead: &BasicProperties) -> BasicProperties {
    let mut headers = producer_headers(dead);
    if let Some(TaskId { text: id, generated: true }) = known_id(dead) {
        put(&mut headers, HEADER_ID, text(&id));
    }
    let copy = kept(dead);
    if headers.inner().is_empty() { copy } else { copy.with_headers(headers) }
}

/// Properties of the `n`th follow-up (from 1) of the task `parent`. Fails on text that AMQP has no room for, and says
/// which.
pub fn follow_up(
    task: &FollowUp,
    parent: Parent<'_>,
    n: usize,
    now: UnixMs,
) -> Result<BasicProperties, String> {
    let id = if task.id.is_empty() { follow_up_id(parent.id, n) } else { room_for(task.id.clone()) };
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now.seconds())
        .with_message_id(short("id", &id)?);
    if !task.message_type.is_empty() {
        properties = properties.with_type(short("type", &task.message_type)?);
    }
    if !task.content_type.is_empty() {
        properties = properties.with_content_type(short("content type", &task.content_type)?);
    }
    if let Ok(priority) = u8::try_from(task.priority.min(i32::from(u8::MAX))) {
        properties = properties.with_priority(priority);
    }
    let mut headers = FieldTable::default();
    for (name, value) in task.headers.iter().filter(|(name, _)| !is_transport_header(name)) {
        headers.insert(short("header name", name)?, text(value));
    }
    trace::inherit(&mut headers, parent.properties.headers().as_ref());
    if !task.expires.is_zero() {
        if task.delay.is_zero() {
            properties = properties.with_expiration(task.expires.as_millis().to_string().into());
        } else {
            // The property would end it in its delay queue, and a delay queue's end is the work queue.
            put(&mut headers, HEADER_DEADLINE, milliseconds_value(now.plus(task.delay).plus(task.expires)));
        }
    }
    Ok(properties.with_headers(headers))
}

/// An upper bound of the properties' bytes on the wire. They go in one frame: what does not fit closes the connection.
pub fn encoded_bound(properties: &BasicProperties) -> usize {
    // Flags, and at most eleven short strings and numbers besides the headers.
    const FIXED: usize = 2 + 11 * 256;
    FIXED + properties.headers().as_ref().map_or(0, table_len)
}

fn table_len(table: &FieldTable) -> usize {
    4 + table.into_iter().map(|(name, value)| 1 + name.as_str().len() + value_len(value)).sum::<usize>()
}

fn value_len(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(array) => 4 + array.as_slice().iter().map(value_len).sum::<usize>(),
        AMQPValue::FieldTable(table) => table_len(table),
        _ => 8,
    }
}

/// Everything but headers, `expiration` and `user_id`; persistent, because the original may live in a queue that is.
/// A `reply_to` stays, so that the last attempt can still answer, unless the broker would refuse the copy for it.
fn kept(original: &BasicProperties) -> BasicProperties {
    let mut copy = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(reply_to) = original.reply_to().clone().filter(|to| !reply::is_nowhere(to)) {
        copy = copy.with_reply_to(reply_to);
    }
    macro_rules! keep {
        ($($getter:ident => $setter:ident),*) => {
            $(if let Some(value) = original.$getter().clone() { copy = copy.$setter(value); })*
        };
    }
    keep!(
        content_type => with_content_type,
        content_encoding => with_content_encoding,
        priority => with_priority,
        correlation_id => with_correlation_id,
        message_id => with_message_id,
        timestamp => with_timestamp,
        kind => with_type,
        app_id => with_app_id,
        cluster_id => with_cluster_id
    );
    copy
}

/// The producer's headers.
fn producer_headers(original: &BasicProperties) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in original.headers().iter().flatten() {
        if !is_transport_header(name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers
}

/// The producer's headers, the deadline, and what was changed in the message.
fn kept_headers(original: &BasicProperties, now: UnixMs) -> FieldTable {
    let mut headers = producer_headers(original);
    if let Some(deadline) = deadline(original, now) {
        put(&mut headers, HEADER_DEADLINE, milliseconds_value(deadline));
    }
    if let Some(altered) = header(original, HEADER_ALTERED) {
        put(&mut headers, HEADER_ALTERED, altered.clone());
    }
    headers
}

/// The deadline an earlier copy carries, else the original's `expiration` from when it was published, which only its
/// `timestamp` tells; without one, from now.
fn deadline(original: &BasicProperties, now: UnixMs) -> Option<UnixMs> {
    if let Some(deadline) = header(original, HEADER_DEADLINE).and_then(milliseconds) {
        return Some(deadline);
    }
    let expiration: u64 = original.expiration().as_ref()?.as_str().parse().ok()?;
    let published = original.timestamp().map(|seconds| UnixMs(seconds.saturating_mul(1000)));
    let from = published.filter(|&published| published <= now).unwrap_or(now);
    Some(from.plus(Duration::from_millis(expiration)))
}

fn identity(headers: &mut FieldTable, id: &TaskId, attempt: u32, redeliveries: u32) {
    put(headers, HEADER_ATTEMPT, count(attempt));
    if redeliveries > 0 {
        put(headers, HEADER_REDELIVERIES, count(redeliveries));
    }
    if id.generated {
        put(headers, HEADER_ID, text(&id.text));
    }
}

fn record(headers: &mut FieldTable, original: &BasicProperties, failure: &Failure<'_>, now: UnixMs) {
    let now = AMQPValue::Timestamp(now.seconds());
    let first = header(original, HEADER_FIRST_FAILURE)
        .filter(|value| matches!(value, AMQPValue::Timestamp(_)))
        .unwrap_or(&now);
    put(headers, HEADER_FIRST_FAILURE, first.clone());
    put(headers, HEADER_LAST_FAILURE, now);
    let fields = [
        (HEADER_HANDLER, failure.handler),
        (HEADER_ERROR_CODE, failure.code),
        (HEADER_ERROR, failure.message),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        put(headers, name, bounded(value));
    }
}

/// Nothing failed this time: what failed before stays readable.
fn keep_record(headers: &mut FieldTable, original: &BasicProperties) {
    const RECORD: [&str; 5] =
        [HEADER_FIRST_FAILURE, HEADER_LAST_FAILURE, HEADER_HANDLER, HEADER_ERROR_CODE, HEADER_ERROR];
    for name in RECORD {
        if let Some(value) = header(original, name) {
            put(headers, name, value.clone());
        }
    }
}

/// `<parent>/<n>`, so that a rerun repeats its ids. A parent that leaves no room is digested.
fn follow_up_id(parent: &str, n: usize) -> String {
    let id = format!("{parent}/{n}");
    if u8::try_from(id.len()).is_ok() { id } else { format!("{}/{n}", digest(parent)) }
}

/// An id that AMQP has room for, 255 bytes: a longer one is digested, so that a rerun repeats it too.
fn room_for(id: String) -> String {
    if u8::try_from(id.len()).is_ok() { id } else { digest(&id) }
}

/// SHA-256 in hexadecimal digits.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

pub(super) fn milliseconds(value: &AMQPValue) -> Option<UnixMs> {
    match value {
        AMQPValue::LongLongInt(ms) => u64::try_from(*ms).ok().map(UnixMs),
        _ => None,
    }
}

pub(super) fn milliseconds_value(time: UnixMs) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(time.0).unwrap_or(i64::MAX))
}

pub(super) fn put(headers: &mut FieldTable, name: &'static str, value: AMQPValue) {
    headers.insert(ShortString::from(name), value);
}

pub(super) fn count(number: u32) -> AMQPValue {
    // Signed 32 bits: every client and the management page reads it.
    AMQPValue::LongInt(i32::try_from(number).unwrap_or(i32::MAX))
}

pub(super) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

pub(super) fn bounded(value: &str) -> AMQPValue {
    let mut end = value.len().min(MAX_ERROR_BYTES);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    text(&value[..end])
}

fn short(what: &str, value: &str) -> Result<ShortString, String> {
    ShortString::try_new(value).map_err(|_| {
        format!("the follow-up's {what} has {} bytes, AMQP allows 255: `{:.40}…`", value.len(), value)
    })
}
