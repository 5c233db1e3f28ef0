//! The validated configuration: what the rest of the daemon reads. Raw TOML never leaves this module.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `load` | files and environment → [`Config`], every error at once |
//! | `tree` `environment` `overrides` | where values come from: TOML with places, `WARREN_…` variables, merging |
//! | `reader` `keys` | typed values out of a table; every known key |
//! | `broker` `uri` `handlers` `bounds` | the tables that need more checking than a type and a range |
//! | `diagnostic` | what an operator is told |
//! | `show` | the effective configuration as TOML and JSON, without its secrets |

mod bounds;
mod broker;
mod consumer_timeout;
mod defaults;
mod diagnostic;
mod environment;
mod handlers;
mod keys;
mod load;
pub(crate) mod log_level;
mod overrides;
mod rate;
mod reader;
mod show;
mod task_key;
#[cfg(test)]
mod tests;
mod tree;
mod uri;

pub use diagnostic::{ConfigErrors, Diagnostic, Place};
pub use environment::Environment;
pub use load::Loaded;
pub use log_level::check_level;
pub(crate) use uri::{host_and_port, parse as parse_uri};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of one file of the configuration, or of URIs, certificates or a key: far above any real one, far below
/// what would hurt.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

/// Everything an operator can set, after defaults, merging and validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The files this configuration was read from, in the order they were merged.
    pub files: Vec<PathBuf>,
    /// How to reach the broker.
    pub broker: Broker,
    /// The queues to consume, in name order. At least one.
    pub queues: Vec<Queue>,
    /// Where plugins are looked for.
    pub plugins: Plugins,
    /// The configured handlers, in name order. Plugins that none of them names are handlers with their own defaults.
    pub handlers: Vec<Handler>,
    /// Limits and places of the daemon itself.
    pub daemon: Daemon,
    /// What is logged.
    pub log: Log,
}

/// `[broker]`: how to reach `RabbitMQ`.
#[derive(Debug, Clone, PartialEq)]
pub struct Broker {
    /// AMQP URIs, tried in turn. Never printed: use [`Broker::addresses`].
    pub uris: Vec<Secret>,
    /// The file they were read from, when they do not stand in the configuration itself.
    pub uri_file: Option<PathBuf>,
    /// AMQP heartbeat in whole seconds; 0 turns it off.
    pub heartbeat: Duration,
    /// Bound on TCP connect, TLS and the AMQP handshake together.
    pub connect_timeout: Duration,
    /// The broker's own `consumer_timeout`, which AMQP cannot tell us.
    pub consumer_timeout: Duration,
    /// Confirm channels on the publishing connection.
    pub publish_channels: u16,
    /// Extra trust anchors for `amqps://`, PEM.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and key, PEM.
    pub client_cert: Option<ClientCert>,
}

/// A client certificate for `amqps://`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientCert {
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
}

/// Text that must not appear in any output. `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

/// The kind of a queue that Warren declares itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueType {
    /// `x-queue-type: classic`.
    Classic,
    /// `x-queue-type: quorum`.
    Quorum,
}

/// The longest `deduplicate`: what is left on disk of finished tasks is removed after that.
pub const MAX_DEDUPLICATE: Duration = Duration::from_secs(7 * 24 * 3600);

/// `[queues.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// The AMQP queue name.
    pub name: Arc<str>,
    /// Unacknowledged deliveries per worker.
    pub prefetch: u16,
    /// Tasks running at once from this queue.
    pub workers: u16,
    /// What to declare when the queue does not exist; `None` leaves `x-queue-type` out.
    pub queue_type: Option<QueueType>,
    /// The kind of the delay queues; `None`: quorum where the broker has them.
    pub delay_type: Option<QueueType>,
    /// The kind of `<queue>.dead`; classic unless configured.
    pub dead_type: Option<QueueType>,
    /// For how long a task that is done is not run again when it comes again; zero: it is.
    pub deduplicate: Duration,
}

impl Queue {
    /// The AMQP prefetch count: `prefetch × workers`, at most 65535 (checked when the config is read).
    pub fn window(&self) -> u16 {
        self.prefetch.saturating_mul(self.workers)
    }
}

/// `[plugins]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugins {
    /// Directories searched for `*.so`, in order. A later directory never hides an earlier one.
    pub dirs: Vec<PathBuf>,
    /// Bound on inspecting, starting and `create` of one plugin when it is probed.
    pub probe_timeout: Duration,
    /// Plugin hosts without a task that are kept, over all handlers; above it the one that was used least recently ends.
    pub max_idle_hosts: u16,
}

/// `[handlers.NAME]`: a configured use of a plugin. `None` means: the plugin's own default.
#[derive(Clone, PartialEq)]
pub struct Handler {
    pub name: Arc<str>,
    /// The plugin's name as its manifest gives it.
    pub plugin: String,
    /// Prefixes this handler takes; the plugin's own when absent.
    pub prefixes: Option<Vec<String>>,
    /// Narrows the handler to these queues; all when absent.
    pub queues: Option<Vec<String>>,
    /// Everything else, with defaults filled in.
    pub limits: Limits,
    /// Handed to the plugin, as JSON text of an object.
    pub settings_json: String,
    /// Where the table stands, `file:line`, for later errors about it.
    pub origin: String,
}

