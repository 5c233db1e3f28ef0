//! Consuming and settling.

use warren_tests::rig::{Rig, queue, unique};
use warren_tests::{Broker, Node, wait};

#[test]
fn a_missing_queue_is_declared_durable_and_consumed_by_exactly_one_consumer() {
    let node = Node::shared();
    let name = unique("declared");
    let rig = Rig::start(&node.uri(), &[queue(&name, 3)]);
    rig.consuming();
    let (address, server) = rig.connected();
    assert_eq!(address, format!("127.0.0.1:{}/", node.port()));
    assert!(server.starts_with("RabbitMQ "), "{server}");
    // From 4.0 on the broker has its default type among the arguments of a queue that was declared without one.
    let question = "{amqqueue:is_durable(Q), lists:keydelete(<<\"x-queue-type\">>, 1, amqqueue:get_arguments(Q)), \
                    length(rabbit_amqqueue:consumers(Q))}";
    wait::until("the queue as it was declared, with its consumer", || {
        (node.eval_queue(&name, question)? == "{true, [], 1}").then_some(())
    });
}

#[test]
fn acknowledged_tasks_are_gone_and_the_others_come_back() {
    let node = Node::shared();
    let (name, outside) = (unique("acked"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.publish_all(&name, "t", (1..=20).map(|n| n.to_string()));
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 20)]);
    let deliveries = rig.deliveries(20);
    // 1 to 5 are one multiple ack, 8 and 20 stand above gaps.
    let (acked, open): (Vec<_>, Vec<_>) =
        deliveries.into_iter().partition(|one| one.tag <= 5 || [8, 20].contains(&one.tag));
    rig.ack(&acked);
    rig.close();
    drop(open);
    outside.wait_depth(&name, 13);
    let left: Vec<_> = outside.take_all(&name).into_iter().map(|letter| letter.text).collect();
    let expected: Vec<_> =
        (1..=20_u32).filter(|n| *n > 5 && ![8, 20].contains(n)).map(|n| n.to_string()).collect();
    assert_eq!(left, expected);
}

