//! Tables of handlers, and which of them are in each other's way.

use std::sync::Arc;

use super::*;
use crate::config::Limits;

fn manifest(name: &str, exclusive: &[&str], clears: &[&str], stores: &[&str]) -> Manifest {
    let owned = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect();
    Manifest {
        name: name.into(),
        version: "1".into(),
        abi_major: 1,
        abi_minor: 0,
        prefixes: Vec::new(),
        timeout: None,
        settings: Vec::new(),
        targets: Targets { exclusive: owned(exclusive), clears: owned(clears), stores: owned(stores) },
    }
}

/// What is said of two handlers, each with its plugin and its settings.
fn said(one: (&str, &Value), other: (&str, &Value)) -> Vec<String> {
    let backup = manifest("backup", &["database", "directory", "name"], &[], &["directory"]);
    let clean = manifest("clean", &["directories", "patterns"], &["directories"], &[]);
    let free = manifest("free", &[], &[], &[]);
    let handler = |name: &str, (plugin, settings): (&str, &Value)| Handler {
        name: Arc::from(name),
        plugin: plugin.into(),
        prefixes: None,
        queues: None,
        limits: Limits::default(),
        settings_json: settings.to_string(),
        origin: format!("warren.toml:{name}"),
    };
    let handlers = [handler("one", one), handler("two", other)];
    target_conflicts(&handlers, &[&backup, &clean, &free]).iter().map(ToString::to_string).collect()
}

#[test]
fn handlers_of_one_plugin_that_agree_in_all_that_counts_are_on_one_target() {
    let settings = |database: &str, directory: &str, keep: u32| serde_json::json!({"database": database, "directory": directory, "keep": keep});
    let mine = settings("/shop/app.db", "/backups", 7);
    let conflicts = said(("backup", &mine), ("backup", &settings("/shop/./app.db", "/backups//", 2)));
    assert_eq!(
        conflicts,
        [
            "warren.toml:two: the handlers `one` and `two` agree in `database`, `directory` and `name` of their \
          settings: each replaces or removes what the other made; give each a target of its own, or make them one \
          handler with both prefixes"
        ]
    );
    let mut named = mine.clone();
    named["name"] = "hourly-{time}".into();
    for (plugin, other) in [
        ("backup", &settings("/crm/app.db", "/backups", 2)),
        ("backup", &settings("/shop/app.db", "/backups-2", 2)),
        ("backup", &named),
        ("free", &mine),
        ("unknown", &mine),
    ] {
        assert_eq!(said(("backup", &mine), (plugin, other)), [""; 0], "{plugin} {other}");
    }
    assert_eq!(said(("free", &mine), ("free", &mine)), [""; 0]);
}

#[test]
fn lists_are_on_one_target_when_a_directory_lies_in_another() {
    let settings = |directories: &[&str], patterns: Option<&[&str]>| {
        let mut settings = serde_json::json!({"directories": directories});
        if let Some(patterns) = patterns {
            settings["patterns"] = serde_json::json!(patterns);
        }
        settings
    };
    let all = settings(&["/srv/a", "/srv/cache"], None);
    for (other, count) in [
        (settings(&["/srv/cache/thumbs"], None), 1),
        (settings(&["/srv"], None), 1),
        (settings(&["/srv/cache-2"], None), 0),
        (settings(&["/srv/cache"], Some(&["*.tmp"])), 0),
    ] {
        assert_eq!(said(("clean", &all), ("clean", &other)).len(), count, "{other}");
    }
    let tmp = settings(&["/srv"], Some(&["*.tmp", "*.part"]));
    assert_eq!(said(("clean", &tmp), ("clean", &settings(&["/srv"], Some(&["*.part"])))).len(), 1);
    assert_eq!(said(("clean", &tmp), ("clean", &settings(&["/srv"], Some(&["*.log"])))).len(), 0);
}

#[test]
fn a_directory_that_one_clears_and_another_keeps_files_in_is_told_in_either_order() {
    let clean = serde_json::json!({"directories": ["/var/tmp", "/srv/reports"]});
    let backup = |directory: &str| serde_json::json!({"database": "/shop.db", "directory": directory});
    for (one, other) in [
        (("clean", &clean), ("backup", &backup("/var/tmp/backups"))),
        (("backup", &backup("/var/tmp/backups")), ("clean", &clean)),
    ] {
        let conflicts = said(one, other);
        assert_eq!(conflicts.len(), 1, "{conflicts:?}");
        assert!(conflicts[0].contains("below /var/tmp, and `"), "{conflicts:?}");
        assert!(conflicts[0].contains("keeps its files in /var/tmp/backups; move"), "{conflicts:?}");
    }
    for apart in ["/var/tmp-2/backups", "/backups", "/srv/reports"] {
        assert_eq!(said(("clean", &clean), ("backup", &backup(apart))), [""; 0], "{apart}");
    }
}

#[test]
fn links_lead_to_one_target() {
    let place = tempfile::tempdir().expect("a directory");
    let (real, link) = (place.path().join("real"), place.path().join("link"));
    std::fs::create_dir(&real).expect("new");
    std::os::unix::fs::symlink(&real, &link).expect("new");
    let backup = |directory: &Path| serde_json::json!({"database": "/shop.db", "directory": directory});
    assert_eq!(said(("backup", &backup(&real)), ("backup", &backup(&link))).len(), 1);
}
