//! The properties of a task's copies: what is stripped, what is kept, what is added. Pure.
//!
//! A copy carries the original's properties and headers, without what the broker (or a client posing as one) wrote
//! about the original's own way: `x-death` makes 3.10 drop the message at the second hop, `CC` and `BCC` deliver it
//! again, `expiration` kills it in its delay queue, a foreign `user_id` closes the channel.

mod fit;
mod size;
#[cfg(test)]
mod tests;

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{FieldTable, ShortString};
use sha2::{Digest, Sha256};

pub(super) use fit::{bare, fit};
pub use size::encoded_len;

use super::direct_reply::is_nowhere;
use crate::broker::event::Delivery;
use crate::model::duration::{MAX_DURATION, format_duration};
use crate::model::{DeadReason, FollowUp, TaskId, UnixMs};
pub use crate::task::own::Failure;
use crate::task::own::{
    self, HEADER_ID, HEADER_QUEUE, HEADER_REASON, NOTES, RecordedFailure, bounded, put, text,
};
use crate::task::{is_transport_header, known_id, trace};
use crate::text::hex;

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
pub struct DeadCopy<'a> {
    pub reason: DeadReason,
    /// The attempt that was its last, from 1.
    pub attempt: u32,
    /// How often its start was cut short by the daemon's own end.
    pub redeliveries: u32,
    /// The task's id; one of ours is kept in a header.
    pub id: &'a TaskId,
    pub failure: Failure<'a>,
}

/// A task that publishes a follow-up.
#[derive(Debug, Clone, Copy)]
pub struct Parent<'a> {
    pub id: &'a str,
    /// Its properties: the follow-up belongs to the same trace.
    pub properties: &'a BasicProperties,
}

/// The same message, to be a dead letter if it has not been started by then.
pub fn with_deadline(properties: BasicProperties, deadline: UnixMs) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    own::put_deadline(&mut headers, deadline);
    properties.with_headers(headers)
}

/// The same message, to expire so long after it reached its queue; the property where the broker takes it.
pub fn with_expiration(properties: BasicProperties, expires: Duration, now: UnixMs) -> BasicProperties {
    match u32::try_from(expires.as_millis()) {
        Ok(ms) => properties.with_expiration(ms.to_string().into()),
        // RabbitMQ refuses a message with a longer one.
        Err(_) => with_deadline(properties, now.plus(expires)),
    }
}

/// A message that was delivered, as its copies need it.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    pub properties: &'a BasicProperties,
    /// When it was delivered: its `expiration` counts from then. The broker counts from its arrival in the queue, which
    /// it does not tell; the `timestamp` is the application's, and may be any time.
    pub received: UnixMs,
}

impl<'a> From<&'a Delivery> for Original<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self { properties: &delivery.properties, received: delivery.received }
    }
}

/// Properties of a copy that is to run again.
pub fn retry(original: Original<'_>, queue: &str, copy: &RetryCopy<'_>, now: UnixMs) -> BasicProperties {
    let mut headers = kept_headers(original);
    let original = original.properties;
    own::put_identity(&mut headers, copy.id, copy.attempt, copy.redeliveries);
    own::put_copy(&mut headers, original);
    put(&mut headers, HEADER_QUEUE, bounded(queue));
    match &copy.failure {
        Some(failure) => own::put_failure(&mut headers, original, failure, now),
        // Nothing failed this time: what failed before stays readable.
        None => RecordedFailure::read(original).put(&mut headers),
    }
    kept(original).with_headers(headers)
}

/// Properties of a dead letter.
pub fn dead(original: Original<'_>, queue: &str, dead_copy: &DeadCopy<'_>, now: UnixMs) -> BasicProperties {
    let mut headers = kept_headers(original);
    let original = original.properties;
    own::put_identity(&mut headers, dead_copy.id, dead_copy.attempt, dead_copy.redeliveries);
    put(&mut headers, HEADER_QUEUE, bounded(queue));
    put(&mut headers, HEADER_REASON, text(dead_copy.reason.as_str()));
    own::put_failure(&mut headers, original, &dead_copy.failure, now);
    kept(original).with_headers(headers)
}

/// Properties of a dead letter's copy that starts afresh: those that its producer gave it, what is missing of them, and the
/// id it is known by. What else Warren or the broker recorded is left out, the deadline as well: who replays an expired
/// task wants it to run.
pub fn replay(dead: &BasicProperties) -> BasicProperties {
    let mut headers = producer_headers(dead);
    keep_notes(&mut headers, dead);
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
    for (what, time) in [("delay", task.delay), ("expiration", task.expires)] {
        if time > MAX_DURATION {
            return Err(format!("the follow-up's {what} is more than {}", format_duration(MAX_DURATION)));
        }
    }
    properties = properties.with_headers(headers);
    if task.expires.is_zero() {
        Ok(properties)
    } else if task.delay.is_zero() {
        Ok(with_expiration(properties, task.expires, now))
    } else {
        // The property would end it in its delay queue, and a delay queue's end is the work queue.
        Ok(with_deadline(properties, now.plus(task.delay).plus(task.expires)))
    }
}

/// Everything but headers, `expiration` and `user_id`; persistent, because the original may live in a queue that is.
/// A `reply_to` stays, so that the last attempt can still answer, unless the broker would refuse the copy for it.
fn kept(original: &BasicProperties) -> BasicProperties {
    let mut copy = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(reply_to) = original.reply_to().clone().filter(|to| !is_nowhere(to)) {
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

/// The producer's headers, what is known to be missing of them, and the deadline.
fn kept_headers(original: Original<'_>) -> FieldTable {
    let mut headers = producer_headers(original.properties);
    keep_notes(&mut headers, original.properties);
    if let Some(deadline) = deadline(original) {
        own::put_deadline(&mut headers, deadline);
    }
    headers
}

/// What earlier copies say about what is not as the producer sent it.
fn keep_notes(headers: &mut FieldTable, original: &BasicProperties) {
    for name in NOTES {
        if let Some(note) = own::note(original, name) {
            put(headers, name, bounded(&note));
        }
    }
}

/// The deadline that an earlier copy carries, else the original's `expiration` from when it was delivered.
fn deadline(original: Original<'_>) -> Option<UnixMs> {
    let Original { properties, received } = original;
    own::deadline(properties, received).or_else(|| {
        let expiration = properties.expiration().as_ref()?.as_str().parse().ok()?;
        Some(received.plus(Duration::from_millis(expiration)))
    })
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
    hex(&Sha256::digest(text.as_bytes()))
}

fn short(what: &str, value: &str) -> Result<ShortString, String> {
    ShortString::try_new(value).map_err(|_| {
        format!("the follow-up's {what} has {} bytes, AMQP allows 255: `{:.40}…`", value.len(), value)
    })
}
