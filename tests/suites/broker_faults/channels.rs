//! A broker that allows few channels on a connection.

use std::io::Write;
use std::process::{Command, Stdio};

use warren_tests::{Broker, Daemon, Node, artefacts, wait};

use super::stage::{home, queue};

const TASKS: usize = 12;

#[test]
fn with_four_channels_a_connection_everything_is_published() {
    let node = Node::own();
    let broker = Broker::connect(&node.uri());
    node.set_env("channel_max", 4);
    let handler = "retry = { attempts = 2, delay = \"250ms\" }";
    let home = home(&node.uri(), "channels", ["", "prefetch = 5\nworkers = 4", handler]);
    let daemon = Daemon::start(&home);
    let publish = |arguments: &[&str], text: &str| {
        let mut command = Command::new(artefacts::program("warrenctl"));
        command.arg("publish").arg("--config").arg(home.config()).args(arguments).arg("-");
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("warrenctl");
        let lines = format!("{text}\n").repeat(TASKS);
        child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    publish(&[], "Scenario until 2");
    publish(&["--delay", "250ms"], "Scenario ok");
    // A lost connection may make a second copy: lapin gives an old answer to a channel whose number has been used.
    let at_least = |name: &'static str, count: usize| {
        wait::until(name, || (daemon.counts()[name].as_u64() >= Some(count as u64)).then_some(()));
    };
    at_least("done", 2 * TASKS);
    publish(&[], "Scenario reject");
    at_least("dead", TASKS);
    wait_idle(&daemon);
    let config = home.config();
    let replay = ["dead", "replay", "--all", "--config", config.to_str().expect("a path")];
    daemon.ask(&replay);
    at_least("dead", 2 * TASKS);
    wait_idle(&daemon);
    assert!(broker.depth(&home.dead()) >= Some(TASKS as u32));
    let log = daemon.log().since(0);
    assert!(!log.iter().any(|line| line.contains("no more channels")), "no channel too many was asked for");
}

/// Nothing waits, runs or is being settled.
fn wait_idle(daemon: &Daemon) {
    wait::until("every task settled", || {
        let queue = queue(daemon);
        ["running", "waiting", "settling"].iter().all(|key| queue[*key] == 0).then_some(())
    });
}
