//! Several daemons beside each other on one queue.

use std::collections::BTreeSet;

use warren_tests::{Broker, Cluster, Daemon, Home};

use super::producer::Producer;
use super::stage;

#[test]
fn three_daemons_share_a_queue_and_the_tasks_of_a_killed_one_are_taken_over() {
    let cluster = Cluster::turn();
    let (queue, uris) = ("cluster_many", cluster.uris());
    // Each on a node of its own.
    let homes = [0, 1, 2].map(|first| {
        let order: Vec<String> = uris[first..].iter().chain(&uris[..first]).cloned().collect();
        stage::home(&order, queue, 2)
    });
    let all: [&Home; 3] = homes.each_ref();
    let mut daemons = all.map(Daemon::start);
    let producer = Producer::start(&uris, queue);
    stage::wait_more(&all, 100);
    daemons[0].kill();
    stage::wait_more(&all, 100);
    // This one is asked to: it gives back what it holds.
    assert!(daemons[1].terminate().success());
    let until_there = stage::executions(&all[1..2]).len();
    stage::wait_more(&all, 50);

    let published = producer.end();
    let entries = stage::wait_done(&all, &published.ids(false));
    let broker = Broker::connect(&uris[2]);
    stage::wait_settled(&daemons[2], &broker, queue);
    assert!(daemons[2].terminate().success());
    assert_eq!(broker.family_depth(queue), 0);
    let dead: BTreeSet<String> =
        broker.take_all(&all[0].dead()).iter().map(|letter| letter.id().to_owned()).collect();
    assert_eq!(dead, published.ids(true));
    assert_eq!(stage::executions(&all[1..2]).len(), until_there, "a daemon that ended runs nothing");
    for home in all {
        assert!(stage::done(&stage::executions(&[home])).len() > 5, "everybody had a share");
    }

    // Only what the killed daemon had in hand can have run twice.
    let killed: BTreeSet<String> = stage::executions(&all[..1]).into_iter().map(|entry| entry.id).collect();
    let twice: Vec<String> =
        stage::done(&entries).into_iter().filter(|(_, times)| *times > 1).map(|(id, _)| id).collect();
    assert!(twice.len() <= 2 * 2 && twice.iter().all(|id| killed.contains(id)), "done twice: {twice:?}");
    stage::explained_duplicates(&entries, &published.repeated);
    println!("{} tasks, {} done twice", published.count, twice.len());
}
