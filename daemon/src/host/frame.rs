//! The frames between the daemon and a plugin host: a little-endian length, a kind, and fields one after the
//! other. The format is private and has no version, because both ends are always the same executable. Reading
//! never trusts the other end: a frame that does not parse is an error, not a panic, as a handler may have
//! scribbled over the host's memory.

mod fields;

use std::time::Duration;

use fields::put_part;
pub(super) use fields::{Buffer, FieldReader, Malformed, put_bytes, put_frame};

use super::{HostTask, OutputBounds, Report, Seq};
use crate::model::{FaultCause, FollowUp, Outcome, TaskError, TaskResult};

/// Most bytes of a frame to a host: a task is bounded by `daemon.max_task_bytes` long before.
pub(super) const MAX_TO_HOST: usize = 256 << 20;
/// Most bytes of a frame from a host: 16 MiB of follow-up bodies, 1,000 × 4 KiB of their properties, a
/// result, and room for the lengths of thousands of empty headers.
pub(super) const MAX_FROM_HOST: usize = 64 << 20;

/// Kinds of frames to a host.
pub(super) mod to_host {
    pub(in crate::host) const INIT: u8 = 1;
    pub(in crate::host) const TASK: u8 = 2;
    pub(in crate::host) const QUIT: u8 = 3;
}

/// Kinds of frames from a host.
pub(super) mod from_host {
    pub(in crate::host) const READY: u8 = 65;
    pub(in crate::host) const REPORT: u8 = 66;
    pub(in crate::host) const PROGRESS: u8 = 67;
    pub(in crate::host) const LOG: u8 = 68;
    pub(in crate::host) const CREATE_FAILED: u8 = 69;
    pub(in crate::host) const WITHDRAWN: u8 = 70;
    /// No code of the plugin's has run.
    pub(in crate::host) const SETUP_FAILED: u8 = 71;
}

const FLAG_REDELIVERED: u8 = 1;
const FLAG_ID_GENERATED: u8 = 2;
const FLAG_WANTS_RESULT: u8 = 4;

const HAS_ERROR: u8 = 1;
const HAS_RESULT: u8 = 2;
const HAS_FOLLOW_UPS: u8 = 4;

/// Nanoseconds, cut at what fits: 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a host must know before it can load its plugin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Init {
    /// The daemon's pid: a host with another parent lost the daemon before it could ask to die with it.
    pub(super) parent: u32,
    pub(super) handler: String,
    pub(super) settings_json: String,
    pub(super) create_timeout: Duration,
    /// Deadline of `quiesce`.
    pub(super) grace: Duration,
    /// Bytes of data that the host and each process it starts may have; 0: unbounded, or bounded by its group.
    pub(super) memory: u64,
    /// CPU time per task; zero: unbounded.
    pub(super) cpu_time: Duration,
    /// Open files.
    pub(super) max_files: u32,
    /// What a task may log.
    pub(super) output: OutputBounds,
}

impl Init {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_frame(out, to_host::INIT, |out| {
            out.extend_from_slice(&self.parent.to_le_bytes());
            out.extend_from_slice(&nanos(self.create_timeout).to_le_bytes());
            out.extend_from_slice(&nanos(self.grace).to_le_bytes());
            out.extend_from_slice(&self.memory.to_le_bytes());
            out.extend_from_slice(&nanos(self.cpu_time).to_le_bytes());
            out.extend_from_slice(&self.max_files.to_le_bytes());
            out.extend_from_slice(&self.output.bytes.to_le_bytes());
            out.extend_from_slice(&self.output.lines.to_le_bytes());
            put_bytes(out, self.handler.as_bytes());
            put_bytes(out, self.settings_json.as_bytes());
        });
    }

    pub(super) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut r = FieldReader(payload);
        let init = Self {
            parent: r.u32()?,
            create_timeout: Duration::from_nanos(r.u64()?),
            grace: Duration::from_nanos(r.u64()?),
            memory: r.u64()?,
            cpu_time: Duration::from_nanos(r.u64()?),
            max_files: r.u32()?,
            output: OutputBounds { bytes: r.u64()?, lines: r.u64()? },
            handler: r.text()?,
            settings_json: r.text()?,
        };
        r.end()?;
        Ok(init)
    }
}

