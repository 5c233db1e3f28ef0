//! Peers that fall silent, and peers that are no broker.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use warren::config::Secret;
use warren_tests::rig::{Rig, broker, queue, unique};
use warren_tests::{Node, Proxy, wait};

#[test]
fn a_half_open_connection_is_noticed_within_three_heartbeats() {
    const HEARTBEAT: Duration = Duration::from_secs(2);
    let node = Node::shared();
    let proxy = Proxy::start(node.port());
    let mut settings = broker(&proxy.uri());
    (settings.heartbeat, settings.connect_timeout) = (HEARTBEAT, HEARTBEAT);
    let rig = Rig::with(&settings, &[queue(&unique("half-open"), 1)]);
    let first = rig.consuming();
    proxy.stall();
    let begin = Instant::now();
    let (lost, why) = rig.lost();
    let noticed = begin.elapsed();
    assert_eq!(lost, first);
    assert!(why.contains("heartbeats"), "{why}");
    assert!(noticed < 3 * HEARTBEAT + wait::BUSY, "noticed after {noticed:?}");
    proxy.forward();
    let begin = Instant::now();
    rig.consuming();
    eprintln!("noticed after {noticed:?}, consuming {:?} after the network was back", begin.elapsed());
}

#[test]
fn of_several_addresses_the_one_that_serves_is_found_past_every_kind_of_bad_one() {
    let node = Node::shared();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let closing = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let uri =
        |listener: &TcpListener| Secret(format!("amqp://{}/%2f", listener.local_addr().expect("bound")));
    let mut settings = broker(&node.uri());
    settings.uris.splice(0..0, [uri(&silent), uri(&closing)]);
    settings.connect_timeout = Duration::from_secs(2);
    std::thread::spawn(move || closing.incoming().for_each(drop));
    let rig = Rig::with(&settings, &[queue(&unique("third"), 1)]);
    let (first, second) = (rig.away(), rig.away());
    assert!(first.contains("no answer in 2s (in the AMQP handshake)"), "{first}");
    assert!(second.contains("ended during the handshake"), "{second}");
    rig.consuming();
    let (address, _) = rig.connected();
    assert_eq!(address, format!("127.0.0.1:{}/", node.port()));
    drop(silent);
}
