//! The state machine of a consuming connection. Time and events come in, actions go out, and `session.rs` performs them. Pure,
//! but for the random numbers of the backoff.
//!
//! ```text
//! connection   Waiting ──time──▶ Dialling ──▶ Up ──lost──▶ Waiting         Ended: from each of them
//!                 ▲                 │failed
//!                 └─────────────────┘
//! queue        Idle ──due──▶ Asked ──▶ Live ──cancel──▶ Leaving ──▶ Idle   Live ends, the connection is lost: Idle
//!                ▲             │unusable
//!                └─────────────┘
//! ```
//!
//! Which queues are due is also decided in `probation.rs`: one whose messages end the connection is left alone.
//!
//! A queue has one entry and an entry one stage, so that there is never a second consumer; every stage but `Live` ends
//! within a bound, because `session.rs` bounds every question to the broker.

#[cfg(test)]
mod culprits;
mod end;
mod event;
mod probation;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub(super) use self::end::End;
use self::end::{Next, next};
pub(super) use self::event::{Action, Event};
use self::probation::{Probation, Record, Trust};
use crate::broker::dial::{Backoff, CAP, Loss};
use crate::broker::event::ConsumerId;
use crate::config::Queue;

/// Queues subscribed to at once: enough to hide the way to the broker, few enough that a thousand queues do not open
/// a thousand channels in one instant.
const MAX_ASKED: usize = 16;

/// The machine. Times are those of the session's life.
#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    /// No queue is wanted any more, and no new connection.
    leaving: bool,
    /// Somebody waits for the end of the consumers.
    stopping: bool,
    queues: Vec<Entry>,
    /// Stopped consumers with something to settle; true: being released.
    kept: Vec<(ConsumerId, bool)>,
    /// Counts dials; which address is next.
    turn: usize,
    addresses: usize,
    backoff: Backoff,
    probation: Probation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting {
        until: Duration,
    },
    Dialling,
    Up {
        since: Duration,
        /// It consumed something.
        served: bool,
    },
    Ended,
}

/// One queue: wanted, or with a consumer that is on its way out.
#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    wanted: Option<Queue>,
    stage: Stage,
    backoff: Backoff,
    /// When it became live.
    since: Duration,
    trust: Trust,
    record: Record,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To be subscribed to at this time, if it is wanted.
    Idle(Duration),
    /// Being subscribed to, with this window.
    Asked(u16),
    /// Consumed, with this window.
    Live(ConsumerId, u16),
    /// Cancelled; its stream has not ended yet.
    Leaving(ConsumerId),
}

impl Machine {
    /// For a broker with so many addresses. Its first [`Event::Time`] makes it dial.
    pub(super) fn new(addresses: usize, queues: &[Queue]) -> Self {
        let mut machine = Self {
            phase: Phase::Waiting { until: Duration::ZERO },
            leaving: false,
            stopping: false,
            queues: Vec::new(),
            kept: Vec::new(),
            turn: 0,
            addresses: addresses.max(1),
            backoff: Backoff::default(),
            probation: Probation::default(),
        };
        machine.want(queues, Duration::ZERO, &mut Vec::new());
        machine
    }

    /// Takes an event; says what is to be done, in this order.
    pub(super) fn on(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut todo = Vec::new();
        if self.phase == Phase::Ended {
            return todo;
        }
        match event {
            Event::Dialled => self.phase = Phase::Up { since: now, served: false },
            Event::DialFailed(why) => self.dial_failed(why, now, &mut todo),
            Event::Lost(loss) => self.lost(loss, now, &mut todo),
            Event::Consuming(name, id) => self.consuming(&name, id, now, &mut todo),
            Event::Unusable(name, why) => self.unusable(name, why, now, &mut todo),
            Event::Ended { id, end, connected } => self.ended(id, end, connected, now, &mut todo),
            Event::Forgotten(id, why) if self.is_live(id) => {
                self.ended(id, End::Channel(why), true, now, &mut todo);
            }
            Event::Settled(id) => self.settled(id, &mut todo),
            Event::Released(id) => self.kept.retain(|(kept, _)| *kept != id),
            Event::Queues(queues) if !self.leaving => self.want(&queues, now, &mut todo),
            Event::Retry => self.end_quarantines(now),
            Event::Time | Event::Queues(_) | Event::Forgotten(..) => {}
            Event::Stop => {
                self.stopping = true;
                self.leave(now, &mut todo);
            }
            Event::Retire => self.leave(now, &mut todo),
            Event::Close => self.end(&mut todo),
        }
        self.go_on(now, &mut todo);
        todo
    }

