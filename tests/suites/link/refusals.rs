//! What the broker refuses, and peers that are no broker: each one clear message, and nothing leaks.

use std::net::TcpListener;
use std::time::Duration;

use warren::broker::{DialError, dial};
use warren::config::{Broker as BrokerConfig, Secret};
use warren_tests::rig::{Rig, broker, queue, unique};
use warren_tests::{Broker, Node};

fn dialled(broker: &BrokerConfig) -> Result<(), DialError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { dial(broker, "test").await.map(drop) })
}

fn error(uri: &str) -> DialError {
    dialled(&broker(uri)).expect_err(uri)
}

#[test]
fn a_refused_login_names_the_user_and_not_the_password() {
    let node = Node::shared();
    let uri = format!("amqp://nobody:secret@127.0.0.1:{}/%2f", node.port());
    let error = error(&uri);
    assert!(matches!(error, DialError::Login { .. }), "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("nobody") && !text.contains("secret"), "{text}");
}

#[test]
fn a_missing_vhost_is_named_with_the_remedy() {
    let node = Node::shared();
    let error = error(&format!("amqp://guest:guest@127.0.0.1:{}/nowhere", node.port()));
    assert!(matches!(error, DialError::VhostMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("add_vhost"), "{error}");
}

#[test]
fn a_vhost_that_the_user_may_not_enter_is_named_with_the_remedy() {
    let node = Node::shared();
    let user = unique("stranger");
    node.ctl(&["add_user", &user, "pw"]).expect("add_user");
    let error = error(&format!("amqp://{user}:pw@127.0.0.1:{}/%2f", node.port()));
    assert!(matches!(error, DialError::VhostRefused { .. }), "{error:?}");
    assert!(error.to_string().contains("set_permissions"), "{error}");
}

#[test]
fn a_port_without_a_listener_is_refused_at_once() {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let error = error(&format!("amqp://127.0.0.1:{port}/%2f"));
    assert!(matches!(error, DialError::Connect { .. }), "{error:?}");
}

#[test]
fn a_name_without_an_address_is_a_name_service_problem() {
    let error = error("amqp://no-such-host.invalid/%2f");
    assert!(matches!(error, DialError::Dns { .. }), "{error:?}");
}

#[test]
fn tls_to_a_plain_port_is_a_tls_problem() {
    let node = Node::shared();
    let error = error(&format!("amqps://127.0.0.1:{}/%2f", node.port()));
    assert!(matches!(error, DialError::Tls { .. }), "{error:?}");
}

#[test]
fn the_next_address_is_tried_when_one_fails() {
    let node = Node::shared();
    let mut broker = broker("amqp://no-such-host.invalid/%2f");
    broker.uris.push(Secret(node.uri()));
    dialled(&broker).expect("the second address");
}

#[test]
fn a_silent_peer_costs_the_time_limit_and_leaves_nothing_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("address");
    let mut broker = broker(&format!("amqp://{address}/%2f"));
    broker.connect_timeout = Duration::from_millis(100);
    // Its sockets, by the port at their other end; one that is closed belongs to no descriptor any more.
    let sockets = || {
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("proc");
        let remote = format!("0100007F:{:04X}", address.port());
        let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row.get(2) == Some(&&*remote) && row.get(9).is_some_and(|inode| *inode != "0"))
            .count()
    };
    let threads = || {
        let names = std::fs::read_dir("/proc/self/task").expect("proc").flatten();
        let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "lapin-io-loop").count()
    };
    // Other tests dial at the same time, so that only the growth of the threads over many attempts counts.
    let before = threads();
    for _ in 0..40 {
        let error = dialled(&broker).expect_err("silence");
        assert!(matches!(error, DialError::Timeout { .. }), "{error:?}");
    }
    warren_tests::wait::until("threads and descriptors to be given back", || {
        (threads() < before + 20 && sockets() == 0).then_some(())
    });
    drop(listener);
}

#[test]
fn a_stream_is_refused_by_name_and_the_other_queue_is_consumed() {
    let node = Node::shared();
    let outside = Broker::connect(&node.uri());
    let (fine, streams) = (unique("fine"), [unique("stream"), unique("stream")]);
    let kind = || ("x-queue-type", lapin::types::AMQPValue::LongString("stream".into()));
    outside.declare(&streams[0], &[kind()]);
    outside.declare(
        &streams[1],
        &[
            kind(),
            ("x-max-length-bytes", 1_000_000_i64.into()),
            ("x-max-age", lapin::types::AMQPValue::LongString("1h".into())),
        ],
    );
    for stream in &streams {
        let rig = Rig::start(&node.uri(), &[queue(stream, 1), queue(&fine, 1)]);
        let why = rig.unusable();
        assert!(why.contains(stream.as_str()) && why.contains("is a stream"), "{why}");
        rig.consuming();
    }
}

#[test]
fn a_missing_permission_names_the_queue_and_what_is_needed() {
    let node = Node::shared();
    let (user, name, outside) = (unique("reader"), unique("forbidden"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    node.add_user(&user, "pw", ["^$"; 3]);
    let rig = Rig::start(&format!("amqp://{user}:pw@127.0.0.1:{}/%2f", node.port()), &[queue(&name, 1)]);
    let why = rig.unusable();
    assert!(why.contains(&name) && why.contains("set_permissions"), "{why}");
}

#[test]
fn a_refused_login_is_told_and_tried_again() {
    let node = Node::own();
    let user = unique("late");
    let rig =
        Rig::start(&format!("amqp://{user}:pw@127.0.0.1:{}/%2f", node.port()), &[queue(&unique("late"), 1)]);
    let why = rig.away();
    assert!(why.contains("login refused") && why.contains(&user), "{why}");
    node.add_user(&user, "pw", [".*"; 3]);
    rig.consuming();
}
