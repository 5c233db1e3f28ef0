//! The effective configuration, defaults filled in, as TOML and JSON. What it prints can be read back, but for
//! the secrets: a user, a password and every setting whose name sounds like one is `***`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::diagnostic::mask_userinfo;
use super::{
    Bounds, Breaker, Broker, Config, Daemon, Handler, Limits, LogTarget, Plugins, Queue, QueueType, uri,
};
use crate::model::duration::{format_duration, format_size};

/// What stands in place of a secret.
const MASK: &str = "***";

/// Parts of a setting's name that make its value a secret. Too many rather than too few: what is hidden in vain
/// can be looked up in the file.
const SECRET_WORDS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "authorization",
    "bearer",
    "cookie",
    "api_key",
    "apikey",
    "access_key",
    "private_key",
];
/// Names that are secrets as they are or after a `_`, and harmless as the beginning of others.
const SECRET_ENDS: [&str; 4] = ["key", "auth", "pass", "pwd"];
/// Names that say where a secret is, which is none.
const PLACES: [&str; 5] = ["_file", "_files", "_path", "_dir", "_directory"];

impl Config {
    /// The effective configuration by table and key. What has no value (a handler without a cap on its workers)
    /// is left out.
    pub fn to_json(&self) -> Value {
        let queues: Map<_, _> = self.queues.iter().map(|q| (q.name.to_string(), queue(q))).collect();
        let handlers: Map<_, _> = self.handlers.iter().map(|h| (h.name.to_string(), handler(h))).collect();
        let target = match self.log.target {
            LogTarget::Auto => "auto",
            LogTarget::Journald => "journald",
            LogTarget::Stderr => "stderr",
        };
        json!({
            "broker": broker(&self.broker),
            "queues": queues,
            "plugins": plugins(&self.plugins),
            "handlers": handlers,
            "daemon": daemon(&self.daemon),
            "log": { "level": self.log.level, "target": target },
        })
    }

