//! The world of one run: the broker, the daemon with its hosts, the clock and what is to happen; and the loop that lets it.

use std::time::{Duration, Instant};

use super::agenda::{Agenda, AgendaItem};
use super::broker::{BrokerModel, QueueModel, SubscriptionModel};
use super::choice::{Choices, For};
use super::daemon::DaemonModel;
use super::fault::{Fault, Faults};
use super::ledger::Ledger;
use super::plan::RunPlan;
use super::setup::Setup;
use super::store::Records;
use super::violation::Violation;
use crate::engine::core::{Event, Now};
use crate::model::UnixMs;

/// Events in one turn, as the driver has it.
const TURN: usize = 256;
/// When nothing disturbs any more, all that is left is to end within this time.
const QUIET: Duration = Duration::from_secs(30 * 60);
/// When every run starts.
pub(super) const START: UnixMs = UnixMs(1_800_000_000_000);
/// A run is not longer than that, whatever happens.
const MAX_TURNS: u64 = 100_000;

/// The world.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: RunPlan,
    pub(super) choices: Choices,
    /// Since the start.
    pub(super) now: Duration,
    epoch: Instant,
    pub(super) agenda: Agenda,
    pub(super) broker: BrokerModel,
    pub(super) daemon: Option<DaemonModel>,
    /// How many daemons there were.
    pub(super) incarnation: u64,
    pub(super) records: Records,
    pub(super) ledger: Ledger,
    pub(super) is_machine_short: bool,
    /// Nothing disturbs any more.
    pub(super) is_quiet: bool,
    /// Something happened since the last time that who waits was looked at.
    pub(super) has_changed: bool,
    quiet_since: Duration,
    /// Everything has ended, and the last daemon is draining.
    is_closing: bool,
    pub(super) told_of_hosts: u64,
    /// The daemon is just being asked by an operator to cancel a task.
    pub(super) is_operator_cancelling: bool,
    /// The daemon dies after so many more actions.
    pub(super) dies_after: Option<u64>,
    pub(super) events: u64,
    pub(super) turns: u64,
    pub(super) faults: Faults,
    pub(super) violation: Option<Violation>,
    /// What happens, when that is wanted.
    pub(super) trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(plan: RunPlan, epoch: Instant) -> Self {
        let choices = Choices(plan.seed);
        let queues = plan.setup.queues.iter().map(|queue| QueueModel::new(queue.order)).collect();
        let broker = BrokerModel { queues, ..BrokerModel::default() };
        let mut ledger = Ledger::default();
        ledger.counts.resize_with(broker.queues.len(), Default::default);
        ledger.has_lost.resize(broker.queues.len(), false);
        ledger.is_uncertain.resize(broker.queues.len(), false);
        let mut agenda = Agenda::default();
        for (n, operation) in plan.operations.iter().enumerate() {
            agenda.add(operation.at, AgendaItem::Operation(n));
        }
        agenda.add(plan.end(), AgendaItem::Quiet);
        agenda.add(Duration::ZERO, AgendaItem::StartDaemon);
        Self {
            plan,
            choices,
            now: Duration::ZERO,
            epoch,
            agenda,
            broker,
            daemon: None,
            incarnation: 0,
            records: Records::default(),
            ledger,
            is_machine_short: false,
            is_quiet: false,
            has_changed: true,
            quiet_since: Duration::ZERO,
            is_closing: false,
            told_of_hosts: 0,
            is_operator_cancelling: false,
            dies_after: None,
            events: 0,
            turns: 0,
            faults: Faults::default(),
            violation: None,
            trace: None,
        }
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.plan.setup
    }

    /// The clock as the daemon reads it.
    pub(super) fn clock(&self) -> Now {
        Now { instant: self.epoch + self.now, unix: self.unix() }
    }

    pub(super) fn unix(&self) -> UnixMs {
        START.plus(self.now)
    }

    /// Counts a fault.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults.add(fault);
    }

    /// Whether a fault that belongs to an event happens to it; one that does is counted.
    pub(super) fn strikes(&mut self, fault: Fault, a: u64, b: u64) -> bool {
        let strikes = !self.is_quiet && self.plan.has(fault, a, b);
        if strikes {
            self.fault(fault);
        }
        strikes
    }

    /// An invariant does not hold. The first one counts.
    pub(super) fn broken(&mut self, invariant: &'static str, seen: impl Into<String>) {
        let seen = seen.into();
        self.note(|| format!("BROKEN {invariant}: {seen}"));
        self.violation.get_or_insert(Violation { invariant, seen });
    }

    /// Says what happens, to whoever reads the trace.
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        let at = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12.6} {}", at.as_secs_f64(), what()));
        }
    }

    /// How long something is on its way.
    pub(super) fn way(&self, a: u64, b: u64) -> Duration {
        self.choices.span(Duration::ZERO, self.setup().latency, For::Latency, a, b)
    }

    /// The present daemon is to be told something.
    pub(super) fn tell_at(&mut self, at: Duration, event: Event) {
        let daemon = self.incarnation;
        self.agenda.add(at, AgendaItem::Tell { daemon, event: Box::new(event) });
    }

    /// Lets everything happen, to the end or to the first invariant that does not hold.
    pub(super) fn run(&mut self) {
        while self.violation.is_none() {
            self.turns += 1;
            if self.turns > MAX_TURNS {
                return self.broken("the run comes to an end", "it does not");
            }
            if self.is_quiet && !self.is_closing && self.broker.is_empty() {
                self.is_closing = true;
                self.check_ends();
                self.drain();
            }
            if self.is_closing && self.daemon.is_none() {
                return;
            }
            if self.is_quiet && self.now > self.quiet_since + QUIET {
                let left = self.describe_left();
                return self.broken("every task comes to an end", left);
            }
            if !self.turn() {
                return;
            }
        }
    }

    /// One turn: what happens next, and what the daemon makes of it. False: nothing is to happen any more.
    fn turn(&mut self) -> bool {
        let tick = self.daemon.as_ref().map(|daemon| self.since_epoch(daemon.core.next_tick()));
        let next = match (self.agenda.next_at(), tick) {
            (Some(item), Some(tick)) => item.min(tick),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => return false,
        };
        let start = self.now.max(next);
        let mut end = start + self.setup().batch;
        if self.daemon.is_some() && self.strikes(Fault::LateTurn, self.turns, 0) {
            end = start + Duration::from_millis(self.choices.below(120, For::Tick, self.turns, 0));
        }
        self.now = end;
        let mut told = 0;
        while told < TURN && self.violation.is_none() {
            let Some(item) = self.agenda.next_at().filter(|at| *at <= end).and_then(|_| self.agenda.take())
            else {
                break;
            };
            told += usize::from(matches!(item, AgendaItem::Tell { .. }));
            self.happen(item);
        }
        if told > 0 || tick.is_some_and(|tick| tick <= end) {
            self.end_turn();
        }
        true
    }

    fn since_epoch(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.epoch)
    }

    fn happen(&mut self, item: AgendaItem) {
        self.has_changed = true;
        match item {
            AgendaItem::Operation(n) => self.operate(n),
            AgendaItem::Undo(undo) => self.undo(&undo),
            AgendaItem::StartDaemon => self.start_daemon(),
            AgendaItem::Tell { daemon, event } => {
                if daemon == self.incarnation && self.daemon.is_some() {
                    self.tell(*event);
                }
            }
            AgendaItem::Settle { consumer, tag, requeue } => self.settle_at_broker(consumer, tag, requeue),
            AgendaItem::Connected { daemon, link } => self.on_connected(daemon, link),
            AgendaItem::Subscribed { daemon, link, queue } => self.on_subscribed(daemon, link, queue),
            AgendaItem::CancelDone { consumer } => self.on_cancel_done(consumer),
            AgendaItem::AskSeen { consumer } => self.ask_seen(consumer),
            AgendaItem::Back(uid) => self.come_back(uid),
            AgendaItem::Publish { daemon, publication } => self.try_publication(daemon, publication),
            AgendaItem::Answer { daemon, publication, attempt } => {
                self.answer_publication(daemon, publication, attempt);
            }
            AgendaItem::Record { daemon, number } => self.records.write(daemon, number),
            AgendaItem::Host { daemon, host, step } => {
                if daemon == self.incarnation {
                    self.on_host_step(host, step);
                }
            }
            AgendaItem::Quiet => self.be_quiet(),
        }
    }

    /// Nothing disturbs any more: what is left has to come to its end.
    fn be_quiet(&mut self) {
        self.note(|| "quiet".to_owned());
        self.is_quiet = true;
        self.quiet_since = self.now;
        self.is_machine_short = false;
        self.unblock();
        self.restore();
    }

    /// What is not over yet, for people.
    fn describe_left(&self) -> String {
        let left = self.broker.messages.iter().enumerate();
        let left = left.filter(|(_, message)| message.place != super::broker::MessagePlace::Gone);
        let left: Vec<String> = left
            .map(|(uid, message)| {
                let hand = message.hand.and_then(|key| self.ledger.hands.get(&key));
                format!("message {uid} of task {}: {:?}, in hand: {hand:?}", message.task, message.place)
            })
            .collect();
        left.join("; ")
    }

    /// The consumers of the present daemon.
    pub(super) fn consumers(&self) -> Vec<u32> {
        let all = self.broker.subscriptions.iter();
        let mine = |(_, one): &(&u32, &SubscriptionModel)| one.daemon == self.incarnation && !one.is_lost;
        all.filter(mine).map(|(consumer, _)| *consumer).collect()
    }
}