    /// When to come back with [`Event::Time`] if nothing else happens before; never later than [`CAP`] from now.
    pub(super) fn wake(&self, now: Duration) -> Duration {
        let latest = self.judgement().unwrap_or(Duration::MAX).min(now + CAP);
        match self.phase {
            Phase::Waiting { until } => until.min(latest),
            // A queue that is due and not asked for waits for a place, which an event makes free.
            Phase::Up { .. } if self.asked() < MAX_ASKED => {
                let admitted = self.queues.iter().filter(|entry| self.admits(entry));
                let due = admitted.filter_map(|entry| match entry.stage {
                    Stage::Idle(due) => Some(due),
                    _ => None,
                });
                due.min().unwrap_or(latest).min(latest)
            }
            _ => latest,
        }
    }

    /// Stopped consumers whose channel is still needed.
    pub(super) fn kept(&self) -> impl Iterator<Item = ConsumerId> {
        self.kept.iter().map(|(id, _)| *id)
    }

    /// The addresses in turn, the others of a cluster at once.
    fn dial_failed(&mut self, why: String, now: Duration, todo: &mut Vec<Action>) {
        self.turn += 1;
        let all_failed = self.turn.is_multiple_of(self.addresses);
        let wait = if all_failed { self.backoff.failed() } else { Duration::ZERO };
        self.phase = Phase::Waiting { until: now + wait };
        todo.push(Action::Away(why));
    }

    /// Every tag is void, and every queue due as soon as there is a connection again.
    fn lost(&mut self, loss: Loss, now: Duration, todo: &mut Vec<Action>) {
        let Phase::Up { since, served } = self.phase else { return };
        let Loss { why, by_content } = loss;
        todo.push(Action::HangUp(why.clone()));
        self.judge_loss(by_content, &why, now, todo);
        self.kept.clear();
        for entry in &mut self.queues {
            entry.stage = Stage::Idle(now);
        }
        if !served {
            // This address answered, but nothing could be consumed there: the next one is tried.
            self.turn += 1;
        }
        let wait = self.backoff.lost_after(now.saturating_sub(since), served);
        self.phase = Phase::Waiting { until: now + wait };
        if !self.leaving {
            todo.push(Action::Away(why));
        }
    }

    fn consuming(&mut self, name: &str, id: ConsumerId, now: Duration, todo: &mut Vec<Action>) {
        if let Phase::Up { served, .. } = &mut self.phase {
            *served = true;
        }
        let Some(entry) = self.queues.iter_mut().find(|entry| &*entry.name == name) else { return };
        let Stage::Asked(window) = entry.stage else { return };
        entry.since = now;
        if entry.wanted.as_ref().map(Queue::window) == Some(window) {
            entry.stage = Stage::Live(id, window);
        } else {
            // Changed while the broker was asked.
            entry.stage = Stage::Leaving(id);
            todo.push(Action::Cancel(id));
        }
    }

    fn unusable(&mut self, name: Arc<str>, why: String, now: Duration, todo: &mut Vec<Action>) {
        let Some(entry) = self.queues.iter_mut().find(|entry| entry.name == name) else { return };
        entry.stage = Stage::Idle(now + entry.backoff.failed());
        entry.stood();
        if entry.wanted.is_some() {
            todo.push(Action::Unusable(name, why));
        }
    }

    fn ended(&mut self, id: ConsumerId, end: End, connected: bool, now: Duration, todo: &mut Vec<Action>) {
        let entry = self.queues.iter_mut().find(|entry| entry.stage.consumer() == Some(id));
        let cancelled = entry.as_ref().is_some_and(|entry| matches!(entry.stage, Stage::Leaving(_)));
        if entry.is_none() && !self.kept.iter().any(|(kept, _)| *kept == id) {
            return; // of a connection that was lost before
        }
        match next(end, cancelled, connected) {
            Next::Stopped => {
                self.kept.push((id, false));
                todo.push(Action::Stopped(id));
                if let Some(entry) = entry {
                    entry.stage = Stage::Idle(now);
                }
            }
            Next::Resubscribe { why } => {
                self.kept.retain(|(kept, _)| *kept != id);
                todo.push(Action::Void(id, why));
                if let Some(entry) = entry {
                    let lasted = now.saturating_sub(entry.since);
                    entry.stage = Stage::Idle(now + entry.backoff.lost_after(lasted, false));
                    entry.stood();
                }
            }
            Next::Reconnect(loss) => self.lost(loss, now, todo),
        }
    }

