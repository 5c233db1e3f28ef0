//! The tasks of the other queue: published at a steady pace, and how long each waited until it ran.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::stage::CANARIES;
use crate::ledger::{self, Entry};
use crate::raw::{Client, Content, Properties, Property};

/// One that was published.
#[derive(Debug, Clone)]
pub(super) struct Canary {
    id: String,
    /// When its publishing began, in microseconds since 1970.
    at: u64,
    /// How long the broker took to confirm it.
    confirmed: Duration,
}

/// The thread that publishes them.
#[derive(Debug)]
pub(super) struct Canaries {
    end: Sender<()>,
    thread: JoinHandle<Vec<Canary>>,
}

impl Canaries {
    /// Publishes one at every tick, from now on.
    pub(super) fn start(port: u16, every: Duration, prefix: &'static str) -> Self {
        let (end, ended) = channel();
        let thread = std::thread::spawn(move || {
            let mut client = Client::connect(port);
            let (mut published, mut next) = (Vec::new(), Instant::now());
            loop {
                let id = format!("{prefix}-{}", published.len() + 1);
                let at = ledger::now();
                let properties = Properties::default()
                    .with(Property::MessageId, id.as_bytes())
                    .with_bytes(Property::DeliveryMode, vec![2]);
                let sent = Instant::now();
                let settled = client.publish(&Content::to(CANARIES, &properties, b"Ledger ok"));
                assert_eq!((settled.taken, settled.returned), (1, 0), "{id}: {settled:?}");
                published.push(Canary { id, at, confirmed: sent.elapsed() });
                next += every;
                match ended.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return published,
                }
            }
        });
        Self { end, thread }
    }

    /// Publishes no more; those that were.
    pub(super) fn end(self) -> Vec<Canary> {
        drop(self.end);
        self.thread.join().expect("the canaries were published")
    }
}

/// Times of the canaries of one phase, of each that ran; sorted.
#[derive(Debug)]
pub(super) struct Times {
    /// From publishing to the broker's confirm: what a busy broker and a busy machine cost without the daemon.
    pub(super) confirms: Vec<Duration>,
    /// From publishing to the start.
    pub(super) waits: Vec<Duration>,
    /// How much longer the start took than the confirm of the same canary.
    pub(super) beyond: Vec<Duration>,
}

impl Times {
    pub(super) fn of(canaries: &[Canary], entries: &[Entry]) -> Self {
        let mut starts: BTreeMap<&str, u64> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.what == "start") {
            starts.entry(&entry.id).or_insert(entry.at);
        }
        let mut times = Self { confirms: Vec::new(), waits: Vec::new(), beyond: Vec::new() };
        for canary in canaries {
            let Some(start) = starts.get(canary.id.as_str()) else { continue };
            let wait = Duration::from_micros(start.saturating_sub(canary.at));
            times.confirms.push(canary.confirmed);
            times.waits.push(wait);
            times.beyond.push(wait.saturating_sub(canary.confirmed));
        }
        for sorted in [&mut times.confirms, &mut times.waits, &mut times.beyond] {
            sorted.sort();
        }
        times
    }
}

/// The canaries that were not done exactly once, with how often they were.
pub(super) fn not_done_once<'a>(
    canaries: impl Iterator<Item = &'a Canary>,
    entries: &[Entry],
) -> Vec<(String, usize)> {
    let starts = ledger::count(entries, "start");
    let done = ledger::count(entries, "done");
    let times = |counts: &BTreeMap<(String, u32), usize>, id: &str| -> usize {
        counts.iter().filter(|((of, _), _)| of == id).map(|(_, count)| count).sum()
    };
    let ran = canaries.map(|canary| (&canary.id, times(&starts, &canary.id), times(&done, &canary.id)));
    ran.filter(|(_, starts, done)| (*starts, *done) != (1, 1))
        .map(|(id, starts, _)| (id.clone(), starts))
        .collect()
}
