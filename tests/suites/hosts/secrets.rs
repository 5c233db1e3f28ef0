//! The daemon's memory, environment and descriptors are not its hosts', which run as the same user.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;

use warren_tests::{Broker, Daemon, Home, Keys, Node};

/// Nobody's, on Debian. As root a host may do everything, and so may who runs the tests as anybody else: to himself.
const NOBODY: u32 = 65534;

#[test]
fn a_host_gets_at_nothing_that_the_daemon_holds() {
    let node = Node::shared();
    let home = Home::new(&node.uri(), "hosts_secrets");
    home.install_c("spy", "spy.c", &[]);
    home.configure(Keys::default());
    let broker = Broker::connect(&node.uri());
    let user = format!("--reuid={NOBODY}");
    let group = format!("--regid={NOBODY}");
    // The socket to notify is the test's.
    let nobody =
        ["env", "-u", "NOTIFY_SOCKET", "setpriv", &user, &group, "--clear-groups", "--pdeathsig", "KILL"];
    let launcher: &[&str] = if rustix::process::geteuid().is_root() {
        chown(home.directory(), Some(NOBODY), Some(NOBODY)).expect("our own directory");
        &nobody
    } else {
        &[]
    };
    let mut daemon = Daemon::spawn_by(launcher, &home, &[]);
    daemon.wait_log(0, &["INFO", "ready", "after_ms"]);
    broker.publish(home.queue(), "t", "Spy");
    let letter = broker.take(&home.dead());
    assert_eq!(letter.header("x-warren-error").as_deref(), Some("got:"), "{letter:?}");
    // What the daemon reads of itself is not in its way.
    let mut control = UnixStream::connect(home.socket()).expect("the control socket");
    control.write_all(b"GET /metrics HTTP/1.0\r\nhost: warren\r\n\r\n").expect("written");
    let mut metrics = String::new();
    control.read_to_string(&mut metrics).expect("an answer");
    for name in ["process_open_fds ", "process_resident_memory_bytes "] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name}: {metrics}");
    }
    assert!(daemon.terminate().success());
}
