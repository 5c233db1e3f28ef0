//! The daemon is told of a host: what the ledger makes of reports and of ends.

use std::time::Duration;

use super::broker::HandKey;
use super::ledger::{EndedRun, HandStage, Owed};
use super::world::World;
use crate::host::{Exit, HostEvent, HostId, HostStage, Report};
use crate::model::{CancelCause, FaultCause, Outcome, TaskError};

impl World {
    pub(super) fn note_host(&mut self, id: HostId, event: &HostEvent) {
        let Some(host) = self.daemon.as_mut().and_then(|daemon| daemon.hosts.get_mut(&id)) else { return };
        match event {
            HostEvent::Ready => host.is_ready = true,
            HostEvent::Report(report) => self.note_report(id, report),
            HostEvent::Withdrawn { seq } => {
                if let Some(key) = self.take_given(id, *seq) {
                    self.note_ran(key, Duration::ZERO);
                    self.note_unstarted(key);
                }
            }
            HostEvent::Exited(exit) => self.note_exit(id, exit),
            HostEvent::Progress { .. } | HostEvent::Log { .. } | HostEvent::Output { .. } => {}
        }
    }

    /// A task has left its host after it ran for so long.
    fn note_ran(&mut self, key: HandKey, ran: Duration) {
        if let Some(hand) = self.ledger.hands.get(&key) {
            self.note_run(hand.message, ran);
        }
    }

    /// A task has left a host.
    fn take_given(&mut self, id: HostId, seq: u64) -> Option<HandKey> {
        let now = self.now;
        let host = self.daemon.as_mut()?.hosts.get_mut(&id)?;
        let at = host.given.iter().position(|(given, _)| *given == seq)?;
        if at == 0 {
            host.head_since = now;
            host.asked_at = None;
        }
        Some(host.given.remove(at).1)
    }

    fn note_report(&mut self, id: HostId, report: &Report) {
        let Some(key) = self.take_given(id, report.seq) else { return };
        self.note_ran(key, report.duration);
        let Some(host) = self.daemon.as_mut().and_then(|daemon| daemon.hosts.get_mut(&id)) else { return };
        host.tasks += 1;
        if matches!(report.outcome, Outcome::Fault(_)) {
            host.told_fault = true;
            for (_, other) in &host.given {
                if let Some(hand) = self.ledger.hands.get_mut(other) {
                    hand.is_recalled = true;
                }
            }
        }
        let Some(hand) = self.ledger.hands.get(&key) else { return };
        if hand.is_recalled && report.outcome == Outcome::Cancelled && hand.cancelled.is_none() {
            return self.note_unstarted(key);
        }
        let has_wish = report.error.as_ref().is_some_and(|error: &TaskError| error.retry_after.is_some());
        let wants_reply = self.task_of(hand.message).is_some_and(|task| task.wants_reply);
        let publishes = wants_reply || !report.follow_ups.is_empty();
        self.note_end(key, report.outcome, has_wish, publishes);
    }

    /// An attempt has ended: what is owed.
    pub(super) fn note_end(&mut self, key: HandKey, outcome: Outcome, has_wish: bool, publishes: bool) {
        let Some(hand) = self.ledger.hands.get_mut(&key) else { return };
        let message = &self.broker.messages[hand.message];
        let is_last = message.attempt >= hand.attempts;
        hand.stage = HandStage::Ended;
        hand.ending = Some((outcome, hand.cancelled));
        hand.owed =
            Owed::after(EndedRun { outcome, cancelled: hand.cancelled, has_wish, is_last, publishes });
        if matches!(outcome, Outcome::Fault(_)) {
            self.ledger.counts[message.queue].faults += 1;
        }
    }