    /// Whether nobody cancelled this consumer.
    fn is_live(&self, id: ConsumerId) -> bool {
        self.queues.iter().any(|entry| matches!(entry.stage, Stage::Live(live, _) if live == id))
    }

    fn settled(&mut self, id: ConsumerId, todo: &mut Vec<Action>) {
        if let Some((_, releasing @ false)) = self.kept.iter_mut().find(|(kept, _)| *kept == id) {
            *releasing = true;
            todo.push(Action::Release(id));
        }
    }

    fn leave(&mut self, now: Duration, todo: &mut Vec<Action>) {
        self.leaving = true;
        self.want(&[], now, todo);
    }

    /// Takes over a list of queues. A queue whose window did not change keeps its consumer; the other settings need
    /// no new subscription. One that changed is tried at once, whatever failed before.
    fn want(&mut self, queues: &[Queue], now: Duration, todo: &mut Vec<Action>) {
        for queue in queues {
            if !self.queues.iter().any(|entry| entry.name == queue.name) {
                self.queues.push(Entry {
                    name: queue.name.clone(),
                    wanted: None,
                    stage: Stage::Idle(now),
                    backoff: Backoff::default(),
                    since: now,
                    trust: Trust::Trusted,
                    record: Record::default(),
                });
            }
        }
        for entry in &mut self.queues {
            let wanted = queues.iter().find(|queue| queue.name == entry.name);
            match entry.stage {
                Stage::Live(id, window) if wanted.map(Queue::window) != Some(window) => {
                    entry.stage = Stage::Leaving(id);
                    todo.push(Action::Cancel(id));
                }
                Stage::Idle(_) if wanted != entry.wanted.as_ref() => {
                    entry.stage = Stage::Idle(now);
                    entry.end_quarantine(now);
                }
                _ => {}
            }
            entry.wanted = wanted.cloned();
        }
    }

    /// Starts what is due in the present state: a dial, subscriptions, the end.
    fn go_on(&mut self, now: Duration, todo: &mut Vec<Action>) {
        self.queues.retain(|entry| entry.wanted.is_some() || !matches!(entry.stage, Stage::Idle(_)));
        if self.leaving && self.queues.is_empty() && std::mem::take(&mut self.stopping) {
            todo.push(Action::NoneLeft);
        }
        self.judge_time(matches!(self.phase, Phase::Up { .. }), now);
        match self.phase {
            Phase::Waiting { .. } | Phase::Dialling if self.leaving => self.end(todo),
            Phase::Waiting { until } if until <= now => {
                self.phase = Phase::Dialling;
                todo.push(Action::Dial(self.turn % self.addresses));
            }
            Phase::Up { .. } if self.leaving && self.queues.is_empty() && self.kept.is_empty() => {
                self.end(todo);
            }
            Phase::Up { .. } => self.subscribe_due(now, todo),
            _ => {}
        }
    }

    fn subscribe_due(&mut self, now: Duration, todo: &mut Vec<Action>) {
        let free = MAX_ASKED.saturating_sub(self.asked());
        let is_due =
            |entry: &Entry| matches!(entry.stage, Stage::Idle(due) if due <= now) && self.admits(entry);
        let due: Vec<usize> =
            (0..self.queues.len()).filter(|n| is_due(&self.queues[*n])).take(free).collect();
        for n in due {
            let entry = &mut self.queues[n];
            if let Some(queue) = &entry.wanted {
                entry.stage = Stage::Asked(queue.window());
                todo.push(Action::Subscribe(queue.clone()));
            }
        }
    }

    fn asked(&self) -> usize {
        self.queues.iter().filter(|entry| matches!(entry.stage, Stage::Asked(_))).count()
    }

    fn end(&mut self, todo: &mut Vec<Action>) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            todo.push(Action::End);
        }
    }
}

impl Stage {
    fn consumer(self) -> Option<ConsumerId> {
        match self {
            Self::Live(id, _) | Self::Leaving(id) => Some(id),
            Self::Idle(_) | Self::Asked(_) => None,
        }
    }
}
