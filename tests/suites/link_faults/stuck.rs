//! What the broker does not answer holds up nothing else.

use std::time::{Duration, Instant};

use warren::broker::copy::Parent;
use warren::broker::{LinkEvent, PublishError};
use warren::config::Queue;
use warren::model::FollowUp;
use warren_tests::rig::{Rig, broker, queue, unique};
use warren_tests::{Broker, Node, Proxy, wait};

/// The link's tasks run for so long between two looks at the broker.
const TURNS: Duration = Duration::from_millis(50);

#[test]
fn a_close_is_not_held_up_by_a_broker_that_does_not_answer() {
    let node = Node::shared();
    let proxy = Proxy::start(node.port());
    let mut settings = broker(&proxy.uri());
    settings.heartbeat = Duration::ZERO; // nothing but the bounds ends a wait
    let (one, other) = (unique("one"), unique("other"));
    let mut rig = Rig::with(&settings, &[queue(&one, 1)]);
    rig.consuming();
    rig.connected();
    proxy.stall();
    // A cancel and a declaration are under way, and get no answer.
    rig.reconfigure(&settings, &[queue(&other, 1)]);
    let begin = Instant::now();
    rig.close_within(Duration::from_secs(1));
    rig.run("both connections to be ended", async {
        while established_to(proxy.port()) > 0 {
            tokio::time::sleep(TURNS).await;
        }
    });
    assert!(begin.elapsed() < Duration::from_secs(10), "took {:?}", begin.elapsed());
}

/// Open connections of this machine to a port of loopback.
fn established_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc");
    let peer = format!("0100007F:{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(2) == Some(&&*peer) && row.get(3) == Some(&"01")).count()
}

#[test]
fn a_queue_that_comes_and_goes_faster_than_the_broker_answers_ends_up_as_last_wanted() {
    let node = Node::shared();
    let proxy = Proxy::start(node.port());
    let outside = Broker::connect(&node.uri());
    let (steady, restless) = (unique("steady"), unique("restless"));
    let settings = broker(&proxy.uri());
    let mut rig = Rig::with(&settings, &[queue(&steady, 1), queue(&restless, 1)]);
    let first = rig.consuming_queue(&steady);
    rig.consuming_queue(&restless);
    outside.publish(&steady, "s-1", "running");
    let running = rig.delivery();
    for round in 0..20_u16 {
        if round % 5 == 0 {
            proxy.stall();
        }
        rig.reconfigure(&settings, &[queue(&steady, 1)]);
        rig.run("a turn", tokio::task::yield_now());
        rig.reconfigure(&settings, &[queue(&steady, 1), queue(&restless, 1 + round % 7)]);
        rig.run("a turn", tokio::task::yield_now());
        proxy.forward();
    }
    wait::until("one consumer with the last window", || {
        rig.run("turns of the link's tasks", async { tokio::time::sleep(TURNS).await });
        (node.windows(&restless) == [1 + 19 % 7]).then_some(())
    });
    assert_eq!(running.consumer, first);
    rig.ack(&[running]);
    outside.publish(&steady, "s-2", "still the same consumer");
    assert_eq!(rig.delivery().consumer, first);
    rig.close();
    outside.wait_depth(&steady, 1);
}

#[test]
fn a_stopped_consumer_whose_channel_the_broker_closes_is_lost_before_its_task_comes_back() {
    let node = Node::own();
    let queue_type = node.set_consumer_timeout(1_000, 200);
    let (name, outside) = (unique("overdue"), Broker::connect(&node.uri()));
    let queue = |window| Queue { queue_type, ..queue(&name, window) };
    let mut rig = Rig::start(&node.uri(), &[queue(1)]);
    let first = rig.consuming();
    outside.publish(&name, "long", "runs longer than the broker allows");
    let running = rig.delivery();
    rig.reconfigure(&broker(&node.uri()), &[queue(2)]);
    assert_eq!(rig.stopped(), first);
    let ((), event) = rig.wait("the loss or the redelivery", |event| match event {
        LinkEvent::Lost { .. } => Some(()),
        LinkEvent::Delivery(delivery) if delivery.redelivered => Some(()),
        _ => None,
    });
    assert!(
        matches!(event, LinkEvent::Lost { consumer, .. } if consumer == first),
        "it would run twice at the same time: {event:?}"
    );
    let again = rig.delivery();
    assert!(again.redelivered && again.body == running.body);
    rig.ack(&[again]);
    rig.close();
    outside.wait_depth(&name, 0);
}

#[test]
fn questions_answered_with_an_error_may_use_up_all_channel_numbers() {
    // lapin gives such a number's next channel the old error: a queue would stay missing.
    const QUESTIONS: usize = 2_100;
    const AT_ONCE: usize = 20;
    let node = Node::shared();
    let name = unique("numbers");
    let rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    rig.consuming();
    let publisher = rig.publisher();
    let follow_up = |target: &str| {
        let (publisher, work) = (publisher.clone(), queue(&name, 1));
        let task = FollowUp {
            queue: target.to_owned(),
            body: b"later".to_vec(),
            delay: Duration::from_millis(250),
            priority: -1,
            ..FollowUp::default()
        };
        async move {
            let parent = Parent { id: "o-1", properties: &lapin::BasicProperties::default() };
            publisher.follow_up(&work, parent, 1, &task).await
        }
    };
    for _ in 0..QUESTIONS / AT_ONCE {
        let asked = futures_util::future::join_all((0..AT_ONCE).map(|_| follow_up("nobody-s-queue")));
        for answer in rig.run("the answers", asked) {
            assert!(matches!(answer, Err(PublishError::Returned { .. })), "{answer:?}");
        }
    }
    rig.run("the confirm", follow_up("")).expect("the queue is there");
    assert_eq!(rig.delivery().body, b"later");
}
