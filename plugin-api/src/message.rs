//! A follow-up task that a handler publishes.

use crate::abi::{self, Bytes};
use crate::hosting::FollowUp;
use crate::raw::field;
use std::time::Duration;

/// A follow-up task: sent only if the task it came from is done, and confirmed by the broker before that one
/// is acknowledged. The fields are what the methods of the same name set; `None` is the default each one
/// names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The body.
    pub body: Vec<u8>,
    /// Queue; `None`: the task's own.
    pub queue: Option<String>,
    /// Message id; `None`: `<task id>/<n>`, which a rerun repeats.
    pub id: Option<String>,
    /// AMQP `type`, by which it is routed in place of its text; `None`: by its text.
    pub message_type: Option<String>,
    /// AMQP `content_type`; `None`: none.
    pub content_type: Option<String>,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// Time before it becomes visible; `None`: at once.
    pub delay: Option<Duration>,
    /// Time until it expires; `None`: never.
    pub expires: Option<Duration>,
    /// AMQP priority; `None`: none.
    pub priority: Option<u8>,
}

impl Message {
    /// A follow-up with this body: text as a producer would send it, or any bytes if
    /// [`message_type`](Self::message_type) routes it.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// Sends it to another queue.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Gives it an id of its own. Make it the same on every attempt.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Routes it by AMQP `type` in place of its text.
    #[must_use]
    pub fn message_type(mut self, message_type: impl Into<String>) -> Self {
        self.message_type = Some(message_type.into());
        self
    }

    /// Sets the MIME type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((key.into(), value.into()));
        self
    }

    /// Keeps it back for this long: a quarter of a second more at most where the daemon consumes its queue, else
    /// rounded up to a delay there is a queue for, a day at most.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Lets it expire after this long.
    #[must_use]
    pub fn expires(mut self, expires: Duration) -> Self {
        self.expires = Some(expires);
        self
    }

    /// Sets its AMQP priority.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// The body as text, for tests; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Gives `f` the message as the ABI has it. It borrows from `self`, so it must not be kept.
    pub(crate) fn with_abi<R>(&self, f: impl FnOnce(&abi::Message) -> R) -> R {
        let headers: Vec<abi::Field> = self.headers.iter().map(|(key, value)| field(key, value)).collect();
        f(&abi::Message {
            struct_size: size_of::<abi::Message>() as u32,
            n_headers: headers.len() as u32,
            id: text(self.id.as_ref()),
            queue: text(self.queue.as_ref()),
            message_type: text(self.message_type.as_ref()),
            content_type: text(self.content_type.as_ref()),
            body: Bytes::of(&self.body),
            headers: headers.as_ptr(),
            delay_ms: self.delay.map_or(0, millis),
            expires_ms: self.expires.map_or(0, |expires| millis(expires).max(1)),
            priority: self.priority.map_or(-1, i32::from),
            reserved: 0,
        })
    }
}

impl From<&FollowUp<'_>> for Message {
    fn from(message: &FollowUp<'_>) -> Self {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let time = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        Self {
            body: message.body.to_vec(),
            queue: text(message.queue),
            id: text(message.id),
            message_type: text(message.message_type),
            content_type: text(&message.content_type),
            headers: message.headers.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
            delay: time(message.delay_ms),
            expires: time(message.expires_ms),
            priority: message.priority,
        }
    }
}

/// Whole milliseconds, rounded up, as the ABI counts them.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

fn text(text: Option<&String>) -> Bytes {
    text.map_or(Bytes::EMPTY, |text| Bytes::of(text.as_bytes()))
}
