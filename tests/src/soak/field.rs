//! What the faults are done to: a node, a proxy before it, and two daemons that consume one queue, the first through
//! the proxy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::artefacts::{self, Versions};
use crate::daemon::Footprint;
use crate::holdings::Holdings;
use crate::ledger::{Entry, Follower, now};
use crate::{Broker, Daemon, Home, Keys, Node, Proxy, wait};

/// Dead connections are noticed after two to three of these.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);
/// A heartbeat lost in a stall is noticed at most so long after it.
pub(super) const NOTICE: Duration = HEARTBEAT.saturating_mul(3);
/// Time limit and grace of the handler together: a frozen host is killed so long after a task was given to it.
pub(super) const TASK_LIMIT: Duration = Duration::from_millis(3_300);

/// The handler: attempts for many faults in a row, hosts that go soon, so that idle daemons can be compared.
const HANDLER: &str = "timeout = \"3s\"\nidle_timeout = \"2s\"\n\
                       retry = { attempts = 20, delay = \"250ms\", max_delay = \"1s\" }";
/// The longest delay of [`HANDLER`], rounded up, and twice that for the way back; and some looks at queues that take five
/// seconds each not to answer.
const DELAYS_EMPTY: Duration = Duration::from_secs(40);
/// What a daemon may have gained in memory: the allocator's noise, not a leak per fault.
const RSS_SLACK_KIB: u64 = 12 * 1024;
/// The descriptor of a sealed copy of a plugin.
const COPY: &str = "memfd";
/// Asks the quorum queues themselves. One that was new when the broker was killed never answers (3.10, 4.0), and has
/// nothing: to delete it is what mends it.
const COUNT_QUORUM: &str = "lists:sum([\
     case ra:leader_query(amqqueue:get_pid(Q), fun rabbit_fifo:query_messages_total/1) of \
     {ok, {_, N}, _} -> N; {timeout, _} -> 0 end \
     || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue])";
/// How many milliseconds a retry may wait: the delay queues there are.
const DELAYS_MS: [u32; 3] = [250, 500, 1_000];

/// Everything that a soak runs on.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) node: Node,
    pub(super) proxy: Proxy,
    pub(super) places: [Place; 2],
    /// The ids of dead letters that were taken out before the end.
    pub(super) dead: Vec<String>,
    versions: Versions,
    version: u32,
}

/// What an idle daemon uses.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    pub(super) footprint: Footprint,
    pub(super) holdings: Holdings,
    /// Finished tasks whose redelivery went to the other daemon. Each holds on for minutes to the generation that it
    /// ran on, and so to the sealed copy of a plugin that was replaced since.
    pub(super) settling: usize,
}

impl Usage {
    /// Where this is not what it was `before`; empty when it is back.
    pub(super) fn differences(&self, before: &Self) -> Vec<String> {
        let copies = |usage: &Self| usage.holdings.descriptors.get(COPY).copied().unwrap_or(0);
        let (had, has) = (copies(before), copies(self));
        let mut holdings = self.holdings.clone();
        if (had.saturating_sub(before.settling)..=had + self.settling).contains(&has) {
            holdings.descriptors.insert(COPY.to_owned(), had);
        }
        let mut found = holdings.differences(&before.holdings);
        let rss = self.footprint.rss_kib;
        if rss > before.footprint.rss_kib + RSS_SLACK_KIB {
            found.push(format!("{rss} KiB, before {}", before.footprint.rss_kib));
        }
        found
    }
}

/// One daemon's place.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) home: Home,
    pub(super) daemon: Option<Daemon>,
    pub(super) ledger: Follower,
    /// Where logs go, when they are kept.
    logs: Option<PathBuf>,
    lives: u32,
}

impl Field {
    pub(super) fn lay(queue: &str, logs: Option<&Path>) -> Self {
        let node = Node::start().expect("a private RabbitMQ node");
        let proxy = Proxy::start(node.port());
        let places = [proxy.uri(), node.uri()].map(|uri| {
            let home = Home::new(&uri, queue);
            home.install("fixture-ledger");
            let rest = home.scenario("ledger", "ledger", HANDLER);
            home.configure(Keys {
                broker: &format!("heartbeat = \"{}s\"", HEARTBEAT.as_secs()),
                queue: "prefetch = 2\nworkers = 2",
                rest: &rest,
                ..Keys::default()
            });
            let ledger = Follower::new(home.path("record"));
            Place { home, daemon: None, ledger, logs: logs.map(Path::to_owned), lives: 0 }
        });
        let versions = Versions::of(&artefacts::plugin("fixture-ledger"));
        Self { node, proxy, places, dead: Vec::new(), versions, version: 1 }
    }

