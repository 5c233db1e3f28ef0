//! Finds the queue whose messages end the connection, and leaves it alone, so that the others go on. Part of the machine,
//! and as pure.
//!
//! A connection that ends because of what came over it (its bytes are no AMQP to the client library, or the broker says
//! so) ends again when the same message is delivered again. Nothing tells which queue that was: all share the
//! connection. So after [`STRIKES`] such losses within [`STRIKES_WITHIN`] the queues are tried:
//!
//! ```text
//! Trusted ──strikes──▶ Suspect ──its turn──▶ Tried ──consumed for a while──▶ Trusted
//!                        ▲  ▲                 │ lost: half of them go on, the others are suspects again
//!                        │  └─────────────────┤
//!                        └──time, reload── Quarantined ◀── lost, as the only one consumed
//! ```
//!
//! Half of the suspects are consumed at a time. If the connection survives, they stay consumed while the next half is
//! tried; if it fails, that half is searched first. A queue is quarantined when it was the only consumed queue of a lost
//! connection, because a trusted queue may be the cause: a message may fail only sometimes, or come late. If the queue
//! survives alone, every other one is a suspect again, with a longer trial. A queue that was quarantined before is
//! quarantined again at its first failed trial.
//!
//! A lost network and a broker that ends or refuses are no strikes, however often they come, and decide no trial.

use std::time::Duration;

use super::{QueueStage, SessionAction, SessionMachine, SessionQueue};

/// So many losses make suspects of the queues: one may be chance, and the next one follow from it.
const STRIKES: usize = 3;
/// Strikes are forgotten after this. A message that fails only sometimes takes its time.
const STRIKES_WITHIN: Duration = Duration::from_mins(5);
/// How long a tried queue has to be consumed, at first and at most. What a queue holds is delivered within milliseconds;
/// it is doubled each time that trust turned out to be wrong.
const PROOF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How long a queue is left alone, at first and at most. Each new trial that fails costs the others their connection once.
const QUARANTINE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(30));

/// What is thought of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Consumed.
    Trusted,
    /// Not consumed before it is its turn to be tried.
    Suspect,
    /// Consumed, to see whether the connection stands.
    Tried,
    /// Not consumed until then.
    Quarantined(Duration),
}

/// What is known of a queue from earlier trials.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    /// How often it was quarantined since it was last trusted.
    quarantines: u32,
    /// In how many groups it failed since then, each a part of the one before: the smallest is searched first.
    failed_groups: u32,
    /// How often it was tried. Who was tried least is tried next, so that flaky queues do not keep others waiting.
    trials: u32,
}

/// How the search stands.
#[derive(Debug)]
pub(super) struct Probation {
    /// When connections ended because of what came over them, and no trial was to blame.
    strikes: Vec<Duration>,
    /// Nothing is consumed but the one queue that is tried.
    pub(super) alone: bool,
    /// Since when all that is tried is consumed.
    since: Option<Duration>,
    proof: Duration,
}

impl Default for Probation {
    fn default() -> Self {
        Self { strikes: Vec::new(), alone: false, since: None, proof: PROOF.0 }
    }
}

impl SessionMachine {
    /// Whether a queue may be consumed now.
    pub(super) fn admits(&self, entry: &SessionQueue) -> bool {
        match entry.trust {
            Trust::Trusted => !self.probation.alone,
            Trust::Tried => true,
            Trust::Suspect | Trust::Quarantined(_) => false,
        }
    }

    /// The connection is gone; `content`: because of what came over it. To be called while the stages are still those
    /// of the connection.
    pub(super) fn attribute_loss(
        &mut self,
        content: bool,
        why: &str,
        now: Duration,
        todo: &mut Vec<SessionAction>,
    ) {
        self.probation.since = None;
        if !content || self.leaving {
            return;
        }
        let was_consumed = |entry: &SessionQueue| !matches!(entry.stage, QueueStage::Idle(_));
        let consumed: Vec<usize> =
            (0..self.queues.len()).filter(|n| was_consumed(&self.queues[*n])).collect();
        let tried: Vec<usize> =
            consumed.iter().copied().filter(|n| self.queues[*n].trust == Trust::Tried).collect();
        match tried[..] {
            [] if consumed.is_empty() => {}
            [] => self.strike(now),
            [one] if consumed.len() == 1 || self.queues[one].record.quarantines > 0 => {
                self.quarantine(one, why, now, todo);
            }
            [one] => {
                self.keep_tried(&[one]);
                self.probation.alone = true;
            }
            _ => {
                for n in &tried {
                    self.queues[*n].record.failed_groups += 1;
                }
                self.keep_tried(&tried[..tried.len() / 2]);
            }
        }
    }

