//! Connection after connection lost under load.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use warren_tests::ledger::{self, Entry};
use warren_tests::{Broker, Daemon, Home, Keys, Node, Proxy};

use super::stage::wait_settled;

const LOSSES: u64 = 128;
const WORKERS: usize = 4;
/// Tasks that the producer keeps in the queue at least.
const STOCK: u32 = 100;

/// Closes the daemon's connections from the broker's side, each time a file `PATH-N` appears. One evaluation for
/// all. They are in the node's directory, because nothing else is seen in another release's tree.
const CLOSER: &str = r#"
Ours = fun() -> [P || P <- rabbit_networking:connections(),
    [{client_properties, C}] <- [catch rabbit_networking:connection_info(P, [client_properties])],
    {<<"connection_name">>, longstr, <<"warrend", _/binary>>} <- C] end,
Wait = fun W(File) -> case file:read_file_info(File) of {ok, _} -> ok; _ -> timer:sleep(5), W(File) end end,
[begin
    ok = Wait("PATH-" ++ integer_to_list(N)),
    [catch rabbit_networking:close_connection(P, "closed by a test") || P <- Ours()]
 end || N <- lists:seq(1, COUNT)], closed"#;

#[test]
fn after_128_lost_connections_in_a_row_every_task_is_done_and_nothing_has_leaked() {
    let node = Node::own();
    let proxy = Proxy::start(node.port());
    let home = Home::new(&proxy.uri(), "losses");
    home.install("fixture-ledger");
    let rest = format!(
        "[handlers.ledger]\nplugin = \"ledger\"\nidle_timeout = \"1s\"\nretry = {{ attempts = 9, delay = \"250ms\", factor = 1.0 }}\n\
         [handlers.ledger.settings]\nrecord = \"{}\"\n",
        home.path("ledger").display()
    );
    let queue = format!("prefetch = 5\nworkers = {WORKERS}");
    home.configure(Keys { queue: &queue, rest: &rest, ..Keys::default() });
    let daemon = Daemon::start(&home);
    let broker = Broker::connect(&node.uri());
    daemon.wait_log(0, &["connected to the broker"]);
    let before = daemon.holdings();

    let (close, seen) = node.paths("close");
    let closer =
        CLOSER.replace("PATH", &seen.display().to_string()).replace("COUNT", &(LOSSES / 2).to_string());
    let running = AtomicBool::new(true);
    let (losses, published) = std::thread::scope(|scope| {
        // Also when this thread panics: the scope waits for the others.
        let ending = Ending { close: &close, running: &running };
        let closing = scope.spawn(|| node.eval(&closer));
        let producing = scope.spawn(|| produce(&node, &home, &running));
        let losses = lose(&daemon, &proxy, &close);
        drop(ending);
        closing.join().expect("no panic").expect("closed");
        (losses, producing.join().expect("no panic"))
    });
    wait_settled(&node, &broker, &daemon, &home);
    broker.wait_one_consumer(home.queue());
    daemon.wait_holds(&before);
    assert_eq!(broker.take_all(&home.dead()).len(), 0, "no dead letters");
    assert_explained(&ledger::read(&home.path("ledger")), &losses, published);
}

/// Ends the producer and the closer.
struct Ending<'a> {
    close: &'a Path,
    running: &'a AtomicBool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
        (1..=LOSSES / 2).for_each(|n| release(self.close, n));
    }
}

/// Lets [`CLOSER`], which waits for `close` with a number, close the connections for the `n`th time.
fn release(close: &Path, n: u64) {
    std::fs::write(format!("{}-{n}", close.display()), "").expect("write");
}

