//! The messages, one batch after the other, and what the broker did with them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::stage::{ATTACKED, FANOUT, Stage};
use super::{Attack, Length};
use crate::raw::fuzz::{Fuzz, Kind, Route};
use crate::raw::{Client, Content};

/// Messages that are sent before the broker is asked for its confirms.
const BATCH: u64 = 32;
/// Dead letters are taken out after so many messages: the broker's memory is not what is attacked.
const PURGE: u64 = 1_024;

/// Sends.
#[derive(Debug)]
pub(super) struct Barrage {
    client: Client,
    fuzz: Fuzz,
    /// Between two messages.
    pace: Duration,
    pub(super) tally: Tally,
}

/// What was sent, and what became of it at the broker.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) kinds: BTreeMap<Kind, u64>,
    /// The queue has them.
    pub(super) taken: u64,
    /// Sent alone, and the broker ended the connection.
    pub(super) refused: u64,
    /// Sent with others when the broker ended the connection: the queue may have some of them.
    pub(super) unknown: u64,
    /// Why, of the last unknown ones.
    pub(super) why: String,
    /// Dead letters that were taken out.
    pub(super) purged: u64,
}

impl Barrage {
    pub(super) fn new(stage: &Stage, attack: &Attack) -> Self {
        let mut client = Client::connect(stage.node.port());
        client.bind_fanout(ATTACKED, FANOUT);
        let route = Route { queue: ATTACKED.to_owned(), fanout: FANOUT.to_owned() };
        let fuzz = Fuzz::new(attack.seed, route, client.payload_max(), attack.body_max);
        let pace = attack.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate);
        Self { client, fuzz, pace, tally: Tally::default() }
    }

    /// Sends messages in which nothing is odd, of the same tasks.
    pub(super) fn send_ordinary(&mut self, length: Length) {
        self.send(length, |fuzz| (None, fuzz.draw_ordinary()));
    }

    /// Sends odd messages, of one kind or of all.
    pub(super) fn send_odd(&mut self, only: Option<Kind>, length: Length) {
        self.send(length, |fuzz| {
            let (kind, content) = fuzz.draw(only);
            (Some(kind), content)
        });
    }

    fn send(&mut self, length: Length, mut draw: impl FnMut(&mut Fuzz) -> (Option<Kind>, Content)) {
        let (begun, before) = (Instant::now(), self.tally.sent);
        loop {
            let sent = self.tally.sent - before;
            let is_over = match length {
                Length::Messages(count) => sent >= count,
                Length::Time(time) => begun.elapsed() >= time,
            };
            if is_over {
                return self.confirm();
            }
            let (kind, content) = draw(&mut self.fuzz);
            if kind == Some(Kind::Garbled) {
                self.send_alone(&content);
            } else {
                self.client.send(&content);
            }
            self.tally.sent += 1;
            if let Some(kind) = kind {
                *self.tally.kinds.entry(kind).or_default() += 1;
            }
            if self.tally.sent.is_multiple_of(BATCH) {
                self.confirm();
                let due = self.pace * u32::try_from(sent + 1).unwrap_or(u32::MAX);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            if self.tally.sent.is_multiple_of(PURGE) {
                self.purge();
            }
        }
    }

    /// A message that the broker may refuse, so that it takes no other one with it.
    fn send_alone(&mut self, content: &Content) {
        self.confirm();
        let settled = self.client.publish(content);
        self.tally.taken += u64::from(settled.taken - settled.returned);
        self.tally.refused += u64::from(settled.open);
    }

    fn confirm(&mut self) {
        let settled = self.client.settle();
        self.tally.taken += u64::from(settled.taken - settled.returned);
        self.tally.unknown += u64::from(settled.open + settled.rejected);
        if !settled.why.is_empty() {
            self.tally.why = settled.why;
        }
    }

    /// Takes the dead letters out and counts them.
    pub(super) fn purge(&mut self) {
        self.tally.purged += u64::from(self.client.purge(&format!("{ATTACKED}.dead")).unwrap_or(0));
    }

    /// Messages ready in the work queue.
    pub(super) fn depth(&mut self) -> Option<u32> {
        self.client.counts(ATTACKED).map(|(ready, _)| ready)
    }
}