    /// The same as TOML, tables in the order of the reference file.
    pub fn render_toml(&self) -> String {
        let Value::Object(tables) = self.to_json() else { return String::new() };
        let mut text = String::new();
        for name in super::keys::TOP {
            let table = tables.get(*name).filter(|table| table.as_object().is_some_and(|t| !t.is_empty()));
            let Some(table) = table else { continue };
            // Neither step can fail: the values came from TOML, and no key or null is left that it cannot hold.
            let rendered = toml::Value::try_from(json!({ *name: table })).ok();
            text += &rendered.and_then(|value| toml::to_string(&value).ok()).unwrap_or_default();
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}

fn broker(broker: &Broker) -> Value {
    let mut table = json!({
        "uris": broker.uris.iter().map(uri::masked).collect::<Vec<_>>(),
        "heartbeat": duration(broker.heartbeat),
        "connect_timeout": duration(broker.connect_timeout),
        "consumer_timeout": duration(broker.consumer_timeout),
        "publish_channels": broker.publish_channels,
    });
    if let Some(file) = &broker.ca_file {
        table["ca_file"] = json!(file);
    }
    if let Some(cert) = &broker.client_cert {
        table["cert_file"] = json!(cert.cert_file);
        table["key_file"] = json!(cert.key_file);
    }
    table
}

fn queue(queue: &Queue) -> Value {
    let mut table = json!({
        "prefetch": queue.prefetch,
        "workers": queue.workers,
        "deduplicate": duration(queue.deduplicate),
    });
    for (key, kind) in
        [("type", queue.queue_type), ("delay_type", queue.delay_type), ("dead_type", queue.dead_type)]
    {
        if let Some(kind) = kind {
            table[key] = json!(match kind {
                QueueType::Classic => "classic",
                QueueType::Quorum => "quorum",
            });
        }
    }
    table
}

fn plugins(plugins: &Plugins) -> Value {
    json!({
        "dirs": plugins.dirs,
        "probe_timeout": duration(plugins.probe_timeout),
        "max_idle_hosts": plugins.max_idle_hosts,
    })
}

fn handler(handler: &Handler) -> Value {
    let Limits {
        workers,
        weight,
        fair_by,
        exclusive_by,
        rate,
        timeout,
        grace,
        retry,
        max_tasks,
        max_rss,
        idle_timeout,
        max_output,
        max_output_lines,
        breaker,
        bounds,
    } = &handler.limits;
    let Bounds { memory, millicpus, cpu_time, max_files, max_processes } = bounds;
    let mut table = json!({
        "plugin": handler.plugin,
        "weight": weight,
        "grace": duration(*grace),
        "retry": {
            "attempts": retry.attempts,
            "delay": duration(retry.delay),
            "factor": retry.factor,
            "max_delay": duration(retry.max_delay),
            "jitter": retry.jitter,
        },
        "max_tasks": max_tasks,
        "max_rss": format_size(*max_rss),
        "idle_timeout": duration(*idle_timeout),
        "max_output": format_size(*max_output),
        "max_output_lines": max_output_lines,
        "memory": format_size(*memory),
        "cpus": f64::from(*millicpus) / 1000.0,
        "cpu_time": duration(*cpu_time),
        "max_files": max_files,
        "max_processes": max_processes,
    });
    let optional = [
        ("prefixes", handler.prefixes.as_ref().map(|v| json!(v))),
        ("queues", handler.queues.as_ref().map(|v| json!(v))),
        ("workers", workers.map(|v| json!(v))),
        ("fair_by", fair_by.as_ref().map(|key| json!(key.to_string()))),
        ("exclusive_by", exclusive_by.as_ref().map(|key| json!(key.to_string()))),
        ("rate", rate.map(|rate| json!(rate.to_string()))),
        ("burst", rate.map(|rate| json!(rate.burst))),
        ("timeout", timeout.map(|v| json!(duration(v)))),
        ("breaker", breaker.as_ref().map(self::breaker)),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            table[key] = value;
        }
    }
    let mut settings = serde_json::from_str(&handler.settings_json).unwrap_or_default();
    mask(&mut settings);
    table["settings"] = settings;
    table
}

fn breaker(breaker: &Breaker) -> Value {
    json!({
        "rate": breaker.rate,
        "window": duration(breaker.window),
        "tasks": breaker.tasks,
        "rest": duration(breaker.rest),
    })
}

fn daemon(daemon: &Daemon) -> Value {
    let mut table = json!({
        "socket": daemon.socket,
        "socket_mode": format!("{:04o}", daemon.socket_mode.bits()),
        "max_task_bytes": format_size(daemon.max_task_bytes),
        "drain_timeout": duration(daemon.drain_timeout),
        "start_wait": duration(daemon.start_wait),
        "require_broker": daemon.require_broker,
        "state_dir": daemon.state_dir,
    });
    if let Some(monitor) = daemon.monitor {
        table["monitor"] = json!(monitor.to_string());
    }
    table
}

fn duration(duration: Duration) -> String {
    format_duration(duration)
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let key = key.to_lowercase().replace('-', "_");
                if PLACES.iter().any(|end| key.ends_with(end)) {
                    mask_texts(value);
                } else if is_secret(&key) && !value.is_boolean() {
                    *value = json!(MASK);
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(mask),
        _ => mask_texts(value),
    }
}

/// Masks texts by what they say, not by the names they stand under.
fn mask_texts(value: &mut Value) {
    match value {
        Value::Object(table) => table.values_mut().for_each(mask_texts),
        Value::Array(list) => list.iter_mut().for_each(mask_texts),
        Value::String(text) if contains_secret(text) => MASK.clone_into(text),
        Value::String(text) => *text = mask_userinfo(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether what is called this, in lower case and with `_` for `-`, is a secret.
fn is_secret(name: &str) -> bool {
    let last = name.rsplit('_').next().unwrap_or(name);
    SECRET_WORDS.iter().any(|word| name.contains(word)) || SECRET_ENDS.contains(&last)
}

/// Whether a secret is in the text by name, as in `--password=…`, `?access_token=…` and `Authorization: …`.
fn contains_secret(text: &str) -> bool {
    let text = text.to_lowercase().replace('-', "_");
    let named = |sign| {
        text.match_indices(sign).any(|(end, _)| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let start = text[..end].trim_end_matches(is_name).len();
            is_secret(&text[start..end])
        })
    };
    named('=') || text.contains("authorization:") || text.contains("bearer ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_hold_a_credential_is_masked() {
        let table = [
            (
                json!({"smtp_password": "x", "Password": 7}),
                json!({"smtp_password": "***", "Password": "***"}),
            ),
            (json!({"headers": {"Authorization": "x"}}), json!({"headers": {"Authorization": "***"}})),
            (json!({"headers": {"X-Api-Key": "x"}}), json!({"headers": {"X-Api-Key": "***"}})),
            (json!({"headers": ["authorization: Basic x"]}), json!({"headers": ["***"]})),
            (json!({"tokens": ["x", "y"], "secret": {"a": 1}}), json!({"tokens": "***", "secret": "***"})),
            (json!({"signing-key": "x", "auth": "x"}), json!({"signing-key": "***", "auth": "***"})),
            (json!({"env": {"PGPASSWORD": "x"}}), json!({"env": {"PGPASSWORD": "***"}})),
            (json!({"command": ["a", "--db-password=x"]}), json!({"command": ["a", "***"]})),
            (
                json!({"url": "https://u:p@h/", "dsn": "host=h password=x"}),
                json!({"url": "https://***@h/", "dsn": "***"}),
            ),
            (json!({"url": "https://h/?access_token=x"}), json!({"url": "***"})),
        ];
        for (mut value, expected) in table {
            mask(&mut value);
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn what_says_where_a_credential_is_or_only_sounds_like_one_is_shown() {
        let table = [
            json!({"password_file": "/etc/p", "header_files": {"Authorization": "/etc/a"}}),
            json!({"keep": 3, "keyword": "a", "monkey": "b", "author": "c", "passive": true}),
            json!({"use_token": true, "query": "SELECT a FROM t WHERE b=1", "url": "https://h/?a=1"}),
        ];
        for value in table {
            let mut masked = value.clone();
            mask(&mut masked);
            assert_eq!(masked, value);
        }
    }
}