    /// A host gave a task back without a start.
    fn note_unstarted(&mut self, key: HandKey) {
        let now = self.now;
        let Some(hand) = self.ledger.hands.get_mut(&key) else { return };
        if hand.cancelled.is_some() {
            return self.note_end(key, Outcome::Cancelled, false, false);
        }
        if !hand.is_held {
            return self.forget_hand(key);
        }
        hand.stage = HandStage::Waiting;
        hand.owed = Owed::Run;
        hand.was_put_back = true;
        hand.is_recalled = false;
        hand.waits_since = now;
    }

    fn note_exit(&mut self, id: HostId, exit: &Exit) {
        let Some(daemon) = &mut self.daemon else { return };
        let Some(host) = daemon.hosts.get_mut(&id) else { return };
        let given: Vec<_> =
            host.given.iter().map(|(seq, key)| (*seq, *key, host.has_started(*seq))).collect();
        daemon.has_failed[host.handler] |= !exit.orderly;
        if exit.stage != HostStage::Spawning && !exit.orderly {
            daemon.has_died[host.handler] = true;
        }
        let ran_head = self.now.saturating_sub(host.head_since);
        for (at, (_, key, _)) in given.iter().enumerate() {
            self.note_ran(*key, if at == 0 { ran_head } else { Duration::ZERO });
        }
        let is_front = matches!(exit.stage, HostStage::Reading | HostStage::Reporting);
        let front = given.iter().map(|(seq, ..)| *seq).find(|seq| !exit.done_unreported.contains(seq));
        for (seq, key, begun) in given.into_iter().rev() {
            let Some(hand) = self.ledger.hands.get_mut(&key) else { continue };
            let uid = hand.message;
            let is_cancelled = hand.cancelled.is_some();
            let died = if is_cancelled { Outcome::Cancelled } else { Outcome::Fault(exit.cause()) };
            let wants_reply =
                self.ledger.tasks.get(&self.broker.messages[uid].task).is_some_and(|k| k.task.wants_reply);
            if exit.done_unreported.contains(&seq) {
                self.note_end(key, Outcome::Done, false, wants_reply);
                continue;
            }
            if exit.stage == HostStage::Running && seq == exit.started {
                self.note_end(key, died, false, false);
                continue;
            }
            if begun {
                // It ran, and its outcome was lost with its host.
                self.broker.messages[uid].may_start_again();
            }
            if is_front && front == Some(seq) {
                hand.unreported += 1;
                if hand.unreported >= 3 || is_cancelled {
                    self.note_end(key, died, false, false);
                    continue;
                }
                // While its handler is on trial once is enough.
                hand.stage = HandStage::Ended;
                let is_last = self.broker.messages[uid].attempt >= hand.attempts;
                hand.owed = Owed::RunOrFailed { is_last };
                hand.ending = Some((Outcome::Fault(FaultCause::HostDied), None));
                continue;
            }
            if hand.cancelled == Some(CancelCause::Operator) {
                self.note_end(key, Outcome::Cancelled, false, false);
                continue;
            }
            // It waits again, although it was to stop: its host is gone.
            hand.cancelled = None;
            self.note_unstarted(key);
        }
    }

    /// After the end of a host: which tasks wait again, where that was open.
    pub(super) fn resolve_exit(&mut self, id: HostId) {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return };
        let Some(host) = daemon.hosts.remove(&id) else { return };
        let waits: Vec<_> = host.given.into_iter().map(|(_, key)| (key, daemon.core.waits(key))).collect();
        for (key, waits) in waits {
            let Some(hand) = self.ledger.hands.get_mut(&key) else { continue };
            let Owed::RunOrFailed { is_last } = hand.owed else { continue };
            match waits {
                Some(true) => {
                    (hand.stage, hand.owed, hand.waits_since) = (HandStage::Waiting, Owed::Run, now);
                    hand.was_put_back = true;
                }
                Some(false) if !hand.is_held => {
                    hand.owed = Owed::failed(is_last);
                    self.ledger.counts[self.broker.messages[hand.message].queue].faults += 1;
                }
                None if !hand.is_held => self.forget_hand(key),
                _ => {}
            }
        }
    }
}
