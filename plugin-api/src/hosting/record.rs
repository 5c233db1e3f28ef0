//! What a plugin said during one call, within the bounds, and what the call came to.

use super::bounded_text;
use crate::abi::{self, fault};
use crate::answer;
use std::borrow::Cow;
use std::time::Duration;

/// Capacity of a result that is kept from call to call.
const KEPT_CAPACITY: usize = 64 << 10;

/// Which of the plugin's functions runs, and so what it may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// No call runs: what is said is ignored.
    #[default]
    Closed,
    /// `create` or `quiesce`: errors and progress only.
    Setup,
    /// `handle`: everything.
    Handle,
}

/// Why a task had to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The handler was asked to.
    Asked,
    /// Nobody had asked, and its deadline had passed.
    Deadline,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The task is done.
    Done,
    /// To be tried again.
    Retry,
    /// Never to be tried again.
    Reject,
    /// The handler stopped because it was asked to.
    Cancelled,
    /// The handler stopped because its deadline had passed.
    TimedOut,
    /// The handler says that it is broken: a panic that the SDK caught, above all.
    HandlerFault,
    /// The handler broke the ABI's contract: an unknown status, a bound, a function called where it must not be.
    ContractFault,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// A word for machines.
    pub code: String,
    /// A line for people.
    pub message: String,
    /// The delay that the handler asks for before the next attempt.
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// Without a wish for a delay.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), retry_after: None }
    }

    /// As `set_error` is given it.
    pub(super) fn bounded(code: &[u8], message: &[u8], retry_after_ms: i64) -> Self {
        Self {
            code: bounded_text(code, abi::MAX_WORD_BYTES).into_owned(),
            message: bounded_text(message, abi::MAX_ERROR_BYTES).into_owned(),
            retry_after: u64::try_from(retry_after_ms).ok().filter(|&ms| ms > 0).map(Duration::from_millis),
        }
    }
}

/// A follow-up within the bounds; empty text and zero durations mean none.
#[derive(Debug)]
pub struct FollowUp<'a> {
    /// Message id.
    pub id: &'a str,
    /// Queue.
    pub queue: &'a str,
    /// AMQP `type`.
    pub message_type: &'a str,
    /// AMQP `content_type`.
    pub content_type: Cow<'a, str>,
    /// The body.
    pub body: &'a [u8],
    /// Headers, in order.
    pub headers: Vec<(&'a str, &'a str)>,
    /// Milliseconds before it becomes visible.
    pub delay_ms: u64,
    /// Milliseconds until it expires.
    pub expires_ms: u64,
    /// AMQP priority.
    pub priority: Option<u8>,
}

