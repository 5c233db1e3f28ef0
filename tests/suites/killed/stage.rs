//! A daemon that dies where it is told to, and what is seen of its tasks.

use std::collections::BTreeMap;

use warren_tests::ledger::{self, Entry};
use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

pub(crate) struct Stage {
    pub(crate) home: Home,
    pub(crate) broker: Broker,
}

impl Stage {
    /// One worker and a window of one, so that a task's copies come after it.
    pub(crate) fn new(queue: &str) -> Self {
        Self::with_window(queue, "prefetch = 1\nworkers = 1")
    }

    pub(crate) fn with_window(queue: &str, window: &str) -> Self {
        let node = Node::shared();
        let home = Home::new(&node.uri(), queue);
        home.install("fixture-ledger");
        let keys = "retry = { attempts = 2, delay = \"250ms\", jitter = 0.0 }";
        let rest = home.scenario("ledger", "ledger", keys);
        home.configure(Keys { queue: window, rest: &rest, ..Keys::default() });
        Self { home, broker: Broker::connect(&node.uri()) }
    }

    /// Starts the daemon, to die at `failpoints`, and waits until it is ready.
    pub(crate) fn doomed(&self, failpoints: &str) -> Daemon {
        let daemon = Daemon::spawn(&self.home, &[("FAILPOINTS", failpoints)]);
        daemon.wait_notified(0, "READY=1");
        daemon
    }

    pub(crate) fn ledger(&self) -> Vec<Entry> {
        ledger::read(&self.home.path("record"))
    }

    /// Waits until `count` executions have ended.
    pub(crate) fn wait_ends(&self, count: usize) {
        wait::until(&format!("{count} executions ended"), || {
            let ends = self.ledger().iter().filter(|entry| entry.what != "start").count();
            (ends >= count).then_some(())
        });
    }

    /// Ends the daemon when it holds nothing, and makes sure that no queue but that of the dead does either.
    pub(crate) fn finish(&self, mut daemon: Daemon) {
        wait::until("nothing held, nothing on its way back", || {
            let queue = daemon.status()["queues"][0].clone();
            let held = ["running", "waiting", "settling"].iter().any(|name| queue[name] != 0);
            (!held && self.broker.family_depth(self.home.queue()) == 0).then_some(())
        });
        assert!(daemon.terminate().success());
        assert_eq!(self.broker.family_depth(self.home.queue()), 0, "nothing came back from the daemon");
    }

    /// Each execution by task and attempt, in order: whether the handler was told of a redelivery.
    pub(crate) fn executions(&self) -> BTreeMap<(String, u32), Vec<bool>> {
        let mut executions: BTreeMap<_, Vec<bool>> = BTreeMap::new();
        for entry in self.ledger().into_iter().filter(|entry| entry.what == "start") {
            executions.entry((entry.id, entry.attempt)).or_default().push(entry.redelivered);
        }
        executions
    }
}

/// It was killed, and by nothing else.
pub(crate) fn assert_killed(mut daemon: Daemon) {
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(daemon.wait_end().signal(), Some(9));
}
