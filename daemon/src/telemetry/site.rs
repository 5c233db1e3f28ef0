//! The places of the data path's lines, as `tracing` knows places: static, with their level, target and fields.
//!
//! A line of the data path is no `tracing` event when it is made, but it becomes one on the log thread, where
//! the journal's layer takes events only.

use tracing::subscriber::Interest;
use tracing::{Level, Metadata};
use tracing_core::field::FieldSet;
use tracing_core::{Callsite, Kind, identify_callsite};

use crate::config::log_level::{HANDLER, TASK};

/// The field for what handlers name themselves, as a JSON object: neither is its number bounded by Warren, nor
/// may its names pass for Warren's own.
pub(super) const HANDLER_FIELDS: &str = "handler_fields";

/// Every field that a line of the data path may have; the journal shows them in capitals.
const FIELDS: &[&str] = &[
    "message",
    "handler",
    "task_id",
    "queue",
    "outcome",
    "attempt",
    "duration_ms",
    "generation",
    "plugin_sha256",
    "trace_id",
    "bytes",
    "redelivered",
    "stream",
    "reason",
    "retry_in_ms",
    "for_ms",
    "why",
    "starts_cut_short",
    "code",
    "error",
    "lost",
    HANDLER_FIELDS,
];

static TASK_LINES: [Metadata<'static>; 5] = levels(TASK);
static HANDLER_LINES: [Metadata<'static>; 5] = levels(HANDLER);
/// Where the log tells of lines that it lost.
pub(super) static LOSS: Metadata<'static> = metadata(module_path!(), Level::WARN);

/// The place of a line about the life of a task.
pub(super) fn task(level: Level) -> &'static Metadata<'static> {
    &TASK_LINES[index(level)]
}

/// The place of a line that a handler logged or printed.
pub(super) fn handler(level: Level) -> &'static Metadata<'static> {
    &HANDLER_LINES[index(level)]
}

fn index(level: Level) -> usize {
    match level {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        Level::TRACE => 4,
    }
}

const fn levels(target: &'static str) -> [Metadata<'static>; 5] {
    [
        metadata(target, Level::ERROR),
        metadata(target, Level::WARN),
        metadata(target, Level::INFO),
        metadata(target, Level::DEBUG),
        metadata(target, Level::TRACE),
    ]
}

const fn metadata(target: &'static str, level: Level) -> Metadata<'static> {
    let fields = FieldSet::new(FIELDS, identify_callsite!(&SITE));
    Metadata::new("task line", target, level, None, None, None, fields, Kind::EVENT)
}

/// What the fields belong to. It is never registered, as its lines pass the filter of
/// [`TaskLog`](super::TaskLog) and no other.
struct Site {
    // A place without a size could have the address, and so the identity, of another one.
    _identity: u8,
}

static SITE: Site = Site { _identity: 0 };

impl Callsite for Site {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &LOSS
    }
}
