//! A queue with dead letters, and `warrenctl dead` beside it.

use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::BasicConsumeOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::Value;
use warren_tests::{Broker, Daemon, Home, Keys, Node, artefacts, wait};

/// One work queue, its dead queue and a configuration that names it.
pub(crate) struct Rig {
    pub(crate) home: Home,
    pub(crate) broker: Broker,
}

/// Enough letters that a run is still in the middle when it has been seen to be under way.
pub(crate) const MANY: u32 = 1_500;

/// What the daemon gives up in [`Rig::with_dead_letters`]: id and reason, in the order of the ids.
pub(crate) const LETTERS: [(&str, &str); 7] = [
    ("bytes", "malformed"),
    ("empty", "unroutable"),
    ("fatal", "poison"),
    ("late", "timeout"),
    ("never", "rejected"),
    ("stray", "unroutable"),
    ("worn", "attempts"),
];

impl Rig {
    /// Nothing is declared yet.
    pub(crate) fn new(node: &Node, queue: &str) -> Self {
        Self { home: Home::new(&node.uri(), queue), broker: Broker::connect(&node.uri()) }
    }

    /// A daemon with the scenario fixture; `keys` are the queue's.
    pub(crate) fn daemon(&self, keys: &str) -> Daemon {
        self.home.install("fixture-scenario");
        let retry = "retry = { attempts = 2, delay = \"250ms\", factor = 1.0, jitter = 0.0 }";
        let late = "prefixes = [\"Late\"]\ntimeout = \"500ms\"\nretry = { attempts = 1 }";
        let rest =
            self.home.scenario("scenario", "scenario", retry) + &self.home.scenario("late", "scenario", late);
        self.home.configure(Keys { queue: keys, rest: &rest, ..Keys::default() });
        Daemon::start(&self.home)
    }

    /// A dead letter of every kind, and one without an id; the daemon has ended.
    pub(crate) fn with_dead_letters(node: &Node, queue: &str, keys: &str) -> Self {
        let rig = Self::new(node, queue);
        let mut daemon = rig.daemon(keys);
        let publish = |id: &str, body: &[u8]| {
            rig.broker.publish_with(queue, BasicProperties::default().with_message_id(id.into()), body);
        };
        rig.broker.publish_with(queue, original(), b"Task 7: Scenario reject");
        publish("worn", b"Scenario retry");
        publish("fatal", b"Scenario abort");
        publish("late", b"Late sleep 600000");
        publish("stray", "Water the plants, all äöü of them".as_bytes());
        publish("bytes", b"Scenario \xff\x00");
        publish("empty", b"");
        rig.broker.publish(queue, "", "Scenario reject");
        daemon.wait_count("dead", 8);
        rig.broker.wait_depth(&rig.home.dead(), 8);
        assert!(daemon.terminate().success());
        rig
    }

    /// `count` letters `n-1`, `n-2`, … of nobody in particular: the queue's own are where they go back to.
    pub(crate) fn crowd(node: &Node, queue: &str, count: u32) -> Self {
        let rig = Self::new(node, queue);
        rig.broker.declare(queue, &[]);
        rig.broker.declare(&rig.home.dead(), &[]);
        rig.broker.publish_all(&rig.home.dead(), "n", (1..=count).map(|n| format!("number {n}")));
        rig.broker.wait_depth(&rig.home.dead(), count);
        rig
    }

