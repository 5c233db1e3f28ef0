//! How Warren's own headers are written into a copy, and how what they record of failures is read. Pure.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use super::{
    HEADER_ATTEMPT, HEADER_COPY, HEADER_DEADLINE, HEADER_DUE, HEADER_ERROR, HEADER_ERROR_CODE,
    HEADER_FIRST_FAILURE, HEADER_HANDLER, HEADER_ID, HEADER_LAST_FAILURE, HEADER_REDELIVERIES, HEADER_SENT,
    MAX_COUNT, count, note, past,
};
use crate::model::{TaskId, UnixMs};
use crate::text::cut;

/// Text of ours is cut to this many bytes per header: headers travel in one frame.
pub const MAX_TEXT_BYTES: usize = 1024;

/// One failure, for people and for `warrenctl`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failure<'a> {
    /// The handler; empty when none took it.
    pub handler: &'a str,
    pub code: &'a str,
    /// One line.
    pub message: &'a str,
}

impl Failure<'_> {
    /// Writes what of it is not empty.
    pub fn put(&self, headers: &mut FieldTable) {
        let texts =
            [(HEADER_HANDLER, self.handler), (HEADER_ERROR_CODE, self.code), (HEADER_ERROR, self.message)];
        for (name, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
            put(headers, name, bounded(value));
        }
    }
}

/// The last failure that a copy records, and the times of the first and the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedFailure {
    /// The handler that failed last.
    pub handler: Option<String>,
    /// The last failure's code.
    pub code: Option<String>,
    /// The last failure's message.
    pub message: Option<String>,
    /// When it failed for the first time, to the second.
    pub first: Option<UnixMs>,
    /// When it failed for the last time, to the second.
    pub last: Option<UnixMs>,
}

impl RecordedFailure {
    /// Reads it. Nothing hangs on it.
    pub fn read(properties: &BasicProperties) -> Self {
        Self {
            handler: note(properties, HEADER_HANDLER),
            code: note(properties, HEADER_ERROR_CODE),
            message: note(properties, HEADER_ERROR),
            first: past(properties, HEADER_FIRST_FAILURE),
            last: past(properties, HEADER_LAST_FAILURE),
        }
    }

    pub fn put(&self, headers: &mut FieldTable) {
        for (name, time) in [(HEADER_FIRST_FAILURE, self.first), (HEADER_LAST_FAILURE, self.last)] {
            if let Some(time) = time {
                put(headers, name, AMQPValue::Timestamp(time.seconds()));
            }
        }
        let failure = Failure {
            handler: self.handler.as_deref().unwrap_or_default(),
            code: self.code.as_deref().unwrap_or_default(),
            message: self.message.as_deref().unwrap_or_default(),
        };
        failure.put(headers);
    }
}

/// Records a failure, after those that `original` records.
pub fn put_failure(headers: &mut FieldTable, original: &BasicProperties, failure: &Failure<'_>, now: UnixMs) {
    let first = past(original, HEADER_FIRST_FAILURE).unwrap_or(now);
    put(headers, HEADER_FIRST_FAILURE, AMQPValue::Timestamp(first.seconds()));
    put(headers, HEADER_LAST_FAILURE, AMQPValue::Timestamp(now.seconds()));
    failure.put(headers);
}

/// Which attempt a copy is, how often its start was cut short, and its id if that is one of ours.
pub fn put_identity(headers: &mut FieldTable, id: &TaskId, attempt: u32, redeliveries: u32) {
    put(headers, HEADER_ATTEMPT, count_value(attempt));
    if redeliveries > 0 {
        put(headers, HEADER_REDELIVERIES, count_value(redeliveries));
    }
    if id.generated {
        put(headers, HEADER_ID, text(&id.text));
    }
}

/// Which copy it is. The count begins anew after [`MAX_COUNT`]: it has to differ from the one before, no more.
pub fn put_copy(headers: &mut FieldTable, original: &BasicProperties) {
    let before = count(original.headers().as_ref(), HEADER_COPY);
    put(headers, HEADER_COPY, count_value(before % MAX_COUNT + 1));
}

/// When a copy is due, and when it was written if the due time was reckoned from then.
pub fn put_due(headers: &mut FieldTable, due: UnixMs, sent: Option<UnixMs>) {
    put(headers, HEADER_DUE, time_value(due));
    if let Some(sent) = sent {
        put(headers, HEADER_SENT, time_value(sent));
    }
}

/// When a copy expires.
pub fn put_deadline(headers: &mut FieldTable, deadline: UnixMs) {
    put(headers, HEADER_DEADLINE, time_value(deadline));
}

/// Writes a header of ours.
pub fn put(headers: &mut FieldTable, name: &'static str, value: AMQPValue) {
    headers.insert(ShortString::from(name), value);
}

/// Signed 32 bits: every client and the management page reads it.
pub fn count_value(number: u32) -> AMQPValue {
    AMQPValue::LongInt(i32::try_from(number).unwrap_or(i32::MAX))
}

/// A time as it is written.
pub fn time_value(time: UnixMs) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(time.0).unwrap_or(i64::MAX))
}

/// Text as it is written.
pub fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// The same, cut to [`MAX_TEXT_BYTES`].
pub fn bounded(value: &str) -> AMQPValue {
    text(cut(value, MAX_TEXT_BYTES))
}
