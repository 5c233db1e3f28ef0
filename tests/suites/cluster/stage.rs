//! Daemons on one quorum queue of a cluster, and what is seen of their tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use warren_tests::ledger::{self, Entry};
use warren_tests::{Broker, Daemon, Home, Keys, wait};

/// Work queue, delay queues and dead queue are quorum queues.
const QUORUM: &str = "type = \"quorum\"\ndelay_type = \"quorum\"\ndead_type = \"quorum\"\nprefetch = 2";

/// A daemon's home, to consume `queue` with `workers`; nodes are tried in the order of `uris`. Ready means consuming.
pub(crate) fn home(uris: &[String], queue: &str, workers: u32) -> Home {
    let home = Home::with_uris(uris, queue);
    home.install("fixture-ledger");
    home.configure(Keys {
        broker: "heartbeat = \"2s\"",
        queue: &format!("{QUORUM}\nworkers = {workers}"),
        daemon: "start_wait = \"0s\"",
        rest: &home.scenario("ledger", "ledger", "retry = { attempts = 3, delay = \"250ms\", jitter = 0.0 }"),
        ..Keys::default()
    });
    home
}

/// What the homes' handlers ran, in time's order.
pub(crate) fn executions(homes: &[&Home]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = homes.iter().flat_map(|home| ledger::read(&home.path("record"))).collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}

/// How often each task was done.
pub(crate) fn done(entries: &[Entry]) -> BTreeMap<String, usize> {
    let mut done = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.what == "done") {
        *done.entry(entry.id.clone()).or_default() += 1;
    }
    done
}

/// Waits until `more` tasks were done that were not when it was called: consumption goes on.
pub(crate) fn wait_more(homes: &[&Home], more: usize) {
    let so_far = done(&executions(homes)).len();
    wait::until(&format!("{more} more tasks done"), || {
        (done(&executions(homes)).len() >= so_far + more).then_some(())
    });
}

/// Waits until every task of `ids` was done.
pub(crate) fn wait_done(homes: &[&Home], ids: &BTreeSet<String>) -> Vec<Entry> {
    wait::while_it_goes_on("the tasks done", || {
        let entries = executions(homes);
        let done = done(&entries);
        let missing = ids.iter().filter(|id| !done.contains_key(*id));
        let missing: Vec<String> = missing.take(20).cloned().collect();
        if missing.is_empty() { Ok(entries) } else { Err((entries.len(), missing)) }
    })
}

/// Waits until the daemon holds nothing and nothing is on its way to it.
pub(crate) fn wait_settled(daemon: &Daemon, broker: &Broker, queue: &str) {
    wait::until("everything settled", || {
        let status = daemon.status()["queues"][0].clone();
        let idle = ["running", "waiting", "settling"].iter().all(|key| status[*key] == 0);
        (idle && broker.family_depth(queue) == 0).then_some(())
    });
}

/// The longest time in which no execution began or ended.
pub(crate) fn longest_gap(entries: &[Entry]) -> Duration {
    let gaps = entries.windows(2).map(|pair| pair[1].at - pair[0].at);
    Duration::from_micros(gaps.max().unwrap_or(0))
}

/// Tasks that were done more than once. Each has its reason: it was published more than once, or the handler was told
/// that it may have run before.
pub(crate) fn explained_duplicates(entries: &[Entry], repeated: &BTreeSet<u32>) -> usize {
    let twice = done(entries).into_iter().filter(|(_, times)| *times > 1);
    twice
        .inspect(|(id, times)| {
            let starts = entries.iter().filter(|entry| entry.id == *id && entry.what == "start");
            let told = starts.filter(|entry| entry.redelivered).count();
            let published_again = repeated.iter().any(|number| number.to_string() == *id);
            assert!(told + usize::from(published_again) + 1 >= *times, "task {id} was done {times} times");
        })
        .count()
}
