//! The harness's own node: it serves AMQP, survives a kill with its data, and leaves nothing behind.

use warren_tests::Node;

#[test]
fn a_node_serves_amqp_and_restarts_on_its_port() {
    let mut node = Node::start().expect("start");
    let (major, minor) = node.version();
    let status = node.ctl(&["status"]).expect("status");
    assert!(status.contains(&format!("RabbitMQ version: {major}.{minor}.")), "{status}");
    let port = node.port();
    node.restart().expect("restart");
    assert_eq!(node.port(), port);
}