/// Keeps the queue filled with tasks of each kind; how many there were.
fn produce(node: &Node, home: &Home, running: &AtomicBool) -> usize {
    let broker = Broker::connect(&node.uri());
    let kinds = ["ok", "ok", "ok", "slow 20", "until 2"];
    let mut published = 0;
    while running.load(Ordering::Relaxed) {
        if broker.depth(home.queue()).is_none_or(|depth| depth > STOCK) {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        let texts = kinds.iter().cycle().take(usize::try_from(STOCK).expect("a few"));
        broker.publish_all(
            home.queue(),
            &format!("t-{published}"),
            texts.map(|kind| format!("Ledger {kind}")),
        );
        published += usize::try_from(STOCK).expect("a few");
    }
    published
}

/// Ends the connections again and again, by turns from the network's and from the broker's side, each time when both
/// are up and some more tasks have run; from when to when each took, in microseconds since 1970.
fn lose(daemon: &Daemon, proxy: &Proxy, close: &Path) -> Vec<RangeInclusive<u64>> {
    let mut losses = Vec::new();
    let after = |from: usize, part: &str| {
        let found = daemon.log().wait(from, |line| line.contains(part));
        found.unwrap_or_else(|| panic!("no {part:?} in the log from line {from} on")).0 + 1
    };
    let mut from = 0;
    for n in 1..=LOSSES {
        from = after(from, "connected to the broker").max(after(from, "consuming  queue="));
        for _ in 0..n % 7 {
            from = after(from, "task done");
        }
        let begin = ledger::now();
        if n % 2 == 0 {
            release(close, n / 2);
        } else {
            proxy.cut();
        }
        from = after(from, "subscription lost");
        losses.push(begin..=ledger::now());
    }
    after(from, "connected to the broker");
    losses
}

/// Every task is done, and what ran more than once did so because of a loss.
fn assert_explained(entries: &[Entry], losses: &[RangeInclusive<u64>], published: usize) {
    let done: BTreeSet<_> = entries.iter().filter(|one| one.what == "done").map(|one| &one.id).collect();
    let of_load = done.iter().filter(|id| id.starts_with("t-")).count();
    assert_eq!(of_load, published, "every task is done");
    let mut starts: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for start in entries.iter().filter(|one| one.what == "start") {
        starts.entry(&start.id).or_default().push(start);
    }
    let again: Vec<_> = starts.values().flat_map(|starts| repeats(starts)).collect();
    let unexplained: Vec<_> = again.iter().filter(|(from, to)| !is_explained(from, to, losses)).collect();
    assert!(unexplained.is_empty(), "ran again without a loss to explain it: {unexplained:?}");
    let lasted = Duration::from_micros(losses[losses.len() - 1].end() - losses[0].start());
    eprintln!(
        "{} losses in {lasted:?}, {published} tasks, {} ran again after a loss",
        losses.len(),
        again.len()
    );
}

/// The starts of a task beyond those that an attempt is owed: one, and as many as the attempt before had. Each comes with
/// the first start of the attempt before, or of the same one.
fn repeats<'a>(starts: &[&'a Entry]) -> Vec<(&'a Entry, &'a Entry)> {
    let mut found = Vec::new();
    for (n, start) in starts.iter().enumerate() {
        let of = |attempt: u32| -> Vec<&'a Entry> {
            starts[..n].iter().copied().filter(|one| one.attempt == attempt).collect()
        };
        let (same, parents) = (of(start.attempt), of(start.attempt - 1));
        let Some(first) = same.first() else { continue };
        if same.len() >= parents.len() {
            found.push((*parents.first().unwrap_or(first), *start));
        }
    }
    found
}

/// What may have been delivered before says so. (It may have several copies that no start went before: that it came
/// again is counted in a copy, and the confirm of a copy can be lost.) What says that it is new is a retry that was
/// published twice, because a loss took the confirm: the attempt before started before the loss was over.
fn is_explained(from: &Entry, to: &Entry, losses: &[RangeInclusive<u64>]) -> bool {
    let between = |loss: &RangeInclusive<u64>| from.at <= *loss.end() && *loss.start() <= to.at;
    to.redelivered || (from.attempt < to.attempt && losses.iter().any(between))
}
