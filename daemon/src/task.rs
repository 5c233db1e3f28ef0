//! A task as its text and properties say: label stripped, identity and attempt read. Pure.

mod headers;
pub mod own;
pub mod sameness;
#[cfg(test)]
mod tests;
pub mod trace;
mod value;

use std::sync::Arc;

use lapin::BasicProperties;
use uuid::Uuid;

pub use headers::{Headers, MAX_HEADER_BYTES, MAX_HEADERS, is_transport_header};
pub(crate) use value::header;
pub use value::header_json;

use crate::model::{DeadReason, TaskId, UnixMs};
use crate::router::{Router, split_label, trim_newline};

/// Who a delivered task is and where in its life it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub id: TaskId,
    /// Attempt, from 1 to [`MAX_COUNT`](own::MAX_COUNT).
    pub attempt: u32,
    /// How often its start was cut short, at most [`MAX_COUNT`](own::MAX_COUNT).
    pub redeliveries: u32,
}

/// A task with its place to go. Everything is borrowed from the delivery and the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed<'r, 'b> {
    /// The handler's index as the router was given it.
    pub handler: usize,
    /// The prefix that matched.
    pub prefix: &'r Arc<str>,
    /// What follows the prefix, trimmed; empty where the property `type` decided.
    pub argument: &'b str,
}

/// A task that no handler is to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The dead letter's reason.
    pub reason: DeadReason,
    /// One line for people: what is wrong and where to look.
    pub message: String,
}

/// Reads identity and counts from a delivery's properties. What cannot be read counts as absent: a task with that is a
/// dead letter ([`own::times`]), and a dead letter has an identity, too. A task without an id gets one, made of the time and
/// of `random`.
pub fn identify(properties: &BasicProperties, now: UnixMs, random: &mut fastrand::Rng) -> Identity {
    let headers = properties.headers().as_ref();
    Identity {
        id: known_id(properties).unwrap_or_else(|| TaskId { text: new_id(now, random), generated: true }),
        attempt: own::count(headers, own::HEADER_ATTEMPT).max(1),
        redeliveries: own::count(headers, own::HEADER_REDELIVERIES),
    }
}

/// The id that a message already has: the producer's, else the one that an earlier copy was given.
pub fn known_id(properties: &BasicProperties) -> Option<TaskId> {
    let given = properties.message_id().as_ref().map(lapin::types::ShortString::as_str).unwrap_or_default();
    if given.is_empty() {
        let ours = own::id(properties.headers().as_ref())?;
        return Some(TaskId { text: Arc::from(ours), generated: true });
    }
    Some(TaskId { text: Arc::from(given), generated: false })
}

/// Whether a message has an id already.
pub fn has_known_id(properties: &BasicProperties) -> bool {
    properties.message_id().as_ref().is_some_and(|id| !id.as_str().is_empty())
        || own::id(properties.headers().as_ref()).is_some()
}

/// Finds the handler of a delivery from `queue`, or the reason why it is dead. Allocates only for a refusal.
pub fn route<'r, 'b>(
    router: &'r Router,
    queue: &str,
    properties: &BasicProperties,
    body: &'b [u8],
    max_task_bytes: u64,
) -> Result<Routed<'r, 'b>, Refusal> {
    if body.len() as u64 > max_task_bytes {
        let message = format!(
            "the body has {} bytes, `daemon.max_task_bytes` allows {max_task_bytes}; \
             keep the data elsewhere and publish where it is",
            body.len()
        );
        return Err(Refusal { reason: DeadReason::TooLarge, message });
    }
    let message_type = properties.kind().as_ref().map(lapin::types::ShortString::as_str);
    match router.route(queue, message_type, body) {
        Some(found) if found.by_type => {
            Ok(Routed { handler: found.handler, prefix: found.prefix, argument: "" })
        }
        found => {
            // Checked whole, not only from the prefix on: what stands before it is text as well.
            let text = std::str::from_utf8(body).map_err(|error| Refusal::malformed(&error))?;
            let found = found.ok_or_else(|| Refusal::unroutable(queue, message_type, text))?;
            Ok(Routed { handler: found.handler, prefix: found.prefix, argument: &text[found.argument] })
        }
    }
}

impl Refusal {
    /// A header of ours cannot be used as it stands.
    pub fn unusable(why: &own::Unusable) -> Self {
        let message =
            format!("{why}; correct it and publish the task anew (a replay starts it at once, without it)");
        Self { reason: DeadReason::Malformed, message }
    }

    fn malformed(error: &std::str::Utf8Error) -> Self {
        let message = format!(
            "the text is not UTF-8 from byte {} on; publish text as UTF-8, or name the handler's prefix in the \
             property `type` and send any bytes",
            error.valid_up_to()
        );
        Self { reason: DeadReason::Malformed, message }
    }

    /// A message that lost something when it was made readable (see `broker::wire`).
    pub fn unreadable(description: &str) -> Self {
        let message = format!(
            "the message's properties cannot be read as they were sent, and a part of them is missing: {description}"
        );
        Self { reason: DeadReason::Malformed, message }
    }

    fn unroutable(queue: &str, message_type: Option<&str>, text: &str) -> Self {
        let bytes = trim_newline(text.as_bytes());
        let of_type = message_type.map(|name| format!(" nor its type `{name}`")).unwrap_or_default();
        let message = if bytes.trim_ascii().is_empty() {
            format!(
                "the task is empty{}",
                if of_type.is_empty() { "" } else { " and nothing takes its type" }
            )
        } else if split_label(bytes).is_empty() {
            "the task is a label and nothing else".to_owned()
        } else if text.starts_with('\u{feff}') {
            // Part of the text like any other character: two tasks that differ in it are two.
            format!(
                "no handler of queue `{queue}` takes it: its text begins with a byte order mark (U+FEFF, the bytes \
                 EF BB BF), and no registered prefix does; publish it without"
            )
        } else {
            format!(
                "no handler of queue `{queue}` takes it: neither its text{of_type} begins with a registered \
                 prefix; `warrenctl route` says why"
            )
        };
        Self { reason: DeadReason::Unroutable, message }
    }
}

/// [`identify`] as tests want it.
#[cfg(test)]
pub(crate) fn identified(properties: &BasicProperties) -> Identity {
    identify(properties, UnixMs::now(), &mut fastrand::Rng::new())
}

/// A UUID of version 7. `random` decides all but the time of it.
fn new_id(now: UnixMs, random: &mut fastrand::Rng) -> Arc<str> {
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    let id = uuid::Builder::from_unix_timestamp_millis(now.0, &bytes).into_uuid();
    let mut buffer = Uuid::encode_buffer();
    Arc::from(&*id.hyphenated().encode_lower(&mut buffer))
}
