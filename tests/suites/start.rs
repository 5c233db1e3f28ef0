//! The start: bad configuration, a broker that refuses or is away, and how long it takes.

use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use lapin::types::AMQPValue;
use warren_tests::{Broker, Daemon, Home, Keys, Node};

/// Runs a daemon that is to end by itself; gives its status and all it said.
fn fails(home: &Home, environment: &[(&str, &str)]) -> (ExitStatus, String) {
    let mut daemon = Daemon::spawn(home, environment);
    let status = daemon.wait_end();
    let told = daemon.notified().since(0);
    assert!(!told.iter().any(|line| line == "READY=1"), "{told:?}");
    (status, daemon.log().since(0).join("\n"))
}

#[test]
fn a_bad_configuration_is_exit_78_with_every_error_at_its_place() {
    let home = Home::new(&Node::shared().uri(), "start_config");
    let table: [(&str, &[&str]); 8] = [
        ("[queues.q]\nprefetch = \n", &["warren.toml:2"]),
        ("[queues.q]\nprefetsch = 1\n", &["prefetsch", "prefetch"]),
        ("[queues.q]\nprefetch = \"many\"\n", &["prefetch"]),
        ("[queues.q]\nprefetch = 0\n[broker]\nheartbeet = \"1s\"\n", &["prefetch", "heartbeet", "heartbeat"]),
        ("[queues.q]\nworkers = 0\n", &["workers"]),
        ("[queues.q]\n[handlers.a]\nprefixes = [\"X\"]\n[handlers.b]\nprefixes = [\"X\"]\n", &["\"X\""]),
        ("[broker]\nuri_file = \"/nonexistent/uri\"\n[queues.q]\n", &["/nonexistent/uri"]),
        ("[broker]\nuri = \"http://localhost\"\n[queues.q]\n", &["amqp://"]),
    ];
    for (text, parts) in table {
        home.write_config(text);
        let (status, log) = fails(&home, &[]);
        assert_eq!(status.code(), Some(78), "{text}: {log}");
        for part in parts {
            assert!(log.contains(part), "{text} names {part}: {log}");
        }
    }
    std::fs::remove_file(home.config()).expect("remove");
    let (status, log) = fails(&home, &[]);
    assert_eq!(status.code(), Some(78));
    assert!(log.contains("warren.toml"), "{log}");
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused() {
    let home = Home::new(&Node::shared().uri(), "start_second");
    home.install("fixture-scenario");
    home.configure(Keys { rest: &home.scenario("scenario", "scenario", ""), ..Keys::default() });
    let mut first = Daemon::start(&home);
    let (status, log) = fails(&home, &[]);
    assert_eq!(status.code(), Some(75), "{log}");
    assert!(log.contains("control.sock"), "{log}");
    assert!(first.is_running());
    assert_eq!(first.status()["ready"], true, "the first one's socket still works");
}

/// What the broker refuses: the URI or the set-up, and what the daemon says of it.
#[test]
fn what_the_broker_refuses_is_named_with_its_remedy() {
    let node = Node::shared();
    for (arguments, what) in [
        (&["add_user", "start_stranger", "secret-word"][..], "a user without any permission"),
        (&["add_vhost", "start_vhost"], "a vhost of which guest has no permission"),
        (&["add_user", "start_reader", "secret-word"], "a user"),
        (&["set_permissions", "start_reader", "^$", "^$", ".*"], "that may read only"),
    ] {
        node.ctl(arguments).expect(what);
    }
    let port = node.port();
    let table = [
        ("login", format!("amqp://guest:secret-word@127.0.0.1:{port}/%2f"), "start_refused", "password"),
        ("vhost", format!("amqp://guest:guest@127.0.0.1:{port}/nowhere"), "start_refused", "vhost"),
        (
            "vhost access",
            format!("amqp://guest:guest@127.0.0.1:{port}/start_vhost"),
            "start_refused",
            "vhost",
        ),
        (
            "permission",
            format!("amqp://start_reader:secret-word@127.0.0.1:{port}/%2f"),
            "start_refused",
            "permission",
        ),
    ];
    for (what, uri, queue, says) in table {
        let home = Home::new(&uri, queue);
        home.install("fixture-scenario");
        let rest = home.scenario("scenario", "scenario", "");
        let keys = "require_broker = true\nstart_wait = \"1s\"";
        home.configure(Keys { daemon: keys, rest: &rest, ..Keys::default() });
        let (status, log) = fails(&home, &[]);
        assert_eq!(status.code(), Some(69), "{what}: {log}");
        assert!(log.to_lowercase().contains(says), "{what} names {says}: {log}");
        assert!(!log.contains("secret-word"), "no credential in the log: {log}");
    }
}

#[test]
fn a_stream_queue_is_refused_and_other_arguments_are_taken_as_they_are() {
    let node = Node::shared();
    let broker = Broker::connect(&node.uri());
    broker.declare("start_stream", &[("x-queue-type", AMQPValue::LongString("stream".into()))]);
    let home = Home::new(&node.uri(), "start_stream");
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", "");
    let keys = "require_broker = true\nstart_wait = \"1s\"";
    home.configure(Keys { daemon: keys, rest: &rest, ..Keys::default() });
    let (status, log) = fails(&home, &[]);
    assert_eq!(status.code(), Some(69), "{log}");
    assert!(log.contains("stream"), "{log}");

    for (queue, arguments) in [
        ("start_max", &[("x-max-length", AMQPValue::LongInt(1000))][..]),
        ("start_quorum", &[("x-queue-type", AMQPValue::LongString("quorum".into()))]),
        ("start_priority", &[("x-max-priority", AMQPValue::LongInt(5))]),
    ] {
        broker.declare(queue, arguments);
        let home = Home::new(&node.uri(), queue);
        home.install("fixture-scenario");
        home.configure(Keys { rest: &home.scenario("scenario", "scenario", ""), ..Keys::default() });
        let daemon = Daemon::start(&home);
        broker.publish(queue, "one", "Scenario ok");
        daemon.wait_count("done", 1);
    }
}

#[test]
fn start_to_ready_is_short_with_a_broker_there() {
    // A second is the aim on an idle machine; tests run beside each other.
    const LIMIT: Duration = Duration::from_secs(10);
    let home = Home::new(&Node::shared().uri(), "start_quick");
    home.install("fixture-scenario");
    home.configure(Keys { rest: &home.scenario("scenario", "scenario", ""), ..Keys::default() });
    let begin = Instant::now();
    let _daemon = Daemon::start(&home);
    assert!(begin.elapsed() < LIMIT, "took {:?}", begin.elapsed());
}

#[test]
fn without_a_broker_the_daemon_is_active_and_not_ready_and_consumes_when_it_is_there() {
    let mut node = Node::own();
    let home = Home::new(&node.uri(), "start_away");
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", "");
    home.configure(Keys { daemon: "start_wait = \"500ms\"", rest: &rest, ..Keys::default() });
    node.stop().expect("stop");
    let daemon = Daemon::start(&home);
    assert_eq!(daemon.status()["ready"], false);
    node.resume().expect("resume");
    let broker = Broker::connect(&node.uri());
    warren_tests::wait::until("ready", || (daemon.status()["ready"] == true).then_some(()));
    broker.publish(home.queue(), "first", "Scenario ok");
    daemon.wait_count("done", 1);
}

#[test]
fn a_restarted_broker_is_found_again_and_no_task_is_lost() {
    let mut node = Node::own();
    let home = Home::new(&node.uri(), "start_restart");
    home.install("fixture-scenario");
    home.configure(Keys { rest: &home.scenario("scenario", "scenario", ""), ..Keys::default() });
    let daemon = Daemon::start(&home);
    {
        let broker = Broker::connect(&node.uri());
        broker.publish(home.queue(), "held", "Scenario hold gate");
        broker.publish(home.queue(), "before", "Scenario ok");
        home.wait_run("end", "before", 1);
        home.wait_run("start", "held", 1);
    }
    let from = daemon.log().next();
    node.restart().expect("restart");
    let broker = Broker::connect(&node.uri());
    broker.publish(home.queue(), "after", "Scenario ok");
    home.wait_run("end", "after", 1);
    home.release("gate");
    wait_settled(&broker, &daemon, &home);
    assert_eq!(
        home.wait_run("end", "held", 1).len(),
        1,
        "the redelivery was adopted by the run that went on"
    );
    assert!(!daemon.log().since(from).iter().any(|line| line.contains("guest:")), "no credential in the log");
}

/// Everything acknowledged: nothing is ready, running or waiting.
fn wait_settled(broker: &Broker, daemon: &Daemon, home: &Home) {
    warren_tests::wait::until("every task settled", || {
        let queue = daemon.status()["queues"][0].clone();
        let idle = ["running", "waiting", "settling"].iter().all(|key| queue[*key] == 0);
        (idle && broker.depth(home.queue()) == Some(0)).then_some(())
    });
}

/// A user's or vhost's limit on connections: named with its own remedy, and no daemon is ready that can consume and not
/// publish.
#[test]
fn a_connection_limit_is_told_as_what_it_is_and_a_daemon_that_cannot_publish_is_not_ready() {
    let node = Node::shared();
    let limits = |limit: &str| format!("{{\"max-connections\": {limit}}}");
    for arguments in [
        &["add_user", "start_limited", "secret-word"][..],
        &["set_permissions", "start_limited", ".*", ".*", ".*"],
        &["add_vhost", "start_limits"],
        &["set_permissions", "-p", "start_limits", "guest", ".*", ".*", ".*"],
        &["set_vhost_limits", "-p", "start_limits", &limits("0")],
    ] {
        node.ctl(arguments).expect("set up");
    }
    let uri = format!("amqp://guest:guest@127.0.0.1:{}/start_limits", node.port());
    let home = Home::new(&uri, "start_limits");
    home.install("fixture-noop");
    home.configure(Keys { daemon: "require_broker = true\nstart_wait = \"1s\"", ..Keys::default() });
    let (status, log) = fails(&home, &[]);
    assert_eq!(status.code(), Some(69), "{log}");
    assert!(log.contains("connection limit of vhost `start_limits` (0) is reached"), "{log}");
    assert!(log.contains("set_vhost_limits -p start_limits") && !log.contains("set_permissions"), "{log}");

    let uri = format!("amqp://start_limited:secret-word@127.0.0.1:{}/%2f", node.port());
    let home = Home::new(&uri, "start_limited");
    home.install("fixture-noop");
    home.configure(Keys::default());
    let daemon = Daemon::start(&home);
    node.ctl(&["set_user_limits", "start_limited", &limits("1")]).expect("a limit");
    let name = format!("warrend[{}] publishing", daemon.pid());
    let connections = node.ctl(&["list_connections", "pid", "client_properties"]).expect("a list");
    let line = connections.lines().find(|line| line.contains(&name)).expect("the publishing connection");
    let pid = line.split('\t').next().expect("a pid");
    node.ctl(&["close_connection", pid, "closed by a test"]).expect("closed");
    let refused = || {
        let status = daemon.status();
        let error = status["broker"]["last_error"].as_str().unwrap_or_default().to_owned();
        error.contains("connection limit of user `start_limited` (1) is reached").then_some((status, error))
    };
    let (status, error) = warren_tests::wait::until("the refusal", refused);
    assert!(error.contains("set_user_limits start_limited") && !error.contains("set_permissions"), "{error}");
    assert_eq!((&status["ready"], &status["broker"]["state"]), (&false.into(), &"not publishing".into()));
    assert_eq!(status["queues"][0]["state"], "consuming");
    daemon.wait_notified(0, "STATUS=consuming, but nothing can be published (");
    let config = home.config();
    let doctor = daemon.warrenctl(&["doctor", "--config", config.to_str().expect("a path")]);
    let found = String::from_utf8_lossy(&doctor.stdout);
    assert!(found.contains("not ready; broker not publishing"), "{found}");

    node.ctl(&["clear_user_limits", "start_limited", "max-connections"]).expect("no limit");
    warren_tests::wait::until("ready again", || (daemon.status()["ready"] == true).then_some(()));
}

/// Listens on the IPv6 loopback address and hands everything on to the node; gives the port. Ends with the process.
fn forward_from_v6(node: &'static Node) -> u16 {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("an IPv6 loopback address");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let broker = TcpStream::connect(("127.0.0.1", node.port())).expect("the node");
            for (mut from, mut to) in [
                (client.try_clone().expect("a descriptor"), broker.try_clone().expect("a descriptor")),
                (broker, client),
            ] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    port
}

#[test]
fn an_ipv6_address_does_for_the_daemon_and_every_verb() {
    let port = forward_from_v6(Node::shared());
    let home = Home::new(&format!("amqp://guest:guest@[::1]:{port}/%2f"), "start_six");
    home.install("fixture-scenario");
    home.configure(Keys { rest: &home.scenario("scenario", "scenario", ""), ..Keys::default() });
    let daemon = Daemon::start(&home);
    assert_eq!(daemon.status()["broker"]["address"], format!("[::1]:{port}/"));
    let config = home.config();
    let config = ["--config", config.to_str().expect("a path")];
    daemon.ask(&[&["publish", "--wait", "Scenario ok"][..], &config].concat());
    daemon.ask(&[&["publish", "nothing for anybody"][..], &config].concat());
    daemon.wait_count("dead", 1);
    // Counted before it is confirmed.
    Broker::connect(&Node::shared().uri()).wait_depth(&home.dead(), 1);
    let letters = daemon.ask(&[&["dead", "list"][..], &config].concat());
    assert!(letters.to_string().contains("nothing for anybody"), "{letters}");
    let doctor = daemon.warrenctl(&[&["doctor"][..], &config].concat());
    let found = String::from_utf8_lossy(&doctor.stdout);
    assert!(
        found.contains("login and vhost are good") && found.contains(&format!("[::1]:{port}/")),
        "{found}"
    );
}
