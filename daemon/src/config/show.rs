//! The effective configuration, defaults filled in, as TOML and JSON. What it prints can be read back, but for
//! the secrets: a user, a password and every setting whose name sounds like one is `***`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::diagnostic::mask_userinfo;
use super::duration::{format_duration, format_size};
use super::{Broker, Config, Daemon, Handler, Limits, LogTarget, Plugins, Queue, QueueType, uri};

/// What stands in place of a secret.
const MASK: &str = "***";

/// Parts of a setting's name that make its value a secret.
const SECRET_WORDS: [&str; 8] =
    ["password", "passwd", "passphrase", "secret", "token", "credential", "api_key", "private_key"];

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
    let mut table = json!({ "prefetch": queue.prefetch, "workers": queue.workers });
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
    json!({ "dirs": plugins.dirs, "probe_timeout": duration(plugins.probe_timeout) })
}

fn handler(handler: &Handler) -> Value {
    let Limits { workers, timeout, grace, retry, max_tasks, max_rss, idle_timeout, max_output } =
        &handler.limits;
    let mut table = json!({
        "plugin": handler.plugin,
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
    });
    let optional = [
        ("prefixes", handler.prefixes.as_ref().map(|v| json!(v))),
        ("queues", handler.queues.as_ref().map(|v| json!(v))),
        ("workers", workers.map(|v| json!(v))),
        ("timeout", timeout.map(|v| json!(duration(v)))),
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

fn daemon(daemon: &Daemon) -> Value {
    json!({
        "socket": daemon.socket,
        "max_task_bytes": format_size(daemon.max_task_bytes),
        "drain_timeout": duration(daemon.drain_timeout),
        "start_wait": duration(daemon.start_wait),
        "require_broker": daemon.require_broker,
    })
}

fn duration(duration: Duration) -> String {
    format_duration(duration)
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let key = key.to_lowercase().replace('-', "_");
                if SECRET_WORDS.iter().any(|word| key.contains(word)) && !value.is_boolean() {
                    *value = json!(MASK);
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(mask),
        Value::String(text) => *text = mask_userinfo(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
