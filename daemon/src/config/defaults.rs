//! What holds where the operator states nothing, and how secrets print.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Bounds, Breaker, Broker, Daemon, Environment, Handler, Limits, Log, LogTarget, Plugins, Queue, Retry,
    Secret, SocketMode,
};

impl Default for Broker {
    fn default() -> Self {
        Self {
            uris: vec![Secret("amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())],
            uri_file: None,
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            consumer_timeout: Duration::from_secs(30 * 60),
            publish_channels: 32,
            ca_file: None,
            client_cert: None,
        }
    }
}

impl Queue {
    /// A queue of that name with every default.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            prefetch: 1,
            workers: 4,
            queue_type: None,
            delay_type: None,
            dead_type: None,
            deduplicate: Duration::ZERO,
        }
    }
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            dirs: vec![PathBuf::from("/usr/lib/warren/plugins")],
            probe_timeout: Duration::from_secs(10),
            max_idle_hosts: 64,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            workers: None,
            weight: 1,
            fair_by: None,
            exclusive_by: None,
            rate: None,
            timeout: None,
            grace: Duration::from_secs(10),
            retry: Retry::default(),
            max_tasks: 0,
            max_rss: 0,
            idle_timeout: Duration::from_secs(60),
            max_output: 64 * 1024,
            max_output_lines: 1000,
            breaker: None,
            bounds: Bounds::default(),
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            memory: 0,
            millicpus: 0,
            cpu_time: Duration::ZERO,
            // What a login shell gives. More breaks programs that use select(2), and hides a leak for longer.
            max_files: 1024,
            // More than a task starts that is well, and few enough that a fork bomb leaves room for all others.
            max_processes: 512,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            delay: Duration::from_secs(5),
            factor: 2.0,
            max_delay: Duration::from_secs(10 * 60),
            jitter: 0.1,
        }
    }
}

impl Default for Breaker {
    /// For a table that states only some keys.
    fn default() -> Self {
        Self { rate: 0.9, window: Duration::from_secs(60), tasks: 20, rest: Duration::from_secs(5 * 60) }
    }
}

impl Daemon {
    /// The defaults, with the control socket and what is kept in the directories that systemd gives.
    pub fn new(environment: &Environment) -> Self {
        // systemd lists several directories with colons between them; the unit has one of each kind.
        let directory = |variable: &str, default: &str| {
            let stated = environment.get(variable).and_then(|dirs| std::env::split_paths(dirs).next());
            stated.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from(default))
        };
        Self {
            socket_mode: SocketMode::Group,
            monitor: None,
            socket: directory("RUNTIME_DIRECTORY", "/run/warren").join("control.sock"),
            state_dir: directory("STATE_DIRECTORY", "/var/lib/warren"),
            max_task_bytes: 1 << 20,
            drain_timeout: Duration::from_secs(30),
            start_wait: Duration::from_secs(10),
            require_broker: false,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), target: LogTarget::Auto }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Handler {
    /// Without the settings: a handler's may hold passwords of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("name", &self.name)
            .field("plugin", &self.plugin)
            .field("prefixes", &self.prefixes)
            .field("queues", &self.queues)
            .field("limits", &self.limits)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}