pub(super) fn put_task(out: &mut Vec<u8>, task: &HostTask<'_>) {
    let strings = task.id.len() + task.queue.len() + task.prefix.len() + task.content_type.len();
    out.reserve(strings + task.body.len() + 64);
    put_frame(out, to_host::TASK, |out| {
        let mut flags = 0;
        flags |= if task.redelivered { FLAG_REDELIVERED } else { 0 };
        flags |= if task.id_generated { FLAG_ID_GENERATED } else { 0 };
        flags |= if task.wants_result { FLAG_WANTS_RESULT } else { 0 };
        out.extend_from_slice(&task.seq.to_le_bytes());
        out.extend_from_slice(&nanos(task.timeout).to_le_bytes());
        out.extend_from_slice(&task.attempt.to_le_bytes());
        out.push(flags);
        for text in [task.id, task.queue, task.prefix, task.content_type] {
            put_bytes(out, text.as_bytes());
        }
        put_bytes(out, task.body);
        put_part(out, task.argument.as_bytes(), task.body);
        out.extend_from_slice(&(task.headers.len() as u32).to_le_bytes());
        for (key, value) in task.headers {
            put_bytes(out, key.as_bytes());
            put_bytes(out, value.as_bytes());
        }
    });
}

/// Appends a line that a handler logs.
pub(super) fn put_log<T: AsRef<str>>(
    out: &mut Vec<u8>,
    seq: Seq,
    level: i32,
    message: &str,
    fields: &[(T, T)],
) {
    put_frame(out, from_host::LOG, |out| {
        out.extend_from_slice(&seq.to_le_bytes());
        out.extend_from_slice(&level.to_le_bytes());
        put_bytes(out, message.as_bytes());
        out.extend_from_slice(&(fields.len() as u32).to_le_bytes());
        for (key, value) in fields {
            put_bytes(out, key.as_ref().as_bytes());
            put_bytes(out, value.as_ref().as_bytes());
        }
    });
}

/// What a line counts for, against the bounds on them.
pub(super) fn log_bytes<T: AsRef<str>>(message: &str, fields: &[(T, T)]) -> u64 {
    let fields = fields.iter().flat_map(|(key, value)| [key, value]);
    (message.len() + fields.map(|text| text.as_ref().len()).sum::<usize>()) as u64
}

/// Appends the order to finish what was sent and end.
pub(super) fn put_quit(out: &mut Vec<u8>) {
    put_frame(out, to_host::QUIT, |_| {});
}

/// A message on the control socket: stop this task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ControlMessage {
    pub(super) seq: Seq,
    /// If it runs already, too; else only if it still waits.
    pub(super) started_too: bool,
}

impl ControlMessage {
    /// Every message has this many bytes.
    pub(super) const LEN: usize = 9;

    pub(super) fn bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [u8::from(self.started_too); Self::LEN];
        bytes[1..].copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }

    pub(super) fn parse([started_too, seq @ ..]: [u8; Self::LEN]) -> Self {
        Self { seq: u64::from_le_bytes(seq), started_too: started_too != 0 }
    }
}

/// A task as the host reads it: everything points into the read buffer.
#[derive(Debug)]
pub(super) struct TaskFrame<'a> {
    pub(super) seq: Seq,
    pub(super) timeout: Duration,
    pub(super) attempt: u32,
    pub(super) redelivered: bool,
    pub(super) id_generated: bool,
    pub(super) wants_result: bool,
    pub(super) id: &'a [u8],
    pub(super) queue: &'a [u8],
    pub(super) prefix: &'a [u8],
    pub(super) argument: &'a [u8],
    pub(super) content_type: &'a [u8],
    pub(super) body: &'a [u8],
    pub(super) n_headers: u32,
    /// Keys and values in turn.
    pub(super) headers: FieldReader<'a>,
}

impl<'a> TaskFrame<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = FieldReader(payload);
        let (seq, timeout, attempt, flags) = (r.u64()?, Duration::from_nanos(r.u64()?), r.u32()?, r.u8()?);
        let (id, queue, prefix, content_type) = (r.bytes()?, r.bytes()?, r.bytes()?, r.bytes()?);
        let body = r.bytes()?;
        Ok(Self {
            seq,
            timeout,
            attempt,
            redelivered: flags & FLAG_REDELIVERED != 0,
            id_generated: flags & FLAG_ID_GENERATED != 0,
            wants_result: flags & FLAG_WANTS_RESULT != 0,
            id,
            queue,
            prefix,
            content_type,
            body,
            argument: r.part(body)?,
            n_headers: r.u32()?,
            headers: r,
        })
    }
}

/// A report as the host writes it; `follow_ups` are frames' fields already, made when they were published.
#[derive(Debug)]
pub(super) struct ReportFrame<'a> {
    pub(super) seq: Seq,
    pub(super) outcome: Outcome,
    pub(super) duration: Duration,
    pub(super) error: Option<&'a TaskError>,
    /// Content type and body.
    pub(super) result: Option<(&'a str, &'a [u8])>,
    pub(super) n_follow_ups: u32,
    pub(super) follow_ups: &'a [u8],
}

