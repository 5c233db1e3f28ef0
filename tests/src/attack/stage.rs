//! A node of the attack's own, and a daemon that consumes the attacked queue and that of the canaries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::barrage::Barrage;
use crate::ledger::{Entry, Follower};
use crate::raw::Client;
use crate::wait::Lines;
use crate::{Daemon, Home, Keys, Node, wait};

/// The queue that everything is sent to.
pub const ATTACKED: &str = "attacked";
/// The queue of the canaries.
pub const CANARIES: &str = "canaries";
/// An exchange that routes any key to the attacked queue.
pub(super) const FANOUT: &str = "attacked-by-any-key";

/// For the next message to be settled. The daemon may have many still to settle when the last one is sent.
const STALLED: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(super) struct Stage {
    // Dropped in this order.
    pub(super) daemon: Daemon,
    doubtful: Arc<AtomicU64>,
    home: Home,
    pub(super) node: Node,
}

/// What the daemon says became of the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) done: u64,
    pub(super) dead: u64,
    /// Not settled yet.
    pub(super) held: u64,
}

impl Account {
    fn of(status: &Value) -> Self {
        let queues = status["queues"].as_array().expect("queues");
        let queue = queues.iter().find(|queue| queue["name"] == ATTACKED).expect("the attacked queue");
        let count = |name: &str| queue["counts"][name].as_u64().unwrap_or(0);
        let held = |name: &str| queue[name].as_u64().expect("a count");
        Self {
            done: count("done"),
            dead: count("dead"),
            held: held("running") + held("waiting") + held("settling"),
        }
    }

    pub(super) fn settled(&self) -> u64 {
        self.done + self.dead
    }
}

impl Stage {
    pub(super) fn set() -> Self {
        let node = Node::start().expect("a private RabbitMQ node");
        let home = Home::new(&node.uri(), ATTACKED);
        home.install("fixture-noop");
        home.install("fixture-ledger");
        let ledger = home.scenario("ledger", "ledger", &format!("queues = [\"{CANARIES}\"]"));
        let noop = format!(
            "[handlers.noop]\nplugin = \"noop\"\nqueues = [\"{ATTACKED}\"]\n\
             retry = {{ attempts = 2, delay = \"250ms\" }}\n"
        );
        let rest = format!("[queues.{CANARIES}]\nworkers = 2\n{ledger}{noop}");
        home.configure(Keys { queue: "workers = 4\nprefetch = 8", rest: &rest, ..Keys::default() });
        let mut client = Client::connect(node.port());
        client.declare(ATTACKED, &[]);
        client.declare(CANARIES, &[]);
        let daemon = Daemon::start(&home);
        let doubtful = count_lines(daemon.log_lines(), &["was not taken", "cannot be published"]);
        Self { daemon, doubtful, home, node }
    }

    /// Publications that the daemon repeated. The broker may have taken the first one as well, and then there are two.
    pub(super) fn doubtful(&self) -> u64 {
        self.doubtful.load(Ordering::Acquire)
    }

    /// The channels that consume each queue: others after a link was lost.
    pub(super) fn consumers(&self) -> Vec<String> {
        let listed =
            self.node.ctl(&["list_consumers", "--quiet", "--no-table-headers", "queue_name", "channel_pid"]);
        let mut consumers: Vec<String> = listed.expect("rabbitmqctl").lines().map(str::to_owned).collect();
        consumers.sort();
        consumers
    }

    /// Waits until everything that the broker took is settled and nothing is left, for as long as the daemon gets on.
    pub(super) fn settle(&self, barrage: &mut Barrage) -> Account {
        let account = || Account::of(&self.daemon.status());
        let (mut last, mut since) = (0, Instant::now());
        let settled = wait::ask_within(Duration::MAX, || {
            let account = account();
            if account.settled() > last {
                (last, since) = (account.settled(), Instant::now());
                barrage.purge();
            }
            assert!(
                since.elapsed() < STALLED,
                "not everything is settled: {account:?} of {:?}",
                barrage.tally
            );
            let is_over = account.held == 0 && last >= barrage.tally.taken && barrage.depth() == Some(0);
            is_over.then_some(account)
        });
        barrage.purge();
        settled.expect("there is no other bound")
    }

    /// What the canaries' handler wrote, once so many were done.
    pub(super) fn wait_canaries(&self, count: usize) -> Vec<Entry> {
        let mut ledger = Follower::new(self.home.path("record"));
        wait::ask_within(wait::BOUND, || {
            ledger.read_on();
            (ledger.entries.iter().filter(|entry| entry.what == "done").count() >= count).then_some(())
        });
        ledger.entries
    }
}

/// Counts the lines of a log that have one of these parts, until the log ends.
fn count_lines(log: Arc<Lines>, parts: &'static [&str]) -> Arc<AtomicU64> {
    let count = Arc::<AtomicU64>::default();
    let counted = count.clone();
    std::thread::spawn(move || {
        let mut next = 0;
        loop {
            match log.wait(next, |line| parts.iter().any(|part| line.contains(part))) {
                Some((line, _)) => {
                    counted.fetch_add(1, Ordering::Release);
                    next = line + 1;
                }
                None if log.ended() => return,
                None => {}
            }
        }
    });
    count
}