/// Where a host keeps the follow-ups of a call.
pub trait FollowUps: Default {
    /// Copies one that was accepted.
    fn push(&mut self, follow_up: &FollowUp<'_>);
    /// Forgets all of them.
    fn clear(&mut self);
}

/// What a plugin said during one call. A host keeps one and reuses it.
#[derive(Debug, Default)]
pub struct CallRecord<F> {
    phase: Phase,
    error: Option<CallError>,
    /// The first bound or rule that was broken: it overrules whatever the plugin returns.
    broken: Option<CallError>,
    has_result: bool,
    content_type: String,
    body: Vec<u8>,
    follow_ups: F,
    n_follow_ups: usize,
    follow_up_bytes: usize,
}

impl<F: FollowUps> CallRecord<F> {
    /// A call begins.
    pub fn open(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// The call has returned: what it said is forgotten, and from now on whatever is said is ignored.
    pub fn close(&mut self) {
        self.phase = Phase::Closed;
        self.error = None;
        self.broken = None;
        self.has_result = false;
        if self.body.capacity() > 0 {
            self.body.clear();
            self.body.shrink_to(KEPT_CAPACITY);
        }
        if self.n_follow_ups > 0 {
            self.follow_ups.clear();
        }
        self.n_follow_ups = 0;
        self.follow_up_bytes = 0;
    }

    /// Which call runs.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Content type and body of the result, if one was set.
    pub fn result(&self) -> Option<(&str, &[u8])> {
        self.has_result.then_some((&self.content_type, &self.body))
    }

    /// The follow-ups, and how many they are.
    pub fn follow_ups(&self) -> (usize, &F) {
        (self.n_follow_ups, &self.follow_ups)
    }

    /// What the status of `handle` (or `quiesce`) means, given whether the handler had to stop and what it said.
    pub fn verdict(&mut self, status: i32, stop: Option<StopReason>) -> (Ending, Option<CallError>) {
        if let Some(broken) = self.broken.take() {
            return (Ending::ContractFault, Some(broken));
        }
        let error = self.error.take();
        let broken = |code, message: String| (Ending::ContractFault, Some(CallError::new(code, message)));
        match (status, stop) {
            (abi::DONE, _) => (Ending::Done, None),
            (abi::RETRY, _) => (Ending::Retry, error),
            (abi::REJECT, _) => (Ending::Reject, error),
            (abi::CANCELLED, Some(StopReason::Asked)) => (Ending::Cancelled, error),
            (abi::CANCELLED, Some(StopReason::Deadline)) => {
                let message =
                    error.map_or_else(|| "stopped at its time limit".to_owned(), |error| error.message);
                (Ending::TimedOut, Some(CallError::new("timeout", message)))
            }
            (abi::CANCELLED, None) => broken(
                fault::NOT_CANCELLED,
                "the handler says cancelled, but nobody asked it to stop".to_owned(),
            ),
            (abi::FAULT, _) => {
                let silent = || CallError::new("fault", "the handler returned a fault and said nothing");
                (Ending::HandlerFault, Some(error.unwrap_or_else(silent)))
            }
            _ => broken(fault::UNKNOWN_STATUS, format!("the handler returned {status}, which is no status")),
        }
    }

    /// What the status of `create` means; the error has what an operator should be told.
    pub fn created(&mut self, status: i32, has_instance: bool) -> Result<(), (Ending, CallError)> {
        if let Some(broken) = self.broken.take() {
            return Err((Ending::ContractFault, broken));
        }
        if status == abi::DONE && has_instance {
            return Ok(());
        }
        if status == abi::DONE {
            let error = CallError::new(fault::ABI, "create succeeded, but made no instance");
            return Err((Ending::ContractFault, error));
        }
        let silent = || CallError::new("create", format!("create returned {status} and said nothing"));
        let ending = match status {
            abi::RETRY => Ending::Retry,
            abi::REJECT => Ending::Reject,
            _ => Ending::HandlerFault,
        };
        Err((ending, self.error.take().unwrap_or_else(silent)))
    }

    /// Whether the result was taken. The caller has brought it within the bounds.
    pub(super) fn set_result(&mut self, content_type: &str, body: &[u8]) -> bool {
        match self.phase {
            Phase::Closed => return false,
            Phase::Setup => {
                self.breaks(fault::NOT_ALLOWED, "set_result outside of handle".to_owned());
                return false;
            }
            Phase::Handle => {}
        }
        self.content_type.clear();
        self.content_type.push_str(content_type);
        self.body.clear();
        self.body.extend_from_slice(body);
        self.has_result = true;
        true
    }

    pub(super) fn set_error(&mut self, error: CallError) {
        if self.phase != Phase::Closed {
            self.error = Some(error);
        }
    }

    /// Takes a follow-up, or returns one of the `PUBLISH_` codes.
    ///
    /// # Safety
    /// `message` is null, or points to a `warren_message` that is valid during this call.
    pub(super) unsafe fn publish_raw(&mut self, message: *const abi::Message) -> i32 {
        if self.phase != Phase::Handle {
            if self.phase == Phase::Setup {
                self.breaks(fault::NOT_ALLOWED, "publish outside of handle".to_owned());
            }
            return abi::PUBLISH_NOT_ALLOWED;
        }
        if message.is_null() {
            return abi::PUBLISH_INVALID;
        }
        // SAFETY: not null, so a message of some version, valid during this call.
        let message = unsafe { abi::read_sized(message) };
        let n = if message.headers.is_null() { 0 } else { message.n_headers as usize };
        if n > abi::MAX_FOLLOW_UP_PROPERTIES {
            self.breaks(fault::OVERSIZE, format!("a follow-up with {n} headers"));
            return abi::PUBLISH_TOO_LARGE;
        }
        // SAFETY: by the message's contract its texts and its `n` headers are valid during this call.
        match unsafe { FollowUp::checked(&message, n) } {
            Some(follow_up) => self.publish(&follow_up),
            None => abi::PUBLISH_INVALID,
        }
    }

    fn publish(&mut self, follow_up: &FollowUp<'_>) -> i32 {
        if self.n_follow_ups == abi::MAX_FOLLOW_UPS {
            self.breaks(fault::OVERSIZE, format!("more than {} follow-ups", abi::MAX_FOLLOW_UPS));
            return abi::PUBLISH_TOO_MANY;
        }
        let properties = follow_up.properties_len();
        let (body, bodies) = (follow_up.body.len(), self.follow_up_bytes + follow_up.body.len());
        if body > abi::MAX_FOLLOW_UP_BYTES
            || properties > abi::MAX_FOLLOW_UP_PROPERTIES
            || bodies > abi::MAX_FOLLOW_UPS_BYTES
        {
            let what =
                format!("a follow-up of {body} bytes with {properties} of properties, {bodies} in one task");
            self.breaks(fault::OVERSIZE, what);
            return abi::PUBLISH_TOO_LARGE;
        }
        self.follow_ups.push(follow_up);
        self.n_follow_ups += 1;
        self.follow_up_bytes = bodies;
        abi::PUBLISH_OK
    }

    fn breaks(&mut self, code: &str, message: String) {
        self.broken.get_or_insert_with(|| CallError::new(code, message));
    }
}

impl<'a> FollowUp<'a> {
    /// The follow-up, unless it is malformed.
    ///
    /// # Safety
    /// The texts of `message` and its first `n_headers` headers are valid during `'a`.
    unsafe fn checked(message: &abi::Message, n_headers: usize) -> Option<Self> {
        // What routes or names cannot be shortened, and AMQP has no room for more. What no bound would take is not
        // malformed, but too large.
        let is_word =
            |text: &&str| !(abi::MAX_WORD_BYTES + 1..=abi::MAX_FOLLOW_UP_PROPERTIES).contains(&text.len());
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok();
        // SAFETY: the caller's promise.
        unsafe {
            let headers = (0..n_headers)
                .map(|i| message.headers.add(i).read())
                .map(|field| {
                    Some((text(field.key.as_slice()).filter(is_word)?, text(field.value.as_slice())?))
                })
                .collect::<Option<_>>()?;
            Some(Self {
                id: text(message.id.as_slice())?,
                queue: text(message.queue.as_slice()).filter(is_word)?,
                message_type: text(message.message_type.as_slice()).filter(is_word)?,
                content_type: answer::bounded_type(message.content_type.as_slice()),
                body: message.body.as_slice(),
                headers,
                delay_ms: u64::try_from(message.delay_ms).ok()?,
                expires_ms: u64::try_from(message.expires_ms).ok()?,
                priority: match message.priority {
                    ..0 => None,
                    priority => Some(u8::try_from(priority).ok()?),
                },
            })
        }
    }

    fn properties_len(&self) -> usize {
        let words = [self.id, self.queue, self.message_type, &self.content_type];
        let headers = self.headers.iter().flat_map(|&(key, value)| [key, value]);
        words.into_iter().chain(headers).map(str::len).sum()
    }
}

#[cfg(test)]
mod tests;
