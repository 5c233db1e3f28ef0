//! Confirmed copies: retries, dead letters, follow-ups.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use warren::broker::copy::{DeadCopy, Failure, Parent, RetryCopy};
use warren::broker::{Outgoing, PublishError};
use warren::model::{DeadReason, FollowUp, TaskId, UnixMs};
use warren::task::{Identity, identify};
use warren_tests::rig::{Rig, queue, unique};
use warren_tests::{Broker, Node};

fn identified(properties: &lapin::BasicProperties) -> Identity {
    identify(properties, UnixMs::now(), &mut fastrand::Rng::new())
}

const FAILURE: Failure<'static> = Failure { handler: "backup", code: "disk", message: "no space left" };

#[test]
fn a_retry_comes_back_after_its_delay_as_the_next_attempt() {
    let node = Node::shared();
    let (name, outside) = (unique("retried"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.publish(&name, "o-1", "try me");
    let work = queue(&name, 1);
    let mut rig = Rig::start(&node.uri(), std::slice::from_ref(&work));
    let first = rig.delivery();
    let identity = identified(&first.properties);
    assert_eq!(identity.attempt, 1);
    let copy = RetryCopy {
        delay: Duration::from_millis(400),
        attempt: 2,
        redeliveries: 0,
        id: &identity.id,
        failure: Some(FAILURE),
    };
    let publisher = rig.publisher();
    let sent = Instant::now();
    rig.run("the confirm", publisher.retry(&work, &first, copy)).expect("confirmed");
    rig.ack(std::slice::from_ref(&first));
    let second = rig.delivery();
    assert!(sent.elapsed() >= Duration::from_millis(400), "{:?}", sent.elapsed());
    assert_eq!(second.body, first.body);
    let again = identified(&second.properties);
    assert_eq!((again.id, again.attempt), (identity.id, 2));
    rig.ack(&[second]);
    rig.close();
    outside.wait_depth(&name, 0);
    outside.wait_depth(&format!("{name}.retry.500"), 0);
}

#[test]
fn a_task_passes_the_delay_queue_many_times() {
    // 3.10 drops a message at its second hop when the copy still carries x-death.
    let node = Node::shared();
    let (name, outside) = (unique("hops"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.publish(&name, "", "again and again");
    let work = queue(&name, 1);
    let mut rig = Rig::start(&node.uri(), std::slice::from_ref(&work));
    let mut delivery = rig.delivery();
    let id = identified(&delivery.properties).id;
    for attempt in 2..=5 {
        let copy = RetryCopy {
            delay: Duration::from_millis(1),
            attempt,
            redeliveries: 0,
            id: &id,
            failure: Some(FAILURE),
        };
        let publisher = rig.publisher();
        rig.run("the confirm", publisher.retry(&work, &delivery, copy)).expect("confirmed");
        rig.ack(&[delivery]);
        delivery = rig.delivery();
        let identity = identified(&delivery.properties);
        assert_eq!((identity.attempt, &identity.id), (attempt, &id));
    }
}

#[test]
fn the_delay_queue_is_quorum_and_loses_nothing_on_the_way_back() {
    let node = Node::shared();
    let (name, outside) = (unique("lossless"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.publish(&name, "o-1", "kept");
    let work = queue(&name, 1);
    let mut rig = Rig::start(&node.uri(), std::slice::from_ref(&work));
    let delivery = rig.delivery();
    let id = identified(&delivery.properties).id;
    // The target goes away while the copy waits: longer than a new quorum queue needs to settle.
    let copy =
        RetryCopy { delay: Duration::from_millis(8000), attempt: 2, redeliveries: 0, id: &id, failure: None };
    let publisher = rig.publisher();
    rig.run("the confirm", publisher.retry(&work, &delivery, copy)).expect("confirmed");
    rig.ack(&[delivery]);
    rig.stop();
    rig.close();
    outside.delete(&name);
    // Its time is over when it is not ready any more; dropped, it would not be counted either.
    let delay = format!("{name}.retry.8000");
    warren_tests::wait::until("the copy kept, and not ready", || {
        let listed = node.queues(&delay, &["messages_ready", "messages"]);
        (listed == [(delay.clone(), vec![0, 1])]).then_some(())
    });
    let listed = node.ctl(&["-q", "list_queues", "name", "type"]).expect("list");
    assert!(listed.lines().any(|line| line == format!("{delay}\tquorum")), "{listed}");
}

#[test]
fn a_classic_delay_queue_left_by_another_configuration_is_used_as_it_is() {
    let node = Node::shared();
    let (name, outside) = (unique("left"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.declare(
        &format!("{name}.retry.250"),
        &[
            ("x-message-ttl", 250_i64.into()),
            ("x-dead-letter-exchange", lapin::types::AMQPValue::LongString("".into())),
            ("x-dead-letter-routing-key", lapin::types::AMQPValue::LongString(name.as_str().into())),
        ],
    );
    outside.publish(&name, "o-1", "classic way");
    let work = queue(&name, 1);
    let mut rig = Rig::start(&node.uri(), std::slice::from_ref(&work));
    let delivery = rig.delivery();
    let id = identified(&delivery.properties).id;
    let copy =
        RetryCopy { delay: Duration::from_millis(100), attempt: 2, redeliveries: 0, id: &id, failure: None };
    let publisher = rig.publisher();
    rig.run("the confirm", publisher.retry(&work, &delivery, copy)).expect("confirmed");
    rig.ack(&[delivery]);
    assert_eq!(identified(&rig.delivery().properties).attempt, 2);
}

#[test]
fn a_dead_letter_keeps_body_and_properties_and_says_why() {
    let node = Node::shared();
    let (name, outside) = (unique("dead_letter"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    let properties = lapin::BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_expiration("3600000".into());
    outside.publish_with(&name, properties, b"\xff\x00 any bytes");
    let work = queue(&name, 1);
    let mut rig = Rig::start(&node.uri(), std::slice::from_ref(&work));
    let delivery = rig.delivery();
    let id = identified(&delivery.properties).id;
    assert!(id.generated);
    let dead_copy =
        DeadCopy { reason: DeadReason::Rejected, attempt: 3, redeliveries: 0, id: &id, failure: FAILURE };
    let publisher = rig.publisher();
    rig.run("the confirm", publisher.dead(&work, &delivery, dead_copy)).expect("confirmed");
    rig.ack(&[delivery]);
    let letter = outside.take(&format!("{name}.dead"));
    assert_eq!(letter.properties.content_type(), &Some("text/plain".into()));
    assert!(letter.properties.expiration().is_none());
    let expected = [
        ("x-warren-reason", "rejected"),
        ("x-warren-handler", "backup"),
        ("x-warren-error-code", "disk"),
        ("x-warren-error", "no space left"),
        ("x-warren-attempt", "3"),
        ("x-warren-queue", &*name),
        ("x-warren-id", &*id.text),
    ];
    for (header, value) in expected {
        assert_eq!(letter.header(header).as_deref(), Some(value), "{header}");
    }
    assert!(letter.header("x-warren-first-failure").is_some());
}

#[test]
fn a_publish_to_no_queue_is_an_error_and_the_next_one_is_not() {
    let node = Node::shared();
    let (name, outside) = (unique("returned"), Broker::connect(&node.uri()));
    let rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    rig.consuming();
    let publisher = rig.publisher();
    let to = |queue: &str| {
        let message = Outgoing { queue, properties: lapin::BasicProperties::default(), body: b"text" };
        rig.run("the answer", publisher.publish(message))
    };
    let error = to("nobody-s-queue").expect_err("no such queue");
    assert!(matches!(error, PublishError::Returned { .. }), "{error}");
    assert!(error.to_string().contains("nobody-s-queue"), "{error}");
    to(&name).expect("confirmed");
    assert_eq!(rig.delivery().body, b"text");
    drop(outside);
}

#[test]
fn confirms_and_returns_are_never_mixed_up_between_many_publishers() {
    let node = Node::shared();
    let (name, outside) = (unique("mixed"), Broker::connect(&node.uri()));
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    rig.consuming();
    rig.stop();
    let publisher = rig.publisher();
    let answers = rig.run("all answers", async {
        futures_util::future::join_all((0..400_u32).map(|n| {
            let (publisher, name) = (publisher.clone(), &name);
            async move {
                let queue = if n % 4 == 0 { "nobody-s-queue" } else { name };
                let message = Outgoing { queue, properties: lapin::BasicProperties::default(), body: b"" };
                (n, publisher.publish(message).await)
            }
        }))
        .await
    });
    for (n, answer) in answers {
        assert_eq!(answer.is_err(), n % 4 == 0, "publish {n}: {answer:?}");
    }
    outside.wait_depth(&name, 300);
    rig.close();
}

#[test]
fn headers_over_the_frame_size_are_refused_without_harm() {
    let node = Node::shared();
    let name = unique("large");
    let rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    rig.consuming();
    let publisher = rig.publisher();
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("long".into(), lapin::types::AMQPValue::LongString("h".repeat(140_000).into()));
    let properties = lapin::BasicProperties::default().with_headers(headers);
    let message = Outgoing { queue: &name, properties, body: b"" };
    let error = rig.run("the answer", publisher.publish(message)).expect_err("too large");
    assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
    let message = Outgoing { queue: &name, properties: lapin::BasicProperties::default(), body: b"next" };
    rig.run("the confirm", publisher.publish(message)).expect("confirmed");
}

#[test]
fn follow_ups_go_to_their_queue_at_once_or_after_their_delay() {
    let node = Node::shared();
    let (name, other, outside) = (unique("parent"), unique("child"), Broker::connect(&node.uri()));
    outside.declare(&other, &[]);
    let work = queue(&name, 2);
    let rig = Rig::start(&node.uri(), std::slice::from_ref(&work));
    rig.consuming();
    let publisher = rig.publisher();
    let follow_up = |queue: &str, delay: u64, n: usize| {
        let task = FollowUp {
            queue: queue.to_owned(),
            body: b"Process payment".to_vec(),
            delay: Duration::from_millis(delay),
            priority: -1,
            ..FollowUp::default()
        };
        let parent = Parent { id: "o-1", properties: &lapin::BasicProperties::default() };
        rig.run("the confirm", publisher.follow_up(&work, parent, n, &task))
    };
    follow_up("", 0, 1).expect("confirmed");
    let id = |properties: &lapin::BasicProperties| identified(properties).id;
    let given = |text: &str| TaskId { text: text.into(), generated: false };
    assert_eq!(id(&rig.delivery().properties), given("o-1/1"));
    follow_up(&other, 250, 2).expect("confirmed");
    assert_eq!(outside.take(&other).id(), "o-1/2");
    for delay in [0, 250] {
        let error = follow_up("nobody-s-queue", delay, 3).expect_err("no such queue");
        assert!(matches!(error, PublishError::Returned { .. }), "{error}");
    }
}

#[test]
fn a_publish_waits_while_the_broker_is_away_and_succeeds_when_it_is_back() {
    let mut node = Node::own();
    let name = unique("waits");
    let rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    rig.consuming();
    node.stop().expect("stop");
    rig.lost();
    let publisher = rig.publisher();
    let sending = async {
        let message = Outgoing { queue: &name, properties: lapin::BasicProperties::default(), body: b"late" };
        publisher.publish(message).await
    };
    let back = async {
        let node = &mut node;
        tokio::task::yield_now().await;
        node.resume().expect("resume");
    };
    let (sent, ()) = rig.run("the confirm", async { tokio::join!(sending, back) });
    sent.expect("confirmed");
    assert_eq!(rig.delivery().body, b"late");
}

#[test]
fn while_the_broker_is_blocked_publishes_wait_and_acknowledgements_go_through() {
    let node = Node::own();
    let (name, outside) = (unique("blocked"), Broker::connect(&node.uri()));
    outside.declare(&name, &[]);
    outside.publish_all(&name, "t", ["first".to_owned(), "second".to_owned()]);
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    rig.consuming();
    let first = rig.delivery();
    let publisher = rig.publisher();
    let publish = |queue: &'static str| {
        let publisher = publisher.clone();
        let queue = queue.to_owned();
        async move {
            let message =
                Outgoing { queue: &queue, properties: lapin::BasicProperties::default(), body: b"" };
            publisher.publish(message).await
        }
    };
    node.alarm(true);
    // The broker blocks connections that publish, from their next message on; that one still goes through.
    rig.run("a return", publish("nobody-s-queue")).expect_err("no such queue");
    assert!(rig.blocked());
    let mut waiting = Box::pin(publish("nobody-s-queue"));
    rig.run("the publish to wait", async { assert!((&mut waiting).now_or_never().is_none()) });
    rig.ack(&[first]);
    assert_eq!(rig.delivery().body, b"second");
    rig.run("the publish to wait", async { assert!((&mut waiting).now_or_never().is_none()) });
    node.alarm(false);
    assert!(!rig.blocked());
    rig.run("the return", waiting).expect_err("no such queue");
}
