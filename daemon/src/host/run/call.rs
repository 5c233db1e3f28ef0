//! The host that a plugin talks to: what it says goes to the daemon, within the bounds that
//! `warren_plugin::hosting` sets for every host. The plugin calls from any of its threads.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use warren_plugin::abi;
use warren_plugin::hosting::{CallError, CallRecord, Ending, FollowUp, FollowUps, Phase, PluginHost};

use super::{Shared, gate};
use crate::host::frame::{FollowUpFrame, from_host, put_bytes, put_frame};
use crate::model::{FaultCause, Outcome, TaskError};

/// Nanoseconds between two progress reports that pass: 10 a second are more than anybody reads.
const PROGRESS_EVERY_NS: i64 = 100_000_000;
/// Capacity for follow-ups that is kept from task to task.
const KEPT_CAPACITY: usize = 64 << 10;

/// The fields of follow-ups, ready for the report.
#[derive(Debug, Default)]
pub(super) struct FollowUpFields(pub(super) Vec<u8>);

impl FollowUps for FollowUpFields {
    fn push(&mut self, follow_up: &FollowUp<'_>) {
        let frame = FollowUpFrame {
            id: follow_up.id,
            queue: follow_up.queue,
            message_type: follow_up.message_type,
            content_type: &follow_up.content_type,
            body: follow_up.body,
            delay_ms: follow_up.delay_ms,
            expires_ms: follow_up.expires_ms,
            priority: follow_up.priority.map_or(-1, i32::from),
            headers: &follow_up.headers,
        };
        frame.put(&mut self.0);
    }

    fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(KEPT_CAPACITY);
    }
}

/// What the running call has said so far.
#[derive(Debug, Default)]
struct Said {
    record: CallRecord<FollowUpFields>,
    /// When its last progress passed.
    progress_ns: i64,
}

/// The record of the running call.
#[derive(Debug, Default)]
pub(super) struct Sinks(Mutex<Said>);

impl Sinks {
    /// A call begins.
    pub(super) fn open(&self, phase: Phase) {
        self.lock().record.open(phase);
    }

    /// The call has returned: from now on what is said is ignored. `read` is given what was said.
    pub(super) fn close<T>(&self, read: impl FnOnce(&mut CallRecord<FollowUpFields>) -> T) -> T {
        let mut said = self.lock();
        let result = read(&mut said.record);
        said.record.close();
        said.progress_ns = 0;
        result
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PluginHost for Shared {
    type FollowUps = FollowUpFields;

    fn with_record<T>(&self, f: impl FnOnce(&mut CallRecord<FollowUpFields>) -> T) -> T {
        f(&mut self.sinks.lock().record)
    }

    fn cancelled(&self) -> bool {
        self.gate.cancelled()
    }

    fn progress(&self, permille: u32, note: &str) {
        let (seq, now) = (self.gate.running(), gate::now_ns());
        {
            let mut said = self.sinks.lock();
            let closed = seq == 0 || said.record.phase() == Phase::Closed;
            if closed || now < said.progress_ns + PROGRESS_EVERY_NS {
                return;
            }
            said.progress_ns = now;
        }
        self.outbox.append(|out| {
            put_frame(out, from_host::PROGRESS, |out| {
                out.extend_from_slice(&seq.to_le_bytes());
                out.extend_from_slice(&permille.to_le_bytes());
                put_bytes(out, note.as_bytes());
            });
        });
        self.gate.flush_soon();
    }

    /// The line reaches the daemon as far as the bounds of the task allow it.
    fn log(&self, level: i32, message: &str, fields: &[(Cow<'_, str>, Cow<'_, str>)]) {
        if !self.send_log(level, message, fields) {
            return;
        }
        if level <= abi::LOG_WARN {
            // The next thing the handler does may be to crash, and this line may say why.
            self.outbox.flush();
        } else {
            self.gate.flush_soon();
        }
    }
}

/// How the daemon is told of an ending.
pub(super) fn outcome_of(ending: Ending) -> Outcome {
    match ending {
        Ending::Done => Outcome::Done,
        Ending::Retry => Outcome::Retry,
        Ending::Reject => Outcome::Reject,
        Ending::Cancelled => Outcome::Cancelled,
        Ending::TimedOut => Outcome::TimedOut,
        Ending::HandlerFault => Outcome::Fault(FaultCause::Returned),
        Ending::ContractFault => Outcome::Fault(FaultCause::Contract),
    }
}

impl From<CallError> for TaskError {
    fn from(error: CallError) -> Self {
        Self { code: error.code, message: error.message, retry_after: error.retry_after }
    }
}
