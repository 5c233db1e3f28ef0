//! A producer that sends whatever a broker takes to one queue of a daemon, while the daemon also consumes a second queue:
//! its tasks are the canaries. Whoever may publish to a queue can cost at most their own messages, so no connection may
//! be lost, each message that the broker took is done or a dead letter, each canary is done once, and none waits long.

mod barrage;
mod canaries;
mod report;
mod stage;

use std::time::Duration;

use crate::raw::fuzz::Kind;

use self::barrage::Barrage;
use self::canaries::{Canaries, Times};
use self::stage::Stage;

pub use self::report::Report;
pub use self::stage::{ATTACKED, CANARIES};

/// How long an attack goes on.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    /// So many messages.
    Messages(u64),
    /// So long.
    Time(Duration),
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Attack {
    /// Decides the messages.
    pub seed: u64,
    /// The only kind of messages; none: all kinds.
    pub only: Option<Kind>,
    /// How long it goes on.
    pub length: Length,
    /// Messages in a second, at most. None: as fast as the broker confirms.
    pub rate: Option<u32>,
    /// The largest body.
    pub body_max: usize,
    /// Between two canaries.
    pub canary_every: Duration,
    /// How long ordinary messages are sent before, at the same rate and of the same sizes, to see how long a canary waits
    /// then. Large bodies are one in a thousand messages and decide the p99: long enough for some dozens.
    pub baseline: Duration,
}

impl Attack {
    /// Runs it and gives what it came to; [`Report::assert_clean`] checks that.
    ///
    /// # Panics
    /// When something does not come to its end. The seed is printed then, too.
    pub fn run(&self) -> Report {
        let _seed = ReplayHint(self.seed);
        let stage = Stage::set();
        let mut barrage = Barrage::new(&stage, self);
        let consumers = stage.consumers();

        let canaries = Canaries::start(stage.node.port(), self.canary_every, "before");
        barrage.send_ordinary(Length::Time(self.baseline));
        let before = canaries.end();
        let canaries = Canaries::start(stage.node.port(), self.canary_every, "during");
        barrage.send_odd(self.only, self.length);
        let during = canaries.end();

        let account = stage.settle(&mut barrage);
        let ledger = stage.wait_canaries(before.len() + during.len());
        Report {
            seed: self.seed,
            tally: barrage.tally,
            account,
            doubtful: stage.doubtful(),
            connects: stage.daemon.status()["broker"]["connects"].as_u64().unwrap_or(0),
            same_consumers: stage.consumers() == consumers,
            peak_rss_kib: stage.daemon.peak_rss_kib(),
            before: Times::of(&before, &ledger),
            during: Times::of(&during, &ledger),
            canaries: canaries::not_done_once(before.iter().chain(&during), &ledger),
        }
    }
}

/// Says how to see a failure again.
struct ReplayHint(u64);

impl Drop for ReplayHint {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the same messages again: ATTACK_SEED={}", self.0);
        }
    }
}
