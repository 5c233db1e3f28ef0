//! `config/warren.toml`, the commented reference, against the loader.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::diagnostic::Problems;
use super::super::tree::{Table, Value, parse};
use super::super::{Breaker, Broker, Daemon, Environment, Limits, Log, Plugins, Queue, keys};
use super::Files;

const REFERENCE: &str = include_str!("../../../../config/warren.toml");

/// The reference with every commented key in force.
fn in_force() -> String {
    let lines = REFERENCE.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[') => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_as_shipped_is_the_defaults() {
    let files = Files::new(&[("warren.toml", REFERENCE)]);
    let loaded = files.load(&[]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.queues, [Queue::new("task_queue")]);
    assert_eq!(loaded.config.handlers, []);
    assert_eq!(loaded.config.broker, Broker::default());
}

#[test]
fn every_stated_default_is_the_default() {
    // What is an example, and not a default, says so on its line.
    let text = in_force();
    let defaults: Vec<&str> = text.lines().filter(|line| !line.ends_with("# example")).collect();
    let files = Files::new(&[("warren.toml", &defaults.join("\n"))]);
    let config = files.load(&[]).unwrap_or_else(|errors| panic!("{errors}")).config;
    assert_eq!(config.broker, Broker::default());
    assert_eq!(config.queues, [Queue::new("task_queue")]);
    assert_eq!(config.plugins, Plugins::default());
    // A breaker is off unless its table is there.
    let limits = Limits { breaker: Some(Breaker::default()), ..Limits::default() };
    assert_eq!(config.handlers[0].limits, limits);
    assert_eq!(config.daemon, Daemon::new(&Environment::new()));
    assert_eq!(config.log, Log::default());
    assert!(text.contains(&format!("timeout = \"{}m\"", Limits::DEFAULT_TIMEOUT.as_secs() / 60)));
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let mut problems = Problems::default();
    let tree = parse(Path::new("warren.toml"), &in_force(), &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    let table = |path: &[&str]| {
        path.iter().fold(&tree, |table, key| match table.get(*key).map(|node| &node.value) {
            Some(Value::Table(inner)) => inner,
            _ => panic!("no table {path:?}"),
        })
    };
    let assert_keys = |table: &Table, known: &[&str]| {
        let found: BTreeSet<&str> = table.keys().map(String::as_str).collect();
        assert_eq!(found, known.iter().copied().collect());
    };
    assert_keys(&tree, keys::TOP);
    assert_keys(table(&["broker"]), keys::BROKER);
    assert_keys(table(&["queues", "task_queue"]), keys::QUEUE);
    assert_keys(table(&["plugins"]), keys::PLUGINS);
    assert_keys(table(&["handlers", "backup-database"]), keys::HANDLER);
    assert_keys(table(&["handlers", "backup-database", "retry"]), keys::RETRY);
    assert_keys(table(&["handlers", "backup-database", "breaker"]), keys::BREAKER);
    assert_keys(table(&["daemon"]), keys::DAEMON);
    assert_keys(table(&["log"]), keys::LOG);
}

#[test]
fn the_loader_reads_every_key_it_knows() {
    // A known key of the wrong type is an error; one that nothing reads would pass in silence.
    let wrong =
        |keys: &[&str]| keys.iter().fold(String::new(), |text, key| text + &format!("{key} = {{ x = 1 }}\n"));
    let nested = |keys: &[&str]| {
        wrong(
            &keys
                .iter()
                .copied()
                .filter(|k| !["retry", "breaker", "settings"].contains(k))
                .collect::<Vec<_>>(),
        )
    };
    let tables = [
        ("plugins", keys::PLUGINS),
        ("queues.q", keys::QUEUE),
        ("handlers.h", keys::HANDLER),
        ("handlers.h.retry", keys::RETRY),
        ("handlers.h.breaker", keys::BREAKER),
        ("daemon", keys::DAEMON),
        ("log", keys::LOG),
    ];
    for (name, keys) in tables {
        let files = Files::new(&[("warren.toml", &format!("[queues.q2]\n[{name}]\n{}", nested(keys)))]);
        let errors = files.errors(&[]);
        for key in keys.iter().filter(|key| !["retry", "breaker", "settings"].contains(*key)) {
            let told = errors.iter().any(|e| e.contains(&format!(" {name}.{key}: is a table; write ")));
            assert!(told, "{name}.{key}: {errors:#?}");
        }
    }
    for key in keys::BROKER {
        let files = Files::new(&[("warren.toml", &format!("[queues.q]\n[broker]\n{}", wrong(&[key])))]);
        let errors = files.errors(&[]);
        assert!(
            errors.iter().any(|e| e.contains(&format!(" broker.{key}: is a table; write "))),
            "{errors:#?}"
        );
    }
}