impl ReportFrame<'_> {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_frame(out, from_host::REPORT, |out| {
            let mut flags = 0;
            flags |= if self.error.is_some() { HAS_ERROR } else { 0 };
            flags |= if self.result.is_some() { HAS_RESULT } else { 0 };
            flags |= if self.n_follow_ups > 0 { HAS_FOLLOW_UPS } else { 0 };
            out.extend_from_slice(&[outcome_code(self.outcome), flags]);
            out.extend_from_slice(&self.seq.to_le_bytes());
            out.extend_from_slice(&nanos(self.duration).to_le_bytes());
            if let Some(error) = self.error {
                put_error(out, error);
            }
            if let Some((content_type, body)) = self.result {
                put_bytes(out, content_type.as_bytes());
                put_bytes(out, body);
            }
            if self.n_follow_ups > 0 {
                out.extend_from_slice(&self.n_follow_ups.to_le_bytes());
                out.extend_from_slice(self.follow_ups);
            }
        });
    }
}

pub(super) fn parse_report(payload: &[u8]) -> Result<Report, Malformed> {
    let mut r = FieldReader(payload);
    let outcome = parse_outcome(r.u8()?)?;
    let flags = r.u8()?;
    let seq = r.u64()?;
    let duration = Duration::from_nanos(r.u64()?);
    let error = (flags & HAS_ERROR != 0).then(|| parse_error(&mut r)).transpose()?;
    let mut result = None;
    if flags & HAS_RESULT != 0 {
        result = Some(TaskResult { content_type: r.text()?, body: r.bytes()?.to_vec() });
    }
    let mut follow_ups = Vec::new();
    if flags & HAS_FOLLOW_UPS != 0 {
        for _ in 0..r.u32()? {
            follow_ups.push(parse_follow_up(&mut r)?);
        }
    }
    r.end()?;
    Ok(Report { seq, outcome, error, result, follow_ups, duration })
}

pub(super) struct FollowUpFrame<'a> {
    pub(super) id: &'a str,
    pub(super) queue: &'a str,
    pub(super) message_type: &'a str,
    pub(super) content_type: &'a str,
    pub(super) body: &'a [u8],
    pub(super) delay_ms: u64,
    pub(super) expires_ms: u64,
    pub(super) priority: i32,
    pub(super) headers: &'a [(&'a str, &'a str)],
}

impl FollowUpFrame<'_> {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for text in [self.id, self.queue, self.message_type, self.content_type] {
            put_bytes(out, text.as_bytes());
        }
        put_bytes(out, self.body);
        out.extend_from_slice(&self.delay_ms.to_le_bytes());
        out.extend_from_slice(&self.expires_ms.to_le_bytes());
        out.extend_from_slice(&self.priority.to_le_bytes());
        out.extend_from_slice(&(self.headers.len() as u32).to_le_bytes());
        for (key, value) in self.headers {
            put_bytes(out, key.as_bytes());
            put_bytes(out, value.as_bytes());
        }
    }
}

fn parse_follow_up(r: &mut FieldReader<'_>) -> Result<FollowUp, Malformed> {
    Ok(FollowUp {
        id: r.text()?,
        queue: r.text()?,
        message_type: r.text()?,
        content_type: r.text()?,
        body: r.bytes()?.to_vec(),
        delay: Duration::from_millis(r.u64()?),
        expires: Duration::from_millis(r.u64()?),
        priority: r.i32()?,
        headers: r.pairs()?,
    })
}

pub(super) fn put_error(out: &mut Vec<u8>, error: &TaskError) {
    put_bytes(out, error.code.as_bytes());
    put_bytes(out, error.message.as_bytes());
    let retry_after = error.retry_after.map_or(-1, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    out.extend_from_slice(&retry_after.to_le_bytes());
}

pub(super) fn parse_error(r: &mut FieldReader<'_>) -> Result<TaskError, Malformed> {
    let (code, message, retry_after) = (r.text()?, r.text()?, r.i64()?);
    Ok(TaskError { code, message, retry_after: u64::try_from(retry_after).ok().map(Duration::from_millis) })
}

fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Done => 0,
        Outcome::Retry => 1,
        Outcome::Reject => 2,
        Outcome::Cancelled => 3,
        Outcome::Fault(FaultCause::Contract) => 5,
        // A host does not report its own end: the daemon sees it.
        Outcome::Fault(_) => 4,
        Outcome::TimedOut => 6,
    }
}

fn parse_outcome(code: u8) -> Result<Outcome, Malformed> {
    Ok(match code {
        0 => Outcome::Done,
        1 => Outcome::Retry,
        2 => Outcome::Reject,
        3 => Outcome::Cancelled,
        4 => Outcome::Fault(FaultCause::Returned),
        5 => Outcome::Fault(FaultCause::Contract),
        6 => Outcome::TimedOut,
        _ => return Err(Malformed("an unknown outcome")),
    })
}

#[cfg(test)]
mod tests;