#[test]
fn a_requeued_task_is_delivered_again() {
    let node = Node::shared();
    let (name, outside) = (unique("requeued"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.publish(&name, "o-1", "once more");
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    let first = rig.delivery();
    assert!(!first.redelivered);
    rig.link().requeue(first.consumer, first.tag);
    rig.link().flush();
    let second = rig.delivery();
    assert!(second.redelivered && second.body == first.body && second.tag == first.tag + 1);
    rig.ack(&[second]);
    rig.close();
    outside.wait_depth(&name, 0);
}

#[test]
fn the_window_bounds_what_is_delivered_unacknowledged() {
    let node = Node::shared();
    let (name, outside) = (unique("window"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.publish_all(&name, "t", (1..=10).map(|n| n.to_string()));
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 3)]);
    let deliveries = rig.deliveries(3);
    assert_eq!(outside.depth(&name), Some(7));
    rig.ack(&deliveries[..1]);
    assert_eq!(rig.delivery().body, b"4");
    assert_eq!(outside.depth(&name), Some(6));
}

#[test]
fn stop_hands_over_what_is_buffered_and_leaves_open_tasks_to_be_settled() {
    let node = Node::shared();
    let (name, outside) = (unique("stopped"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.publish_all(&name, "t", (1..=10).map(|n| n.to_string()));
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 4)]);
    let running = rig.delivery();
    rig.stop();
    let buffered = rig.buffered();
    assert_eq!(buffered.len(), 3);
    for delivery in &buffered {
        rig.link().requeue(delivery.consumer, delivery.tag);
    }
    rig.link().flush();
    outside.wait_depth(&name, 9);
    rig.ack(&[running]);
    rig.close();
    let left: Vec<_> = outside.take_all(&name).into_iter().map(|letter| letter.text).collect();
    assert_eq!(left, (2..=10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn after_a_restart_of_the_node_tasks_are_consumed_again() {
    let mut node = Node::own();
    let (name, outside) = (unique("restart"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.publish(&name, "o-1", "held over the restart");
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    assert_eq!(rig.consuming().0, 1);
    let first = rig.delivery();
    drop(outside);
    node.stop().expect("stop");
    let (lost, why) = rig.lost();
    assert_eq!(lost, first.consumer);
    assert!(!why.is_empty());
    node.resume().expect("resume");
    let again = rig.consuming();
    assert_ne!(again, first.consumer);
    let second = rig.delivery();
    assert_eq!((second.consumer, &second.body), (again, &first.body));
    // The tag of the lost consumer is nobody's: settling it now must not touch the new one.
    rig.link().ack(first.consumer, first.tag);
    rig.ack(&[second]);
    rig.close();
    let outside = Broker::connect(&node.uri());
    outside.wait_depth(&name, 0);
}

#[test]
fn a_deleted_queue_is_declared_again() {
    let node = Node::shared();
    let (name, outside) = (unique("deleted"), Broker::connect(&node.uri()));
    let rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    let first = rig.consuming();
    rig.connected();
    outside.delete(&name);
    let (lost, why) = rig.lost();
    assert_eq!(lost, first);
    // RabbitMQ 4.0.5 does not tell when the consumer is this new; then the daemon finds out.
    assert!(why.contains("cancelled") || why.contains("the queue was deleted"), "{why}");
    rig.consuming();
    outside.publish(&name, "o-1", "after");
    assert_eq!(rig.delivery().body, b"after");
}

/// The consumer is there for the daemon and not for the broker, as after a leader change that went wrong.
#[test]
fn a_consumer_that_the_broker_forgot_is_made_again() {
    let node = Node::shared();
    let (name, outside) = (unique("forgotten"), Broker::connect(&node.uri()));
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    let first = rig.consuming();
    let forget = "Channels = [element(1, C) || C <- rabbit_amqqueue:consumers(Q)], \
                  [rabbit_amqqueue:notify_down_all([amqqueue:get_pid(Q)], Channel) || Channel <- Channels], \
                  {length(Channels), length(rabbit_amqqueue:consumers(Q))}";
    assert_eq!(node.eval_queue(&name, forget).as_deref(), Some("{1, 0}"));
    outside.publish(&name, "o-1", "waits");
    let (lost, why) = rig.lost();
    assert_eq!(lost, first);
    assert!(why.contains("has no consumer"), "{why}");
    rig.consuming();
    let delivery = rig.delivery();
    assert_eq!(delivery.body, b"waits");
    rig.ack(&[delivery]);
    rig.close();
    outside.wait_depth(&name, 0);
}

#[test]
fn a_channel_error_of_one_queue_leaves_the_other_alone() {
    let node = Node::shared();
    let (one, other, outside) = (unique("one"), unique("other"), Broker::connect(&node.uri()));
    let rig = Rig::start(&node.uri(), &[queue(&one, 1), queue(&other, 1)]);
    let (first, second) = (rig.consuming_queue(&one), rig.consuming_queue(&other));
    outside.publish(&other, "o-1", "running");
    let running = rig.delivery();
    assert_eq!(running.consumer, second);
    outside.delete(&one);
    assert_eq!(rig.lost().0, first);
    rig.consuming();
    let mut rig = rig;
    rig.ack(&[running]);
    rig.close();
    outside.wait_depth(&other, 0);
}

#[test]
fn a_changed_queue_list_touches_only_what_changed() {
    let node = Node::shared();
    let (same, gone, new) = (unique("same"), unique("gone"), unique("new"));
    let outside = Broker::connect(&node.uri());
    let mut rig = Rig::start(&node.uri(), &[queue(&same, 1), queue(&gone, 1)]);
    let (first, second) = (rig.consuming_queue(&same), rig.consuming_queue(&gone));
    outside.publish(&same, "s", "same");
    outside.publish(&gone, "g", "gone");
    let held = [rig.delivery(), rig.delivery()];
    rig.reconfigure(&warren_tests::rig::broker(&node.uri()), &[queue(&same, 1), queue(&new, 2)]);
    let stopped = rig.stopped();
    assert_eq!(stopped, second);
    assert!(rig.consuming() > second);
    rig.ack(&held);
    outside.publish(&same, "s2", "still the same consumer");
    assert_eq!(rig.delivery().consumer, first);
    rig.close();
    outside.wait_depth(&gone, 0);
    outside.wait_depth(&same, 1);
}

#[test]
fn a_changed_address_gets_a_new_link_and_the_old_one_settles_what_it_holds() {
    let node = Node::shared();
    let (name, outside) = (unique("moved"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.publish(&name, "o-1", "running");
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 2)]);
    let running = rig.delivery();
    rig.connected();
    let moved = warren_tests::rig::broker(&node.uri().replace("127.0.0.1", "localhost"));
    rig.reconfigure(&moved, &[queue(&name, 2)]);
    let (address, _) = rig.connected();
    assert!(address.starts_with("localhost:"), "{address}");
    outside.publish(&name, "o-2", "on the new link");
    let next = rig.delivery();
    assert_ne!(next.consumer, running.consumer);
    assert_eq!(next.body, b"on the new link");
    rig.ack(&[running, next]);
    rig.close();
    outside.wait_depth(&name, 0);
}

#[test]
fn queues_of_others_are_taken_as_they_are() {
    let node = Node::shared();
    let outside = Broker::connect(&node.uri());
    let arguments: [&[(&str, lapin::types::AMQPValue)]; 4] = [
        &[("x-max-priority", 5.into())],
        &[("x-queue-type", text("quorum"))],
        &[("x-max-length-bytes", 1_000_000.into()), ("x-message-ttl", 3_600_000.into())],
        &[("x-queue-mode", text("lazy")), ("x-dead-letter-exchange", text("amq.fanout"))],
    ];
    let names: Vec<_> = arguments
        .iter()
        .map(|arguments| {
            let name = unique("others");
            outside.declare(&name, arguments);
            outside.publish(&name, "o", &name);
            name
        })
        .collect();
    let queues: Vec<_> = names.iter().map(|name| queue(name, 1)).collect();
    let mut rig = Rig::start(&node.uri(), &queues);
    let deliveries = rig.deliveries(names.len());
    let mut seen: Vec<_> =
        deliveries.iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect();
    seen.sort();
    let mut expected = names.clone();
    expected.sort();
    assert_eq!(seen, expected);
    rig.ack(&deliveries);
    rig.close();
}

#[test]
fn a_header_larger_than_our_frames_still_arrives() {
    let node = Node::shared();
    let (name, outside) = (unique("header"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    let long = "h".repeat(60_000);
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("long".into(), text(&long));
    let body = vec![b'b'; 300_000];
    outside.publish_with(&name, lapin::BasicProperties::default().with_headers(headers), &body);
    let rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    let delivery = rig.delivery();
    assert_eq!(delivery.body, body);
    let headers = delivery.properties.headers().clone().expect("headers");
    assert_eq!(headers.inner().get("long"), Some(&text(&long)));
}

fn text(value: &str) -> lapin::types::AMQPValue {
    lapin::types::AMQPValue::LongString(value.into())
}
