//! The state machine of a consuming connection. Time and events come in, actions go out, and `session.rs` performs them.
//! Deterministic except for jitter.
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

mod end;
mod event;
mod probation;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod quarantine_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub(super) use self::end::End;
use self::end::{Next, next};
pub(super) use self::event::{SessionAction, SessionEvent};
use self::probation::{Probation, Record, Trust};
use crate::broker::dial::{Backoff, CAP, Loss};
use crate::broker::event::ConsumerId;
use crate::config::Queue;

/// Queues subscribed to at once: enough to hide the way to the broker, few enough that a thousand queues do not open
/// a thousand channels in one instant.
const MAX_ASKED: usize = 16;

/// The machine. Times are those of the session's life.
#[derive(Debug)]
pub(super) struct SessionMachine {
    phase: Phase,
    /// No queue is wanted any more, and no new connection.
    leaving: bool,
    /// Somebody waits for the end of the consumers.
    stopping: bool,
    queues: Vec<SessionQueue>,
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
struct SessionQueue {
    name: Arc<str>,
    wanted: Option<Queue>,
    stage: QueueStage,
    backoff: Backoff,
    /// When it became live.
    since: Duration,
    trust: Trust,
    record: Record,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueueStage {
    /// To be subscribed to at this time, if it is wanted.
    Idle(Duration),
    /// Being subscribed to, with this window.
    Asked(u16),
    /// Consumed, with this window.
    Live(ConsumerId, u16),
    /// Cancelled; its stream has not ended yet.
    Leaving(ConsumerId),
}

impl SessionMachine {
    /// For a broker with so many addresses. Its first [`SessionEvent::Time`] makes it dial.
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
    pub(super) fn on(&mut self, event: SessionEvent, now: Duration) -> Vec<SessionAction> {
        let mut todo = Vec::new();
        if self.phase == Phase::Ended {
            return todo;
        }
        match event {
            SessionEvent::Dialled => self.phase = Phase::Up { since: now, served: false },
            SessionEvent::DialFailed(why) => self.dial_failed(why, now, &mut todo),
            SessionEvent::Lost(loss) => self.lost(loss, now, &mut todo),
            SessionEvent::Consuming(name, id) => self.consuming(&name, id, now, &mut todo),
            SessionEvent::Unusable(name, why) => self.unusable(name, why, now, &mut todo),
            SessionEvent::Ended { id, end, connected } => self.ended(id, end, connected, now, &mut todo),
            SessionEvent::Forgotten(id, why) if self.is_live(id) => {
                self.ended(id, End::Channel(why), true, now, &mut todo);
            }
            SessionEvent::Settled(id) => self.settled(id, &mut todo),
            SessionEvent::Released(id) => self.kept.retain(|(kept, _)| *kept != id),
            SessionEvent::Queues(queues) if !self.leaving => self.want(&queues, now, &mut todo),
            SessionEvent::Retry => self.end_quarantines(now),
            SessionEvent::Time | SessionEvent::Queues(_) | SessionEvent::Forgotten(..) => {}
            SessionEvent::Stop => {
                self.stopping = true;
                self.leave(now, &mut todo);
            }
            SessionEvent::Retire => self.leave(now, &mut todo),
            SessionEvent::Close => self.end(&mut todo),
        }
        self.go_on(now, &mut todo);
        todo
    }

