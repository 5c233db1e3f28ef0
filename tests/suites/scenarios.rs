//! What handlers can do, well or badly: the same table for the fixture in Rust and for the same in C. Whatever a task
//! does to its host, the daemon stays the same process and other tasks are done.

use std::path::Path;

use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

/// What becomes of a task at its only attempt.
enum End {
    Done,
    /// The reason of the dead letter and its error code.
    Dead(&'static str, &'static str),
}
use End::{Dead, Done};

const TABLE: [(&str, &str, End); 20] = [
    ("ok", "Scenario ok", Done),
    ("version", "Scenario version", Done),
    ("sleep", "Scenario sleep 20", Done),
    ("result", "Scenario result 10000", Done),
    ("megabytes", "Scenario print 5000000", Done),
    ("grandchild", "Scenario grandchild", Done),
    ("emit", "Scenario emit Scenario ok", Done),
    ("retry", "Scenario retry", Dead("attempts", "busy")),
    ("reject", "Scenario reject", Dead("rejected", "no-such-thing")),
    ("unknown", "Scenario dance", Dead("rejected", "unknown-verb")),
    ("oversize", "Scenario result 300000", Done),
    ("panic", "Scenario panic", Dead("attempts", "panic")),
    ("segfault", "Scenario segfault", Dead("poison", "crash")),
    ("abort", "Scenario abort", Dead("poison", "crash")),
    ("exit0", "Scenario exit0", Dead("poison", "crash")),
    ("overflow", "Scenario overflow", Dead("poison", "crash")),
    ("late", "Scenario sleep 600000", Dead("timeout", "timeout")),
    ("spin", "Scenario spin", Dead("timeout", "timeout")),
    ("stubborn", "Scenario stubborn", Dead("timeout", "timeout")),
    ("last", "Scenario ok", Done),
];

#[test]
fn the_handler_in_rust_passes_every_scenario() {
    let home = Home::new(&Node::shared().uri(), "scenarios_rust");
    home.install("fixture-scenario");
    passes(&home, "scenario");
}

#[test]
fn the_handler_in_c_passes_every_scenario() {
    let home = Home::new(&Node::shared().uri(), "scenarios_c");
    home.install_c("scenario-c", "scenario.c", &[]);
    passes(&home, "scenario-c");
}

fn passes(home: &Home, plugin: &str) {
    let broker = Broker::connect(&Node::shared().uri());
    let rest = home.scenario("scenario", plugin, "timeout = \"1s\"\nretry = { attempts = 1 }")
        + &home.scenario("bystander", plugin, "prefixes = [\"Bystander\"]");
    home.configure(Keys { queue: "workers = 4", rest: &rest, ..Keys::default() });
    let mut daemon = Daemon::start(home);
    let pid = daemon.pid();
    for (id, text, _) in &TABLE {
        broker.publish(home.queue(), id, text);
        broker.publish(home.queue(), &format!("beside-{id}"), "Bystander ok");
    }
    let dead = TABLE.iter().filter(|(_, _, end)| matches!(end, Dead(..))).count();
    // And the follow-up of `emit`.
    let done = 2 * TABLE.len() - dead + 1;
    daemon.wait_count("dead", dead as u64);
    daemon.wait_count("done", done as u64);
    broker.wait_depth(&home.dead(), dead as u32);
    let letters = broker.take_all(&home.dead());
    for (id, _, end) in &TABLE {
        let letter = letters.iter().find(|letter| letter.id() == *id);
        let found = letter.map(|letter| {
            let header = |name: &str| letter.header(name).unwrap_or_default();
            (header("x-warren-reason"), header("x-warren-error-code"))
        });
        let expected = match end {
            Done => None,
            Dead(reason, code) => Some(((*reason).to_owned(), (*code).to_owned())),
        };
        assert_eq!(found, expected, "{id}");
    }
    for (id, _, _) in &TABLE {
        let id = format!("beside-{id}");
        assert_eq!(home.wait_run("end", &id, 1).len(), 1, "{id} ran once");
    }
    assert!(daemon.is_running());
    let status = daemon.status();
    assert_eq!((&status["pid"], &status["broker"]["connects"]), (&pid.into(), &1.into()));
    assert_eq!(broker.depth(home.queue()), Some(0));
    grandchild_is_gone(home);
    assert!(daemon.terminate().success());
}

/// It was in a session of its own and held the host's stdout: nothing but its parentage says whose it is.
fn grandchild_is_gone(home: &Home) {
    let pid = std::fs::read_to_string(home.path("grandchild")).expect("the id of the grandchild");
    let path = Path::new("/proc").join(pid.trim()).join("stat");
    wait::until("the end of the grandchild", || {
        let stat = std::fs::read_to_string(&path).unwrap_or_default();
        let is_ours = stat.contains("(sleep)") || stat.contains("(setsid)");
        (!is_ours || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn a_task_that_kills_its_host_is_tried_again_in_a_new_one() {
    let home = Home::new(&Node::shared().uri(), "scenarios_new_host");
    home.install("fixture-scenario");
    let keys = "retry = { attempts = 2, delay = \"250ms\", jitter = 0.0 }";
    home.configure(Keys { rest: &home.scenario("scenario", "scenario", keys), ..Keys::default() });
    let broker = Broker::connect(&Node::shared().uri());
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "fatal", "Scenario abort");
    let letter = broker.take(&home.dead());
    assert_eq!(letter.header("x-warren-reason").as_deref(), Some("poison"));
    assert_eq!(letter.header("x-warren-attempt").as_deref(), Some("2"));
    assert!(
        letter.header("x-warren-error").is_some_and(|text| text.contains("SIGABRT")),
        "says how: {letter:?}"
    );
    assert_eq!(daemon.counts()["faults"], 2);
    assert_eq!(home.wait_run("start", "fatal", 2).len(), 2);
}

#[test]
fn what_a_task_prints_is_in_the_log_and_bounded() {
    let home = Home::new(&Node::shared().uri(), "scenarios_output");
    home.install("fixture-scenario");
    home.configure(Keys { rest: &home.scenario("scenario", "scenario", ""), ..Keys::default() });
    let broker = Broker::connect(&Node::shared().uri());
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "loud", "Scenario print 5000000");
    daemon.wait_count("done", 1);
    daemon.wait_log(0, &["stream=stdout", "task_id=loud", "xxxx"]);
    let logged: usize =
        daemon.log().since(0).iter().filter(|line| line.contains("stream=stdout")).map(String::len).sum();
    assert!(logged < 1 << 20, "{logged} bytes of 5 MB are in the log");
}
