//! Connections that end, in every way there is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use warren_tests::rig::{Rig, broker, queue, unique};
use warren_tests::{Broker, Daemon, Home, Keys, Node, Proxy, wait};

/// More than are subscribed to at once.
const QUEUES: usize = 40;

/// What ends the connections.
type Fault = fn(&mut Node, &Proxy);

#[test]
fn after_every_kind_of_loss_each_queue_has_exactly_one_consumer_that_is_served() {
    let mut node = Node::own();
    let proxy = Proxy::start(node.port());
    let names: Vec<_> = (0..QUEUES).map(|_| unique("loss")).collect();
    let queues: Vec<_> = names.iter().map(|name| queue(name, 2)).collect();
    let mut rig = Rig::start(&proxy.uri(), &queues);
    rig.connected();
    let faults: [(&str, Fault); 5] = [
        ("cut", |_, proxy| assert!(proxy.cut() > 0)),
        ("cut, and refused for a while", |_, proxy| {
            proxy.refuse();
            proxy.cut();
            proxy.forward();
        }),
        ("closed by the broker", |node, _| node.close_all_connections().expect("closed")),
        ("the broker stopped in order", |node, _| {
            for command in ["stop_app", "start_app"] {
                node.ctl(&[command]).expect(command);
            }
        }),
        ("the broker killed", |node, _| node.restart().expect("restarted")),
    ];
    for (what, fault) in faults {
        fault(&mut node, &proxy);
        let begin = Instant::now();
        let outside = Broker::connect(&node.uri());
        for name in &names {
            outside.declare(name, &[]); // that it is there; the link may still be on its way
            outside.publish(name, what, name);
        }
        let deliveries: Vec<_> = (0..QUEUES).map(|_| served(&mut rig, what)).collect();
        let took = begin.elapsed();
        let mut seen: Vec<_> =
            deliveries.into_iter().map(|body| String::from_utf8(body).expect("a name")).collect();
        seen.sort();
        let mut expected = names.clone();
        expected.sort();
        assert_eq!(seen, expected, "{what}");
        for name in &names {
            outside.wait_one_consumer(name);
        }
        rig.connected();
        eprintln!("{what}: {QUEUES} queues served after {took:?}");
    }
    rig.close();
}

/// The body of the next delivery with this id; it is acknowledged, as all before it.
fn served(rig: &mut Rig, id: &str) -> Vec<u8> {
    loop {
        let delivery = rig.delivery();
        rig.ack(std::slice::from_ref(&delivery));
        if delivery.properties.message_id().as_ref().is_some_and(|one| one.as_str() == id) {
            return delivery.body;
        }
    }
}

#[test]
fn a_publish_in_flight_ends_with_its_connection_and_is_made_on_the_next_one() {
    let node = Node::shared();
    let proxy = Proxy::start(node.port());
    let name = unique("inflight");
    let rig = Rig::start(&proxy.uri(), &[queue(&name, 1)]);
    rig.consuming();
    rig.connected();
    let publisher = rig.publisher();
    proxy.stall();
    let publishing = async {
        let properties = lapin::BasicProperties::default();
        publisher.publish(warren::broker::Outgoing { queue: &name, properties, body: b"late" }).await
    };
    let cutting = async {
        // Written into the stalled proxy by now, or refused by the cut: the same in the end.
        tokio::task::yield_now().await;
        proxy.cut();
        proxy.forward();
    };
    let begin = Instant::now();
    let (published, ()) = rig.run("the confirm", async { tokio::join!(publishing, cutting) });
    published.expect("confirmed");
    // Its confirm alone would be waited for 30 seconds.
    assert!(begin.elapsed() < Duration::from_secs(20), "took {:?}", begin.elapsed());
    assert_eq!(rig.delivery().body, b"late");
}

#[test]
fn the_loss_of_the_publishing_connection_alone_is_told_and_disturbs_no_delivery() {
    let node = Node::own();
    let (name, outside) = (unique("publishing"), Broker::connect(&node.uri()));
    let mut rig = Rig::start(&node.uri(), &[queue(&name, 1)]);
    let consumer = rig.consuming();
    rig.connected();
    let script = r#"[catch rabbit_networking:close_connection(P, "closed by a test") || P <- rabbit_networking:connections(),
        [{client_properties, C}] <- [catch rabbit_networking:connection_info(P, [client_properties])],
        {<<"connection_name">>, longstr, Name} <- C, binary:match(Name, <<"publishing">>) =/= nomatch]"#;
    node.eval(script).expect("closed");
    let why = rig.not_publishing();
    assert!(why.contains("closed by a test"), "{why}");
    rig.connected();
    outside.publish(&name, "o-1", "through the same consumer");
    let delivery = rig.delivery();
    assert_eq!(delivery.consumer, consumer);
    rig.ack(&[delivery]);
    rig.close();
}

#[test]
fn an_alarm_outlasts_a_new_connection_and_what_waits_is_published_at_its_end() {
    let node = Node::own();
    let proxy = Proxy::start(node.port());
    let name = unique("alarm");
    let mut settings = broker(&proxy.uri());
    settings.publish_channels = 1;
    let mut rig = Rig::with(&settings, &[queue(&name, 1)]);
    rig.consuming();
    rig.connected();
    let publisher = rig.publisher();
    let publish = |body: &'static [u8]| {
        let (publisher, name) = (publisher.clone(), name.clone());
        async move {
            let properties = lapin::BasicProperties::default();
            publisher.publish(warren::broker::Outgoing { queue: &name, properties, body }).await
        }
    };
    node.alarm(true);
    // The broker blocks a connection from its next content on; one without a body gets through.
    rig.run("the first confirm", publish(b"")).expect("confirmed");
    assert!(rig.blocked());
    proxy.cut();
    rig.connected();
    // The broker has not said so on the new connection yet; this message makes it.
    let waiting = async { tokio::join!(publish(b"second"), publish(b"third")) };
    let alarm_ends = async {
        tokio::task::yield_now().await;
        node.alarm(false);
    };
    let ((second, third), ()) = rig.run("the end of the alarm", async { tokio::join!(waiting, alarm_ends) });
    second.and(third).expect("confirmed");
    let mut missing = BTreeSet::from([&b"second"[..], b"third"]);
    while !missing.is_empty() {
        let delivery = rig.delivery();
        missing.remove(&*delivery.body);
        rig.ack(&[delivery]);
    }
}

/// A connection has buffers of megabytes. Those of one that is lost go back to the system.
#[test]
fn lost_links_leave_no_memory_behind() {
    let proxy = Proxy::start(Node::shared().port());
    let home = Home::new(&proxy.uri(), "link_memory");
    home.configure(Keys::default());
    let daemon = Daemon::start(&home);
    daemon.wait_log(0, &["consuming"]);
    let before = daemon.footprint().rss_kib;
    for _ in 0..4 {
        let from = daemon.log().next();
        proxy.cut();
        proxy.forward();
        daemon.wait_log(from, &["consuming"]);
    }
    wait::until("no more memory than before", || {
        let now = daemon.footprint().rss_kib;
        (now < before + 4096).then_some(())
    });
}
