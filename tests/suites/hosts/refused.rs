//! Plugin files that are refused when the daemon starts: their tasks are parked until the file is good.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use warren_tests::{Broker, Daemon, Home, Keys, Node};

/// How a plugin file is spoilt, and what is said of it.
#[derive(Clone, Copy)]
enum Spoil {
    Mode,
    Link,
    Abi,
    Half,
    Missing,
}
use Spoil::{Abi, Half, Link, Missing, Mode};

/// The plugin's name, how it is spoilt, and whether a table of the configuration names it; none states prefixes.
const PLUGINS: [(&str, Spoil, bool); 8] = [
    ("mode", Mode, true),
    ("link", Link, true),
    ("abi", Abi, true),
    ("half", Half, true),
    ("missing", Missing, true),
    ("free-mode", Mode, false),
    ("free-abi", Abi, false),
    ("free-half", Half, false),
];

fn path(home: &Home, name: &str) -> PathBuf {
    home.plugins().join(format!("{name}.so"))
}

fn prefix(name: &str) -> String {
    format!("Do-{name}")
}

fn good(home: &Home, name: &str, flags: &[&str]) {
    let names = [format!("-DNAME={name}"), format!("-DPREFIX={}", prefix(name))];
    let flags: Vec<&str> = names.iter().map(String::as_str).chain(flags.iter().copied()).collect();
    home.install_c(name, "torture.c", &flags);
}

fn spoil(home: &Home, name: &str, how: Spoil) {
    good(home, name, &[]);
    let file = path(home, name);
    match how {
        Mode => fs::set_permissions(&file, Permissions::from_mode(0o664)).expect("mode"),
        Link => {
            // What everybody may replace is nowhere safe.
            let elsewhere = home.path("open");
            fs::create_dir_all(&elsewhere).expect("a directory");
            fs::set_permissions(&elsewhere, Permissions::from_mode(0o777)).expect("mode");
            fs::rename(&file, elsewhere.join("file")).expect("moved");
            symlink(elsewhere.join("file"), &file).expect("a link");
        }
        Abi => good(home, name, &["-DABI_MAJOR=2"]),
        // Too little for the manifest to be in it.
        Half => drop(home.install_bytes(name, &fs::read(&file).expect("read")[..100])),
        Missing => fs::remove_file(&file).expect("removed"),
    }
}

#[test]
fn tasks_of_a_file_that_is_refused_at_start_run_when_it_is_good() {
    let node = Node::shared();
    let home = Home::new(&node.uri(), "hosts_refused");
    let mut rest = String::new();
    for (name, how, is_configured) in PLUGINS {
        spoil(&home, name, how);
        if is_configured {
            let _ = writeln!(rest, "[handlers.{name}]\nplugin = \"{name}\"");
        }
    }
    home.configure(Keys { queue: "prefetch = 8", rest: &rest, ..Keys::default() });
    let broker = Broker::connect(&node.uri());
    let daemon = Daemon::start(&home);
    for (name, _, _) in PLUGINS {
        broker.publish(home.queue(), name, &format!("{} it", prefix(name)));
    }
    daemon.wait_count("parked", PLUGINS.len() as u64);
    for (name, how, _) in PLUGINS {
        let handler = daemon.handler(name);
        let error = handler["last_error"].as_str().unwrap_or_default();
        let is_known = !matches!(how, Half | Missing);
        assert_eq!(handler["state"], "failing", "{name}: {handler}");
        assert_eq!(error.contains("its prefixes are not known"), !is_known, "{name}: {error}");
        assert_eq!(handler["prefixes"].as_array().map(Vec::len), Some(usize::from(is_known)), "{name}");
        let route = daemon.ask(&["route", &format!("{} it", prefix(name))]);
        assert!(route["why"].as_str().is_some_and(|why| why.contains("is parked")), "{name}: {route}");
    }
    for (name, _, _) in PLUGINS {
        let _ = fs::remove_file(path(&home, name));
        good(&home, name, &[]);
    }
    let reload = daemon.reload();
    assert_eq!(reload["ok"], true, "{reload}");
    for (name, _, _) in PLUGINS {
        let task = format!("task_id={name} ");
        daemon.wait_log(0, &["task done", &format!("handler={name} "), &task, "attempt=1 "]);
    }
    let counts = daemon.counts();
    assert_eq!((&counts["dead"], &counts["retried"]), (&0.into(), &0.into()), "{counts}");
    // Nothing is parked any more for want of knowledge.
    broker.publish(home.queue(), "nobodys", "Nobody's task");
    assert_eq!(broker.take(&home.dead()).header("x-warren-reason").as_deref(), Some("unroutable"));
}

#[test]
fn a_refused_file_takes_no_task_from_a_handler_that_runs() {
    let node = Node::shared();
    let home = Home::new(&node.uri(), "hosts_untrusted");
    home.install_c("good", "torture.c", &["-DNAME=good", "-DPREFIX=Do"]);
    // Others may have written what this one claims: a longer prefix, which would win.
    home.install_c("open", "torture.c", &["-DNAME=open", "-DPREFIX=Do it"]);
    fs::set_permissions(path(&home, "open"), Permissions::from_mode(0o666)).expect("mode");
    // And this one cannot be loaded, and claims the very same prefix.
    home.install_c("newer", "torture.c", &["-DNAME=newer", "-DPREFIX=Do", "-DABI_MAJOR=2"]);
    home.configure(Keys::default());
    let broker = Broker::connect(&node.uri());
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "t", "Do it well");
    daemon.wait_log(0, &["task done", "handler=good "]);
    assert_eq!((&daemon.counts()["done"], &daemon.counts()["parked"]), (&1.into(), &0.into()));
}

#[test]
fn what_was_known_of_a_refused_file_outlasts_a_reload_that_finds_less() {
    let node = Node::shared();
    let home = Home::new(&node.uri(), "hosts_known");
    spoil(&home, "mode", Mode);
    home.configure(Keys { rest: "[handlers.mode]\n", ..Keys::default() });
    let daemon = Daemon::start(&home);
    fs::write(path(&home, "mode"), "").expect("written");
    assert_eq!(daemon.reload()["ok"], false);
    let handler = daemon.handler("mode");
    assert_eq!(handler["prefixes"], serde_json::json!([prefix("mode")]), "{handler}");
}