    pub(super) fn queue(&self) -> &str {
        self.places[0].home.queue()
    }

    /// A connection of the onlooker's own, past the proxy.
    pub(super) fn broker(&self) -> Broker {
        Broker::connect(&self.node.uri())
    }

    /// Everything that ran so far, in the order of time.
    pub(super) fn entries(&mut self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for place in &mut self.places {
            place.ledger.read_on();
            entries.extend_from_slice(&place.ledger.entries);
        }
        entries.sort_by_key(|entry| entry.at);
        entries
    }

    /// Waits until every daemon that is there has started a task: none is connected and idle.
    pub(super) fn wait_recovered(&mut self) {
        let since = now();
        for (place, name) in self.places.iter_mut().zip(["first", "second"]) {
            if place.daemon.is_some() {
                wait::until(&format!("a task started by the {name} daemon"), || {
                    place.ledger.read_on();
                    place.ledger.entries.iter().rev().any(|entry| entry.at > since).then_some(())
                });
            }
        }
    }

    /// Waits until the broker has nothing, no daemon runs anything, and every idle host is gone; and until each daemon
    /// has all of its connections.
    pub(super) fn wait_idle(&self) {
        wait::until("empty queues", || self.left_over().is_empty().then_some(()));
        for daemon in self.places.iter().filter_map(|place| place.daemon.as_ref()) {
            let mut status = Value::Null;
            let idle = wait::ask_within(wait::BOUND, || {
                status = daemon.status();
                let queue = &status["queues"][0];
                // What settles may be a finished task that the other daemon was given meanwhile: kept for minutes.
                let idle = queue["running"] == 0 && queue["waiting"] == 0 && hosts(&status).is_empty();
                // Both connections are up.
                (idle && status["broker"]["state"] == "connected").then_some(())
            });
            assert!(idle.is_some(), "a daemon is not idle: {status:#}");
        }
    }

    /// The work queue and the delay queues that hold anything, with how much.
    pub(super) fn left_over(&self) -> Vec<(String, u32)> {
        let mut held = self.held(|name| name == self.queue() || self.is_delay(name));
        assert!(held.len() > 1, "the work queue and delay queues are there: {held:?}");
        held.retain(|(_, messages)| *messages > 0);
        held
    }

    /// A plugin of another version for the first daemon, which reads it when it is told to.
    pub(super) fn reload(&mut self) {
        self.version += 1;
        let place = &self.places[0];
        place.home.install_bytes("fixture-ledger", &self.versions.version(self.version));
        let reload = place.daemon.as_ref().expect("the first daemon is always there").reload();
        assert_eq!(reload["ok"], true, "{reload}");
    }

    /// Sends a signal to a plugin host, if there is one: the newest of those that run a task.
    pub(super) fn signal_host(&mut self, second: bool, signal: Signal) -> bool {
        let place = &mut self.places[usize::from(second)];
        let Some(daemon) = &place.daemon else { return false };
        let alive = hosts(&daemon.status());
        place.ledger.read_on();
        let newest = place.ledger.entries.iter().rev().map(|entry| entry.pid).find(|pid| alive.contains(pid));
        let Some(pid) = newest.and_then(|pid| Pid::from_raw(pid as i32)) else { return false };
        kill_process(pid, signal).is_ok()
    }

    /// Takes all dead letters out, as an operator would.
    pub(super) fn take_dead(&mut self) {
        let letters = self.broker().take_all(&self.places[0].home.dead());
        self.dead.extend(letters.iter().map(|letter| letter.id().to_owned()));
    }