    /// When to come back with [`SessionEvent::Time`] if nothing else happens before; never later than [`CAP`] from now.
    pub(super) fn wake(&self, now: Duration) -> Duration {
        let latest = self.next_deadline().unwrap_or(Duration::MAX).min(now + CAP);
        match self.phase {
            Phase::Waiting { until } => until.min(latest),
            // A queue that is due and not asked for waits for a place, which an event makes free.
            Phase::Up { .. } if self.asked() < MAX_ASKED => {
                let admitted = self.queues.iter().filter(|entry| self.admits(entry));
                let due = admitted.filter_map(|entry| match entry.stage {
                    QueueStage::Idle(due) => Some(due),
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
    fn dial_failed(&mut self, why: String, now: Duration, todo: &mut Vec<SessionAction>) {
        self.turn += 1;
        let all_failed = self.turn.is_multiple_of(self.addresses);
        let wait = if all_failed { self.backoff.failed() } else { Duration::ZERO };
        self.phase = Phase::Waiting { until: now + wait };
        todo.push(SessionAction::Away(why));
    }

    /// Every tag is void, and every queue due as soon as there is a connection again.
    fn lost(&mut self, loss: Loss, now: Duration, todo: &mut Vec<SessionAction>) {
        let Phase::Up { since, served } = self.phase else { return };
        let Loss { why, by_content } = loss;
        todo.push(SessionAction::HangUp(why.clone()));
        self.attribute_loss(by_content, &why, now, todo);
        self.kept.clear();
        for entry in &mut self.queues {
            entry.stage = QueueStage::Idle(now);
        }
        if !served {
            // This address answered, but nothing could be consumed there: the next one is tried.
            self.turn += 1;
        }
        let wait = self.backoff.lost_after(now.saturating_sub(since), served);
        self.phase = Phase::Waiting { until: now + wait };
        if !self.leaving {
            todo.push(SessionAction::Away(why));
        }
    }

    fn consuming(&mut self, name: &str, id: ConsumerId, now: Duration, todo: &mut Vec<SessionAction>) {
        if let Phase::Up { served, .. } = &mut self.phase {
            *served = true;
        }
        let Some(entry) = self.queues.iter_mut().find(|entry| &*entry.name == name) else { return };
        let QueueStage::Asked(window) = entry.stage else { return };
        entry.since = now;
        if entry.wanted.as_ref().map(Queue::window) == Some(window) {
            entry.stage = QueueStage::Live(id, window);
        } else {
            // Changed while the broker was asked.
            entry.stage = QueueStage::Leaving(id);
            todo.push(SessionAction::Cancel(id));
        }
    }

    fn unusable(&mut self, name: Arc<str>, why: String, now: Duration, todo: &mut Vec<SessionAction>) {
        let Some(entry) = self.queues.iter_mut().find(|entry| entry.name == name) else { return };
        entry.stage = QueueStage::Idle(now + entry.backoff.failed());
        entry.stood();
        if entry.wanted.is_some() {
            todo.push(SessionAction::Unusable(name, why));
        }
    }

    fn ended(
        &mut self,
        id: ConsumerId,
        end: End,
        connected: bool,
        now: Duration,
        todo: &mut Vec<SessionAction>,
    ) {
        let entry = self.queues.iter_mut().find(|entry| entry.stage.consumer() == Some(id));
        let cancelled = entry.as_ref().is_some_and(|entry| matches!(entry.stage, QueueStage::Leaving(_)));
        if entry.is_none() && !self.kept.iter().any(|(kept, _)| *kept == id) {
            return; // of a connection that was lost before
        }
        match next(end, cancelled, connected) {
            Next::Stopped => {
                self.kept.push((id, false));
                todo.push(SessionAction::Stopped(id));
                if let Some(entry) = entry {
                    entry.stage = QueueStage::Idle(now);
                }
            }
            Next::Resubscribe { why } => {
                self.kept.retain(|(kept, _)| *kept != id);
                todo.push(SessionAction::Void(id, why));
                if let Some(entry) = entry {
                    let lasted = now.saturating_sub(entry.since);
                    entry.stage = QueueStage::Idle(now + entry.backoff.lost_after(lasted, false));
                    entry.stood();
                }
            }
            Next::Reconnect(loss) => self.lost(loss, now, todo),
        }
    }

    /// Whether nobody cancelled this consumer.
    fn is_live(&self, id: ConsumerId) -> bool {
        self.queues.iter().any(|entry| matches!(entry.stage, QueueStage::Live(live, _) if live == id))
    }

    fn settled(&mut self, id: ConsumerId, todo: &mut Vec<SessionAction>) {
        if let Some((_, releasing @ false)) = self.kept.iter_mut().find(|(kept, _)| *kept == id) {
            *releasing = true;
            todo.push(SessionAction::Release(id));
        }
    }

    fn leave(&mut self, now: Duration, todo: &mut Vec<SessionAction>) {
        self.leaving = true;
        self.want(&[], now, todo);
    }

    /// Takes over a list of queues. A queue whose window did not change keeps its consumer; the other settings need
    /// no new subscription. One that changed is tried at once, whatever failed before.
    fn want(&mut self, queues: &[Queue], now: Duration, todo: &mut Vec<SessionAction>) {
        for queue in queues {
            if !self.queues.iter().any(|entry| entry.name == queue.name) {
                self.queues.push(SessionQueue {
                    name: queue.name.clone(),
                    wanted: None,
                    stage: QueueStage::Idle(now),
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
                QueueStage::Live(id, window) if wanted.map(Queue::window) != Some(window) => {
                    entry.stage = QueueStage::Leaving(id);
                    todo.push(SessionAction::Cancel(id));
                }
                QueueStage::Idle(_) if wanted != entry.wanted.as_ref() => {
                    entry.stage = QueueStage::Idle(now);
                    entry.end_quarantine(now);
                }
                _ => {}
            }
            entry.wanted = wanted.cloned();
        }
    }

    /// Starts what is due in the present state: a dial, subscriptions, the end.
    fn go_on(&mut self, now: Duration, todo: &mut Vec<SessionAction>) {
        self.queues.retain(|entry| entry.wanted.is_some() || !matches!(entry.stage, QueueStage::Idle(_)));
        if self.leaving && self.queues.is_empty() && std::mem::take(&mut self.stopping) {
            todo.push(SessionAction::NoneLeft);
        }
        self.expire_trials(matches!(self.phase, Phase::Up { .. }), now);
        match self.phase {
            Phase::Waiting { .. } | Phase::Dialling if self.leaving => self.end(todo),
            Phase::Waiting { until } if until <= now => {
                self.phase = Phase::Dialling;
                todo.push(SessionAction::Dial(self.turn % self.addresses));
            }
            Phase::Up { .. } if self.leaving && self.queues.is_empty() && self.kept.is_empty() => {
                self.end(todo);
            }
            Phase::Up { .. } => self.subscribe_due(now, todo),
            _ => {}
        }
    }

    fn subscribe_due(&mut self, now: Duration, todo: &mut Vec<SessionAction>) {
        let free = MAX_ASKED.saturating_sub(self.asked());
        let is_due = |entry: &SessionQueue| {
            matches!(entry.stage, QueueStage::Idle(due) if due <= now) && self.admits(entry)
        };
        let due: Vec<usize> =
            (0..self.queues.len()).filter(|n| is_due(&self.queues[*n])).take(free).collect();
        for n in due {
            let entry = &mut self.queues[n];
            if let Some(queue) = &entry.wanted {
                entry.stage = QueueStage::Asked(queue.window());
                todo.push(SessionAction::Subscribe(queue.clone()));
            }
        }
    }

    fn asked(&self) -> usize {
        self.queues.iter().filter(|entry| matches!(entry.stage, QueueStage::Asked(_))).count()
    }

    fn end(&mut self, todo: &mut Vec<SessionAction>) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            todo.push(SessionAction::End);
        }
    }
}

impl QueueStage {
    fn consumer(self) -> Option<ConsumerId> {
        match self {
            Self::Live(id, _) | Self::Leaving(id) => Some(id),
            Self::Idle(_) | Self::Asked(_) => None,
        }
    }
}