/// The bounds of one handler.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Tasks of this handler running at once; `None`: no cap but the queue's workers.
    pub workers: Option<u16>,
    /// Its share of the workers of a queue, against other handlers that have tasks waiting in it.
    pub weight: u16,
    /// Tasks of different keys share what the handler gets, as handlers share; `None`: they run in the order of arrival.
    pub fair_by: Option<TaskKey>,
    /// Two tasks of one key never run at once; `None`: they may.
    pub exclusive_by: Option<TaskKey>,
    /// How many of its tasks may start in a time; `None`: any number.
    pub rate: Option<Rate>,
    /// Soft cancel after this; `None`: the plugin's default, else [`Limits::DEFAULT_TIMEOUT`].
    pub timeout: Option<Duration>,
    /// From cancel to SIGKILL.
    pub grace: Duration,
    pub retry: Retry,
    /// Recycle a host after this many tasks; 0: never.
    pub max_tasks: u64,
    /// Recycle a host whose resident set is over this many bytes after a task; 0: never.
    pub max_rss: u64,
    /// Reap a warm host that idled this long.
    pub idle_timeout: Duration,
    /// Bytes of each of stdout, stderr and what it logs that go to the log per task.
    pub max_output: u64,
    /// Lines of each of them.
    pub max_output_lines: u64,
    /// Lets a handler rest that fails almost always; `None`: never.
    pub breaker: Option<Breaker>,
    /// What its hosts may use.
    pub bounds: Bounds,
}

impl Limits {
    /// Time limit of a handler where neither the operator nor the plugin states one.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5 * 60);
}

/// `fair_by` and `exclusive_by`: what tells the tasks of one handler apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskKey {
    /// `"argument"`: what follows the prefix.
    Argument,
    /// `"header:NAME"`: the value of that message header, as a handler sees it.
    Header(Arc<str>),
}

/// `rate = "10/s"`, `burst = 5`: at most so many tasks start in so long a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So many tasks. Never 0.
    pub tasks: u32,
    /// A second, a minute or an hour.
    pub unit: Duration,
    /// So many may start at once after a pause.
    pub burst: u32,
}

impl Rate {
    /// The time from one start to the next.
    pub(crate) fn interval(&self) -> Duration {
        self.unit / self.tasks
    }
}

/// What one plugin host may use of the machine. 0, where it is allowed: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of memory.
    pub memory: u64,
    /// Thousandths of a CPU.
    pub millicpus: u32,
    /// CPU time per task, to within a second.
    pub cpu_time: Duration,
    /// Open files. Never 0.
    pub max_files: u32,
    /// Processes and threads, the host's own two included.
    pub max_processes: u32,
}

/// `retry = { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts in all, the first one included. 1: never retried.
    pub attempts: u32,
    /// Delay before the second attempt.
    pub delay: Duration,
    /// Each further delay is this much longer.
    pub factor: f64,
    /// Upper bound of a delay.
    pub max_delay: Duration,
    /// Share of the delay, 0 to 1, that is drawn at random.
    pub jitter: f64,
}

/// `breaker = { … }`: when at least `tasks` tasks ended within `window` and at least the share `rate` of them failed,
/// the handler rests.
#[derive(Debug, Clone, PartialEq)]
pub struct Breaker {
    /// Share of failures, above 0 to 1.
    pub rate: f64,
    /// How far back ends are looked at.
    pub window: Duration,
    /// Fewer ends than this say nothing.
    pub tasks: u32,
    /// How long the handler rests; its tasks are parked meanwhile.
    pub rest: Duration,
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Daemon {
    /// The control socket; `$RUNTIME_DIRECTORY/control.sock`, else `/run/warren/control.sock`.
    pub socket: PathBuf,
    /// Permissions of the control socket.
    pub socket_mode: SocketMode,
    /// A loopback address for `/healthz`, `/readyz` and `/metrics`; `None`: only on the control socket.
    pub monitor: Option<SocketAddr>,
    /// A larger body is dead-lettered as `too_large`.
    pub max_task_bytes: u64,
    /// How long a drain waits for running tasks.
    pub drain_timeout: Duration,
    /// READY is given after this even while the broker is away; 0: wait for it without end.
    pub start_wait: Duration,
    /// Exit with 69 when the broker is not there at start, instead of retrying.
    pub require_broker: bool,
    /// Where what has to survive a restart is kept; `$STATE_DIRECTORY`, else `/var/lib/warren`.
    pub state_dir: PathBuf,
}

/// Who may open the control socket. To change anything one has to be root, the daemon's user, or in the socket's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketMode {
    /// Only the daemon's user, and root.
    User,
    /// Its group as well.
    Group,
    /// Everybody; those who are neither may only look.
    Everybody,
}

impl SocketMode {
    /// The bits of the file.
    pub fn bits(self) -> u32 {
        match self {
            Self::User => 0o600,
            Self::Group => 0o660,
            Self::Everybody => 0o666,
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a `tracing` filter such as `info,lapin=warn`.
    pub level: String,
    pub target: LogTarget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// journald when started by systemd (`JOURNAL_STREAM`), stderr otherwise.
    Auto,
    /// The journal, by its own protocol.
    Journald,
    /// Human text on stderr.
    Stderr,
}
