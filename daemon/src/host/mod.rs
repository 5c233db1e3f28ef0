//! Both ends of the plugin host protocol. The daemon's end starts and supervises hosts; the host's end (`run`) loads exactly
//! one plugin and runs one task at a time. The frames between them are private: both ends are always the same executable.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `spawn` | the daemon's end: the thread that forks hosts, reaps them, and kills processes that a handler left behind |
//! | `supervise` | the daemon's end of one host: frames, time limits, and the report of its end |
//! | `trial` | one host without the engine: a probe before a reload, `warrenctl plugin` |
//! | `run` | the host's end: loads the plugin and calls it |
//! | `frame` `write_buffer` | the frames between both ends; bytes that a socket takes in parts |
//! | `ring` | which tasks a host had started and ended, in memory that outlives the host |
//! | `stage` `death` | how far a host was when it ended; how it ended, and whether by one of its bounds |
//! | `output` `budget` | lines that a handler prints; how much of them and of its log is kept |
//! | `cgroup` `bounds` | a control group for each host; which bounds this machine cannot enforce |
//! | `descendants` | finds and kills the processes that a handler started |

mod bounds;
mod budget;
mod cgroup;
mod death;
mod descendants;
mod frame;
mod output;
mod ring;
mod run;
mod spawn;
mod stage;
mod supervise;
mod trial;
mod write_buffer;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Bounds;
use crate::model::{FaultCause, FollowUp, Outcome, TaskError, TaskResult};
use crate::plugin::Snapshot;

pub use bounds::not_in_force;
pub use budget::OutputBounds;
pub use cgroup::{Controllers, Groups};
pub use run::run_if_host;
pub use spawn::{Spawner, become_subreaper};
pub use stage::HostStage;
pub use supervise::Host;
pub use trial::{probe, run_one};

/// Most tasks that may wait or run in one host: enough to spread the cost of a wake-up, few enough that what
/// waits behind a long task can be given to another host soon.
pub const QUEUE_LIMIT: usize = 16;

/// What a host is started with.
#[derive(Debug, Clone)]
pub struct HostSpec {
    /// The handler's name: the process is named after it.
    pub handler: Arc<str>,
    /// The plugin it loads.
    pub plugin: Arc<Snapshot>,
    /// The handler's settings, JSON text of an object.
    pub settings_json: Arc<str>,
    /// How long loading and `create` may take.
    pub create_timeout: Duration,
    /// How long it may take to end when asked to.
    pub grace: Duration,
    /// What becomes [`HostEvent::Output`] and [`HostEvent::Log`].
    pub output: OutputBounds,
    /// What it may use of the machine.
    pub bounds: Bounds,
}

/// Where a host's events go. Called on the runtime that the host was started on, never while the host's own
/// functions run; it may call them, and may drop the host.
pub type HostEvents = Rc<dyn Fn(HostId, HostEvent)>;

/// Identifies one plugin host within this daemon; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u64);

/// Numbers the tasks given to one host, from 1.
pub type Seq = u64;

/// A task as it is written to a host; everything is borrowed, nothing is copied but into the socket's buffer.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostTask<'a> {
    /// The task's number on this host.
    pub seq: Seq,
    /// Attempt, from 1.
    pub attempt: u32,
    /// The broker delivered it before.
    pub redelivered: bool,
    /// The id is ours: the producer gave none.
    pub id_generated: bool,
    /// The task's id.
    pub id: &'a str,
    /// The queue it came from.
    pub queue: &'a str,
    /// The prefix that matched.
    pub prefix: &'a str,
    /// What follows the prefix, trimmed; usually a part of `body`.
    pub argument: &'a str,
    /// AMQP `content_type`; empty when absent.
    pub content_type: &'a str,
    /// AMQP headers; values that are not strings as JSON.
    pub headers: &'a [(String, String)],
    /// The whole body.
    pub body: &'a [u8],
    /// Time limit, counted by the host from when it starts this task; zero: none. The host itself asks the
    /// handler to stop then; killing it, should it not, is the engine's.
    pub timeout: Duration,
    /// Somebody waits for the result; else it is not reported.
    pub wants_result: bool,
}

/// All that a host reports of one finished task.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub seq: Seq,
    /// What the handler said.
    pub outcome: Outcome,
    /// Its error, when it set one or faulted.
    pub error: Option<TaskError>,
    /// Its result, when it set one.
    pub result: Option<TaskResult>,
    /// Its follow-ups; to be sent only when the outcome is done.
    pub follow_ups: Vec<FollowUp>,
    /// How long `handle` took.
    pub duration: Duration,
}

/// What a host tells the daemon.
#[derive(Debug)]
pub enum HostEvent {
    /// `create` succeeded; the host takes tasks. (Tasks may be sent before; they wait in the socket.)
    Ready,
    /// A task ended.
    Report(Box<Report>),
    /// A task that was recalled while it waited in the host: it will not be started there, and no report of it comes.
    Withdrawn { seq: Seq },
    /// The running task reported progress (at most a few a second pass).
    Progress {
        seq: Seq,
        /// 0 to 1000.
        permille: u32,
        /// One line.
        note: String,
    },
    /// The plugin's own log line; the engine adds the task and writes it.
    Log {
        /// The running task; 0 when none was (create, a plugin's thread).
        seq: Seq,
        /// As the ABI numbers levels: 1 error, 2 warn, 3 info, 4 debug, 5 trace.
        level: i32,
        /// One line.
        message: String,
        /// Structured fields.
        fields: Vec<(String, String)>,
    },
    /// A line the handler or its children printed; bounded per task.
    Output {
        /// The task that was running when it was read; 0 when none was.
        seq: Seq,
        /// stderr rather than stdout.
        stderr: bool,
        /// Without its newline; bytes that are not UTF-8 replaced.
        line: String,
    },
    /// The host is gone: every way a host can end, `create` having failed included. Always the last event of
    /// a host.
    Exited(Exit),
}

/// How a host ended, and what it had started.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// How far it was.
    pub stage: HostStage,
    /// It was asked to end, had nothing left to do, and ended by itself and without an error.
    pub orderly: bool,
    /// Human words: `signal 11 (SIGSEGV)`, `exit status 0`, `create failed: …`.
    pub why: String,
    /// `create` failed or never finished; the plugin's own error when it gave one.
    pub create_error: Option<TaskError>,
    /// The highest task that was started, 0 for none (read from the ring that survives the host).
    pub started: Seq,
    /// Tasks that ended, done and with nothing to report beside that, whose report did not arrive any more.
    pub done_unreported: Vec<Seq>,
    /// The highest task that ended, whatever its outcome. `started > ended` names the one that was running.
    pub ended: Seq,
    /// Which of its bounds ended it, when that is known or likely; `why` says so, too.
    pub over: Option<Bound>,
}

impl Report {
    /// An outcome, and nothing to send.
    pub fn without_result(seq: Seq, outcome: Outcome, error: Option<TaskError>) -> Self {
        Self { seq, outcome, error, result: None, follow_ups: Vec::new(), duration: Duration::ZERO }
    }
}

impl Exit {
    /// What the end of the host is for the task that it ran.
    pub fn cause(&self) -> FaultCause {
        match self.over {
            Some(Bound::CpuTime) => FaultCause::CpuTime,
            _ => FaultCause::HostDied,
        }
    }
}

/// A bound that ends a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// `memory`.
    Memory,
    /// `cpu_time`.
    CpuTime,
}
