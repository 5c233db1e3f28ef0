//! Queues that go away and come back as something else.

use lapin::types::AMQPValue;
use warren_tests::rig::{Rig, queue, unique};
use warren_tests::{Broker, Node};

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[test]
fn a_queue_that_comes_back_with_other_arguments_is_consumed_again() {
    let node = Node::shared();
    let (name, outside) = (unique("recreated"), Broker::connect(&node.uri()));
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    let mut last = rig.consuming();
    let shapes: [(&str, &[(&str, AMQPValue)]); 4] = [
        ("bounded", &[("x-max-length", 100.into()), ("x-overflow", text("reject-publish"))]),
        ("quorum", &[("x-queue-type", text("quorum"))]),
        ("priority", &[("x-max-priority", 5.into())]),
        ("plain", &[]),
    ];
    for (what, arguments) in shapes {
        // The link's tasks stand still meanwhile: it cannot declare the queue in between.
        outside.delete(&name);
        outside.declare(&name, arguments);
        let (lost, why) = rig.lost();
        assert_eq!(lost, last, "{what}");
        assert!(why.contains("cancelled"), "{why}");
        last = rig.consuming();
        outside.publish(&name, what, what);
        let delivery = rig.delivery();
        assert_eq!((delivery.consumer, &*delivery.body), (last, what.as_bytes()));
        rig.ack(&[delivery]);
        outside.wait_one_consumer(&name);
    }
    rig.close();
}

#[test]
fn a_queue_that_comes_back_as_a_stream_is_refused_until_it_is_a_queue_again() {
    let node = Node::shared();
    let (name, outside) = (unique("streamed"), Broker::connect(&node.uri()));
    let rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    rig.consuming();
    outside.delete(&name);
    outside.declare(&name, &[("x-queue-type", text("stream"))]);
    rig.lost();
    let why = rig.unusable();
    assert!(why.contains("is a stream"), "{why}");
    outside.delete(&name);
    outside.declare(&name, &[]);
    rig.consuming();
    outside.wait_one_consumer(&name);
}
