//! Every key the loader knows. Unknown-key errors, the environment and the test of the reference file read it.

/// The top-level tables.
pub(super) const TOP: &[&str] = &["broker", "queues", "plugins", "handlers", "daemon", "log"];
/// `[broker]`.
pub(super) const BROKER: &[&str] = &[
    "uri",
    "uris",
    "uri_file",
    "heartbeat",
    "connect_timeout",
    "consumer_timeout",
    "publish_channels",
    "ca_file",
    "cert_file",
    "key_file",
];
/// `[queues.NAME]`.
pub(super) const QUEUE: &[&str] = &["prefetch", "workers", "type", "delay_type", "dead_type", "deduplicate"];
/// `[plugins]`.
pub(super) const PLUGINS: &[&str] = &["dir", "dirs", "probe_timeout", "max_idle_hosts"];
/// `[handlers.NAME]`.
pub(super) const HANDLER: &[&str] = &[
    "plugin",
    "prefixes",
    "queues",
    "workers",
    "weight",
    "fair_by",
    "exclusive_by",
    "rate",
    "burst",
    "timeout",
    "grace",
    "retry",
    "max_tasks",
    "max_rss",
    "idle_timeout",
    "max_output",
    "max_output_lines",
    "breaker",
    "memory",
    "cpus",
    "cpu_time",
    "max_files",
    "max_processes",
    "settings",
];
/// `[handlers.NAME.retry]`.
pub(super) const RETRY: &[&str] = &["attempts", "delay", "factor", "max_delay", "jitter"];
/// `[handlers.NAME.breaker]`.
pub(super) const BREAKER: &[&str] = &["rate", "window", "tasks", "rest"];
/// `[daemon]`.
pub(super) const DAEMON: &[&str] = &[
    "socket",
    "socket_mode",
    "monitor",
    "max_task_bytes",
    "drain_timeout",
    "start_wait",
    "require_broker",
    "state_dir",
];
/// `[log]`.
pub(super) const LOG: &[&str] = &["level", "target"];

/// Every key with the table it belongs in, for advice on a key that stands in the wrong one.
pub(super) fn home_of(key: &str) -> Option<&'static str> {
    let tables: [(&str, &[&str]); 8] = [
        ("[broker]", BROKER),
        ("[queues.NAME]", QUEUE),
        ("[plugins]", PLUGINS),
        ("[handlers.NAME]", HANDLER),
        ("[handlers.NAME.retry]", RETRY),
        ("[handlers.NAME.breaker]", BREAKER),
        ("[daemon]", DAEMON),
        ("[log]", LOG),
    ];
    tables.into_iter().find(|(_, keys)| keys.contains(&key)).map(|(table, _)| table)
}