    /// Ends trials and quarantines whose time has come, and trials of queues that are not wanted any more.
    pub(super) fn expire_trials(&mut self, connected: bool, now: Duration) {
        for entry in &mut self.queues {
            if matches!(entry.trust, Trust::Quarantined(until) if until <= now) {
                entry.trust = Trust::Suspect;
            }
        }
        if !self.is_trying() {
            self.try_next();
        }
        let is_live = |entry: &SessionQueue| matches!(entry.stage, QueueStage::Live(..));
        if !connected || !self.is_trying() || !self.tried().all(is_live) {
            self.probation.since = None;
            return;
        }
        let since = *self.probation.since.get_or_insert(now);
        if now >= since + self.probation.proof {
            self.trust_tried();
        }
    }

    /// When [`expire_trials`](Self::expire_trials) has something to do, if nothing else happens.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let quarantines = self.queues.iter().filter_map(|entry| match entry.trust {
            Trust::Quarantined(until) => Some(until),
            _ => None,
        });
        let trial = self.probation.since.map(|since| since + self.probation.proof);
        quarantines.chain(trial).min()
    }

    /// An operator asks for it: what is in quarantine is tried now.
    pub(super) fn end_quarantines(&mut self, now: Duration) {
        self.queues.iter_mut().for_each(|entry| entry.end_quarantine(now));
    }

    fn strike(&mut self, now: Duration) {
        let strikes = &mut self.probation.strikes;
        strikes.retain(|at| now < *at + STRIKES_WITHIN);
        strikes.push(now);
        if strikes.len() < STRIKES {
            return;
        }
        self.probation = Probation { proof: self.probation.proof, ..Probation::default() };
        self.keep_tried(&[]);
        self.suspect_all();
        self.try_next();
    }

    fn quarantine(&mut self, one: usize, why: &str, now: Duration, todo: &mut Vec<SessionAction>) {
        self.keep_tried(&[one]);
        let entry = &mut self.queues[one];
        let doubled = 1_u32.checked_shl(entry.record.quarantines).unwrap_or(u32::MAX);
        let wait = QUARANTINE.0.saturating_mul(doubled).min(QUARANTINE.1);
        entry.record.quarantines = entry.record.quarantines.saturating_add(1);
        entry.record.failed_groups = 0;
        entry.trust = Trust::Quarantined(now + wait);
        if entry.wanted.is_some() {
            todo.push(SessionAction::Quarantine(entry.name.clone(), why.to_owned(), wait));
        }
        self.probation = Probation::default();
        self.try_next();
    }

    /// What is tried has stood its trial.
    fn trust_tried(&mut self) {
        if self.probation.alone {
            // It was suspected for the fault of one that was trusted.
            self.probation.proof = (self.probation.proof * 2).min(PROOF.1);
            self.suspect_all();
        }
        self.queues.iter_mut().for_each(SessionQueue::stood);
        self.try_next();
    }

    /// Makes suspects of all that is trusted.
    fn suspect_all(&mut self) {
        for entry in self.queues.iter_mut().filter(|entry| entry.trust == Trust::Trusted) {
            entry.trust = Trust::Suspect;
        }
    }

    /// Tries half of the most suspect. When there is none, the search is over.
    fn try_next(&mut self) {
        (self.probation.since, self.probation.alone) = (None, false);
        let mut suspects: Vec<&mut SessionQueue> =
            self.queues.iter_mut().filter(|entry| entry.trust == Trust::Suspect).collect();
        let most = suspects.iter().map(|entry| entry.record.failed_groups).max();
        suspects.retain(|entry| Some(entry.record.failed_groups) == most);
        suspects.sort_by_key(|entry| entry.record.trials);
        let half = suspects.len().div_ceil(2);
        for entry in suspects.into_iter().take(half) {
            entry.trust = Trust::Tried;
            entry.record.trials = entry.record.trials.saturating_add(1);
        }
    }

    /// Of what is tried only these go on, the others are suspects again.
    fn keep_tried(&mut self, kept: &[usize]) {
        for (n, entry) in self.queues.iter_mut().enumerate() {
            if entry.trust == Trust::Tried && !kept.contains(&n) {
                entry.trust = Trust::Suspect;
            }
        }
    }

    fn tried(&self) -> impl Iterator<Item = &SessionQueue> {
        self.queues.iter().filter(|entry| entry.trust == Trust::Tried)
    }

    fn is_trying(&self) -> bool {
        self.tried().next().is_some()
    }
}

impl SessionQueue {
    /// Its trial is over, if there was one: the connection stood it, or the queue gives nothing that could end it.
    pub(super) fn stood(&mut self) {
        if self.trust == Trust::Tried {
            self.trust = Trust::Trusted;
            (self.record.quarantines, self.record.failed_groups) = (0, 0);
        }
    }

    /// It is tried as soon as nothing else is.
    pub(super) fn end_quarantine(&mut self, now: Duration) {
        if let Trust::Quarantined(until) = &mut self.trust {
            *until = now.min(*until);
        }
    }
}
