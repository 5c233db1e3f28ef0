//! Nodes are killed while tasks run.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::types::AMQPValue;
use warren_tests::{Broker, Cluster, Daemon, wait};

use super::producer::Producer;
use super::stage;

/// Long enough for a loop to show, and for several attempts of what is tried again.
const IDLE: Duration = Duration::from_secs(4);

#[test]
fn no_task_is_lost_when_the_leader_is_killed_and_then_the_daemon_s_own_node() {
    let mut cluster = Cluster::turn();
    let (queue, uris) = ("cluster_leader", cluster.uris());
    // Declared through the first node, which leads it; the daemon is on the second.
    Broker::connect(&uris[0]).declare(queue, &[("x-queue-type", AMQPValue::LongString("quorum".into()))]);
    let home = stage::home(&[uris[1].clone(), uris[2].clone(), uris[0].clone()], queue, 4);
    let mut daemon = Daemon::start(&home);
    let producer = Producer::start(&uris, queue);
    let goes_on = || stage::wait_more(&[&home], 50);

    goes_on();
    assert_eq!(cluster.leader(queue).expect("a leader"), 0);
    cluster.stop(0).expect("stop");
    goes_on();
    cluster.heal().expect("start");
    goes_on();
    cluster.stop(1).expect("stop");
    goes_on();
    cluster.heal().expect("start");
    goes_on();

    let published = producer.end();
    let entries = stage::wait_done(&[&home], &published.ids(false));
    let broker = Broker::connect(&uris[2]);
    stage::wait_settled(&daemon, &broker, queue);
    assert!(daemon.terminate().success());
    assert_eq!(broker.family_depth(queue), 0, "nothing came back from the daemon");
    let dead: BTreeSet<String> =
        broker.take_all(&home.dead()).iter().map(|letter| letter.id().to_owned()).collect();
    assert_eq!(dead, published.ids(true));

    println!(
        "{} tasks, {} published more than once, {} done more than once; longest outage {:?}",
        published.count,
        published.repeated.len(),
        stage::explained_duplicates(&entries, &published.repeated),
        stage::longest_gap(&entries),
    );
}

#[test]
fn without_a_majority_tasks_wait_and_with_one_they_go_on() {
    let mut cluster = Cluster::turn();
    let (queue, uris) = ("cluster_minority", cluster.uris());
    let home = stage::home(&uris[1..2], queue, 4);
    let mut daemon = Daemon::start(&home);
    let broker = Broker::connect(&uris[1]);
    broker.publish(queue, "held", "Ledger hold gate");
    broker.publish(queue, "faltering", "Ledger falter gate");
    wait::until("both run", || (stage::executions(&[&home]).len() == 2).then_some(()));
    cluster.stop(0).expect("stop");
    cluster.stop(2).expect("stop");

    home.release("gate");
    let settling = || daemon.status()["queues"][0]["settling"].clone();
    wait::until("the retry waits for its confirm", || (settling() == 1).then_some(()));
    // One that starts now gets no consumer: it is not ready, and its start does not count as done.
    let newcomer = stage::home(&uris[1..2], queue, 4);
    let mut second = Daemon::spawn(&newcomer, &[]);
    wait::until("the newcomer is connected", || {
        let output = second.warrenctl(&["status"]);
        String::from_utf8_lossy(&output.stdout).contains("\"connected\"").then_some(())
    });
    let before = [&daemon, &second].map(Daemon::cpu);
    std::thread::sleep(IDLE);
    for (daemon, before) in [&daemon, &second].into_iter().zip(before) {
        let used = daemon.cpu().saturating_sub(before);
        assert!(used < IDLE / 10, "no busy loop: {used:?} of CPU time in {IDLE:?}");
    }
    assert_eq!(settling(), 1, "unacknowledged until the copy is confirmed");
    assert_eq!(second.status()["ready"], false);
    assert!(!second.notified().since(0).iter().any(|line| line == "READY=1"), "not ready without a consumer");

    cluster.heal().expect("start");
    second.wait_notified(0, "READY=1");
    let both = ["held", "faltering"].map(str::to_owned).into();
    stage::wait_done(&[&home, &newcomer], &both);
    stage::wait_settled(&daemon, &broker, queue);
    assert!(daemon.terminate().success() && second.terminate().success());
    assert_eq!(broker.family_depth(queue), 0);
}