    /// `warrenctl dead WORDS…`, to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("warrenctl")
    }

    /// The same with `--json` and the exit code 0; what it printed.
    #[track_caller]
    pub(crate) fn ask(&self, words: &[&str]) -> Value {
        self.ends(&[words, &["--json"][..]].concat(), 0).0
    }

    /// Runs it; its JSON (null if it printed none) and what it said on stderr.
    #[track_caller]
    pub(crate) fn ends(&self, words: &[&str], code: i32) -> (Value, String) {
        ended(&self.run(words), code)
    }

    /// Starts it, with everything piped.
    pub(crate) fn spawn(&self, words: &[&str]) -> Child {
        self.command(words).spawn().expect("warrenctl")
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(artefacts::program("warrenctl"));
        command.arg("dead").args(words).arg("--config").arg(self.home.config());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Ids that `list` finds with these filters, sorted; the letter without a producer's id is left out.
    #[track_caller]
    pub(crate) fn ids(&self, filter: &[&str]) -> Vec<String> {
        short_ids(&self.ask(&[&["list"][..], filter].concat()))
    }

    /// How often each text is in a queue; the queue is empty afterwards. Taken by a consumer, not one by one.
    pub(crate) fn texts(&self, queue: &str) -> BTreeMap<String, u32> {
        let depth = self.broker.depth(queue).expect("the queue is there") as usize;
        let (channel, runtime) = self.broker.channel();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut texts = BTreeMap::new();
        let reading = async {
            let consuming = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
            let mut letters = consuming.await.expect("consume").take(depth);
            while let Some(letter) = letters.next().await {
                let text = String::from_utf8(letter.expect("a letter").data).expect("text");
                *texts.entry(text).or_default() += 1;
            }
            // What others give back must not go here.
            channel.close(200, "".into()).await.expect("close");
        };
        runtime.block_on(async { tokio::time::timeout(wait::BOUND, reading).await }).expect("all of them");
        texts
    }

    /// Waits until `count` letters are in the dead queue and the work queue together: what somebody held is back.
    pub(crate) fn wait_for_all(&self, count: u32) {
        wait::until("what was held to be back", || {
            let depth = |queue: &str| self.broker.depth(queue).unwrap_or(0);
            (depth(&self.home.dead()) + depth(self.home.queue()) >= count).then_some(())
        });
    }

    /// Waits until a replay is under way.
    pub(crate) fn wait_for_some(&self) {
        wait::until("the first letters to be replayed", || {
            self.broker.depth(self.home.queue()).filter(|&depth| depth >= 20)
        });
    }

    /// Every text of [`Rig::crowd`] is in the dead queue or in the work queue; how many are in both.
    #[track_caller]
    pub(crate) fn assert_none_is_lost(&self, count: u32) -> u32 {
        let (dead, sent) = (self.texts(&self.home.dead()), self.texts(self.home.queue()));
        let mut twice = 0;
        for n in 1..=count {
            let text = format!("number {n}");
            let copies = dead.get(&text).unwrap_or(&0) + sent.get(&text).unwrap_or(&0);
            assert!(copies > 0, "{text} is lost");
            twice += copies - 1;
        }
        twice
    }
}

/// The ids of a report's letters, sorted; those of ours, which are long, are left out.
pub(crate) fn short_ids(report: &Value) -> Vec<String> {
    let ids = report["letters"].as_array().expect("letters").iter();
    let mut ids: Vec<String> = ids
        .filter_map(|letter| letter["id"].as_str())
        .filter(|id| id.len() < 36)
        .map(str::to_owned)
        .collect();
    ids.sort();
    ids
}

/// What the letter `never` was published with.
pub(crate) fn original() -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("tenant".into(), AMQPValue::LongString("acme".into()));
    BasicProperties::default()
        .with_message_id("never".into())
        .with_content_type("text/plain".into())
        .with_priority(3)
        .with_correlation_id("c-1".into())
        .with_timestamp(1_600_000_000)
        .with_delivery_mode(2)
        .with_headers(headers)
}

/// Asserts the exit code; the JSON on stdout (null if it is none) and the text on stderr.
#[track_caller]
pub(crate) fn ended(output: &Output, code: i32) -> (Value, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "stdout: {text}\nstderr: {said}");
    (serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), said)
}

/// A header of ours is gone.
pub(crate) fn is_ours(name: &ShortString) -> bool {
    name.as_str().starts_with("x-warren-")
}
