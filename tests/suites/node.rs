//! The harness's own node: it serves AMQP, survives a kill with its data, and leaves nothing behind.

use lapin::types::AMQPValue;
use warren_tests::{Broker, Node};

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

#[test]
fn a_node_whose_dead_letter_workers_fail_goes_on_dead_lettering() {
    let node = Node::start().expect("start");
    let broker = Broker::connect(&node.uri());
    let text = |text: &str| AMQPValue::LongString(text.into());
    broker.declare("target", &[("x-queue-type", text("quorum"))]);
    let delay = [
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("target")),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-message-ttl", AMQPValue::LongInt(1)),
    ];
    broker.declare("delay", &delay);
    for _ in 0..4 {
        let killed = node.eval(
            "lists:foldl(fun({_, P, _, _}, N) ->
                M = monitor(process, P), exit(P, kill), receive {'DOWN', M, _, _, _} -> N + 1 end
             end, 0, supervisor:which_children(rabbit_fifo_dlx_sup))",
        );
        assert_eq!(killed.expect("workers"), "1");
    }
    broker.publish("delay", "a", "it comes back");
    assert_eq!(broker.take("target").id(), "a");
}