    /// Takes the dead letters out and deletes their queue, while nobody can put anything in: RabbitMQ confirms what it
    /// routes to a queue that is just being deleted, and drops it.
    pub(super) fn delete_dead_queue(&mut self) -> bool {
        self.signal_daemons(Signal::STOP);
        self.take_dead();
        let deleted = self.broker().delete_if_empty(&self.places[0].home.dead());
        self.signal_daemons(Signal::CONT);
        deleted
    }

    /// Deletes the delay queues when nothing is in them, while nobody can put anything in.
    pub(super) fn delete_delay_queues(&self) {
        self.signal_daemons(Signal::STOP);
        let broker = self.broker();
        wait::until_within(DELAYS_EMPTY, "empty delay queues", || {
            (self.in_quorum_queues() == 0).then_some(())
        });
        for ms in DELAYS_MS {
            broker.delete(&format!("{}.retry.{ms}", self.queue()));
        }
        self.signal_daemons(Signal::CONT);
    }

    /// Messages in all quorum queues, which are the delay queues: also those on their way out of them. The figures of
    /// `list_queues` are up to five seconds old for these queues.
    fn in_quorum_queues(&self) -> u32 {
        self.node.eval(COUNT_QUORUM).expect("the node answers").parse().expect("a number")
    }

    fn signal_daemons(&self, signal: Signal) {
        self.places.iter().filter_map(|place| place.daemon.as_ref()).for_each(|daemon| daemon.signal(signal));
    }

    fn is_delay(&self, name: &str) -> bool {
        name.strip_prefix(self.queue()).is_some_and(|rest| rest.starts_with(".retry."))
    }

    /// Messages in each queue, delivered ones and those on their way included, as the broker counts them.
    fn held(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, u32)> {
        let queues = self.node.queues("", &["messages"]).into_iter();
        queues.filter(|(name, _)| wanted(name)).map(|(name, figures)| (name, figures[0])).collect()
    }

    /// The channels that consume the queue.
    pub(super) fn consumers(&self) -> Vec<String> {
        let listed =
            self.node.ctl(&["list_consumers", "--quiet", "--no-table-headers", "queue_name", "channel_pid"]);
        let listed = listed.expect("rabbitmqctl");
        let ours =
            listed.lines().filter_map(|line| line.split_once('\t')).filter(|(name, _)| *name == self.queue());
        ours.map(|(_, channel)| channel.to_owned()).collect()
    }

    /// What the first daemon uses now.
    pub(super) fn footprint(&self) -> Footprint {
        self.places[0].daemon.as_ref().expect("the first daemon is always there").footprint()
    }

    /// The same in more detail.
    pub(super) fn usage(&self) -> Usage {
        let daemon = self.places[0].daemon.as_ref().expect("the first daemon is always there");
        Usage {
            footprint: daemon.footprint(),
            holdings: daemon.holdings(),
            settling: daemon.status()["queues"][0]["settling"].as_u64().unwrap_or(0) as usize,
        }
    }
}

impl Place {
    /// Starts a daemon and waits until it is ready.
    pub(super) fn start(&mut self) {
        self.daemon = Some(Daemon::start(&self.home));
        self.lives += 1;
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
            self.keep_log(&daemon);
        }
    }

    /// SIGTERM; it has to end well.
    pub(super) fn drain(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let status = daemon.terminate();
            self.keep_log(&daemon);
            assert!(status.success(), "a drain ends with {status}");
        }
    }

    fn keep_log(&self, daemon: &Daemon) {
        let Some(logs) = &self.logs else { return };
        let name =
            format!("{}-{}.log", self.home.directory().file_name().unwrap_or_default().display(), self.lives);
        std::fs::write(logs.join(name), daemon.log().since(0).join("\n")).expect("write");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(daemon) = &self.daemon {
            self.keep_log(daemon);
        }
        if let Some(logs) = &self.logs {
            let name = format!("{}.ledger", self.home.directory().file_name().unwrap_or_default().display());
            let _ = std::fs::copy(self.home.path("record"), logs.join(name)); // nothing ran: no ledger
        }
    }
}

/// The processes of all plugin hosts.
fn hosts(status: &Value) -> Vec<u32> {
    let handlers = status["handlers"].as_array().expect("handlers");
    let pids = handlers.iter().flat_map(|handler| handler["hosts"].as_array().into_iter().flatten());
    pids.filter_map(Value::as_u64).map(|pid| pid as u32).collect()
}
