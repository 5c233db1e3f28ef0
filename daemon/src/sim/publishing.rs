//! A model of confirmed publishing: a publication is tried until the broker has taken it, and every answer may be late,
//! lost, or a refusal.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::agenda::AgendaItem;
use super::broker::{Message, MessagePlace, Uid};
use super::choice::For;
use super::fault::Fault;
use super::world::World;
use crate::broker::copy::{self, RetryCopy};
use crate::broker::hops::{self, Basis, Wait};
use crate::broker::topology;
use crate::engine::core::{Copy, CopyKind, CopyResult, EntryKey, Event};
use crate::task::own;

/// A publication under way.
#[derive(Debug)]
pub(super) struct PublicationModel {
    /// The message that it is a copy of.
    pub(super) message: Uid,
    copy: Copy,
    attempt: u64,
    fate: PublishFate,
}

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PublishFate {
    /// Not sent yet.
    Waits,
    Taken,
    Refused,
    /// It was taken, and nobody knows.
    ConfirmLost,
    Unacceptable,
    FollowUpFailed,
}

impl World {
    /// Starts a publication.
    pub(super) fn publish(&mut self, message: Uid, copy: Copy) {
        let number = self.incarnation;
        let Some(daemon) = &mut self.daemon else { return };
        daemon.next_publication += 1;
        let publication = daemon.next_publication;
        daemon
            .publications
            .insert(publication, PublicationModel { message, copy, attempt: 0, fate: PublishFate::Waits });
        self.agenda.add(self.now, AgendaItem::Publish { daemon: number, publication });
    }

    pub(super) fn try_publication(&mut self, number: u64, publication: u64) {
        if number != self.incarnation || self.broker.is_blocked {
            return; // unblocking tries it again
        }
        let Some(one) = self.daemon.as_mut().and_then(|daemon| daemon.publications.get_mut(&publication))
        else {
            return;
        };
        one.attempt += 1;
        let (message, attempt) = (one.message, one.attempt);
        let fate = self.fate_of(publication, attempt);
        if matches!(fate, PublishFate::Taken | PublishFate::ConfirmLost) {
            self.take_copy(publication);
        }
        let mut takes = self.choices.span(
            Duration::ZERO,
            self.plan.setup.latency + Duration::from_micros(200),
            For::Confirm,
            message as u64,
            attempt,
        );
        if fate == PublishFate::Taken && self.strikes(Fault::ConfirmLate, number << 32 | publication, attempt)
        {
            takes += Duration::from_millis(self.choices.below(15_000, For::Confirm, publication, attempt));
        }
        if let Some(one) = self.daemon.as_mut().and_then(|daemon| daemon.publications.get_mut(&publication)) {
            one.fate = fate;
        }
        self.agenda.add(self.now + takes, AgendaItem::Answer { daemon: number, publication, attempt });
    }

    /// A fault that belongs to an event of the present daemon.
    fn has(&self, fault: Fault, a: u64, b: u64) -> bool {
        !self.is_quiet && self.plan.has(fault, self.incarnation << 32 | a, b)
    }

    fn fate_of(&mut self, publication: u64, attempt: u64) -> PublishFate {
        let Some(one) = self.daemon.as_ref().and_then(|daemon| daemon.publications.get(&publication)) else {
            return PublishFate::Waits;
        };
        let task = self.broker.messages[one.message].task as u64;
        let (runs_again, publishes) = match &one.copy.kind {
            CopyKind::Again(_) | CopyKind::Onward(_) => (true, false),
            CopyKind::FollowUps { follow_ups, .. } => (false, !follow_ups.is_empty()),
            CopyKind::Dead { .. } => (false, false),
        };
        let is_follow_ups = matches!(one.copy.kind, CopyKind::FollowUps { .. });
        let (fate, fault) = match () {
            // That is for what the message is: every attempt, by any daemon.
            () if runs_again && self.plan.has(Fault::Unacceptable, task, 0) => {
                (PublishFate::Unacceptable, Fault::Unacceptable)
            }
            () if publishes && self.has(Fault::FollowUpFailed, publication, attempt) => {
                (PublishFate::FollowUpFailed, Fault::FollowUpFailed)
            }
            // The publisher tries follow-ups again by itself.
            () if !is_follow_ups && self.has(Fault::Refused, publication, attempt) => {
                (PublishFate::Refused, Fault::Refused)
            }
            () if self.has(Fault::ConfirmLost, publication, attempt) => {
                (PublishFate::ConfirmLost, Fault::ConfirmLost)
            }
            () => return PublishFate::Taken,
        };
        self.fault(fault);
        fate
    }

    pub(super) fn answer_publication(&mut self, number: u64, publication: u64, attempt: u64) {
        if number != self.incarnation {
            return;
        }
        let Some(one) = self.daemon.as_mut().and_then(|daemon| daemon.publications.get_mut(&publication))
        else {
            return;
        };
        if one.attempt != attempt || one.fate == PublishFate::Waits {
            return; // the connection was lost in between
        }
        let entry = one.copy.entry;
        match std::mem::replace(&mut one.fate, PublishFate::Waits) {
            PublishFate::Waits => {}
            PublishFate::Taken => self.end_publication(publication, entry, CopyResult::Confirmed),
            PublishFate::Unacceptable => {
                self.end_publication(publication, entry, CopyResult::Unacceptable("too large".to_owned()));
            }
            PublishFate::FollowUpFailed => {
                self.end_publication(
                    publication,
                    entry,
                    CopyResult::FollowUpFailed("no such queue".to_owned()),
                );
            }
            PublishFate::Refused => {
                self.tell_at(self.now, Event::Copy { entry, result: CopyResult::Refused("full".to_owned()) });
                self.try_again(publication, attempt);
            }
            PublishFate::ConfirmLost => self.try_again(publication, attempt),
        }
    }

    fn try_again(&mut self, publication: u64, attempt: u64) {
        let pause = self.choices.span(
            Duration::from_millis(100),
            Duration::from_millis(2_000),
            For::Pause,
            publication,
            attempt,
        );
        self.agenda.add(self.now + pause, AgendaItem::Publish { daemon: self.incarnation, publication });
    }

    fn end_publication(&mut self, publication: u64, entry: EntryKey, result: CopyResult) {
        if let Some(daemon) = &mut self.daemon {
            daemon.publications.remove(&publication);
        }
        self.tell_at(self.now, Event::Copy { entry, result });
    }

    /// The publishing connection is lost: what was sent is tried again, whether it was taken or not.
    pub(super) fn lose_publishing(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let mut again = Vec::new();
        for (publication, one) in &mut daemon.publications {
            if std::mem::replace(&mut one.fate, PublishFate::Waits) != PublishFate::Waits {
                again.push((*publication, one.attempt));
            }
        }
        for (publication, attempt) in again {
            self.try_again(publication, attempt);
        }
    }

    /// The broker takes messages again.
    pub(super) fn unblock(&mut self) {
        if !std::mem::take(&mut self.broker.is_blocked) {
            return;
        }
        let number = self.incarnation;
        let Some(daemon) = &self.daemon else { return };
        for (publication, one) in &daemon.publications {
            if one.fate == PublishFate::Waits {
                self.agenda.add(self.now, AgendaItem::Publish { daemon: number, publication: *publication });
            }
        }
    }

    /// The daemon has ended with publications under way.
    pub(super) fn end_publications(&mut self, publications: BTreeMap<u64, PublicationModel>) {
        for (number, one) in publications {
            let is_sent = one.fate == PublishFate::Waits && one.attempt == 0 && !self.broker.is_blocked;
            if is_sent && self.choices.chance(300, For::Publish, self.incarnation, number) {
                self.take_copy_of(&one);
            }
        }
    }

    fn take_copy(&mut self, publication: u64) {
        let Some(daemon) = &mut self.daemon else { return };
        let Some(one) = daemon.publications.remove(&publication) else { return };
        self.take_copy_of(&one);
        if let Some(daemon) = &mut self.daemon {
            daemon.publications.insert(publication, one);
        }
    }

    /// The broker has it.
    fn take_copy_of(&mut self, one: &PublicationModel) {
        match &one.copy.kind {
            CopyKind::Again(again) => {
                let wait = Wait { due: self.unix().plus(again.delay), basis: Basis::Delay };
                let properties = self.retry_copy(one, again.attempt, again.redeliveries);
                let (properties, delay) = if again.delay.is_zero() {
                    (properties, Duration::ZERO)
                } else {
                    (hops::mark(properties, wait, self.unix()), topology::rung(again.delay))
                };
                self.add_copy(one.message, properties, delay, (again.attempt, again.redeliveries));
            }
            CopyKind::Onward(wait) => {
                let properties = self.retry_copy(one, one.copy.attempt, one.copy.redeliveries);
                let (properties, delay) = hops::put_off(properties, *wait, self.unix());
                self.add_copy(one.message, properties, delay, (one.copy.attempt, one.copy.redeliveries));
            }
            CopyKind::Dead { .. } | CopyKind::FollowUps { .. } => {}
        }
    }

    fn retry_copy(&self, one: &PublicationModel, attempt: u32, redeliveries: u32) -> BasicProperties {
        let Copy { delivery, queue, id, .. } = &one.copy;
        let retry = RetryCopy { delay: Duration::ZERO, attempt, redeliveries, id, failure: None };
        copy::retry((&**delivery).into(), &queue.name, &retry, self.unix())
    }

    fn add_copy(
        &mut self,
        of: Uid,
        properties: BasicProperties,
        delay: Duration,
        (attempt, redeliveries): (u32, u32),
    ) {
        let original = &self.broker.messages[of];
        let (task, queue, body) = (original.task, original.queue, original.body.clone());
        let uid = self.broker.messages.len();
        let properties = if delay.is_zero() { properties } else { back_from(properties, self, queue, delay) };
        let times = own::times(&properties, self.unix()).unwrap_or_default();
        let mut message = Message::new(task, queue, properties, body);
        message.attempt = attempt;
        message.redeliveries = redeliveries;
        message.due = times.due.map(|due| due.at);
        message.deadline = times.deadline;
        message.place = MessagePlace::Away;
        self.broker.messages.push(message);
        let mut stays = delay;
        if !delay.is_zero() && self.strikes(Fault::DelayCutShort, uid as u64, 0) {
            stays = delay / 4;
        }
        self.note(|| format!("    copy of {of} is message {uid}, back in {stays:?}"));
        if stays.is_zero() {
            self.come_back(uid);
        } else {
            self.agenda.add(self.now + stays, AgendaItem::Back(uid));
        }
    }
}

/// As a message comes back from a delay queue.
fn back_from(properties: BasicProperties, world: &World, queue: usize, rung: Duration) -> BasicProperties {
    let name = topology::delay_name(&world.setup().queues[queue].config.name, rung);
    let mut death = FieldTable::default();
    death.insert("queue".into(), AMQPValue::LongString(name.into()));
    let mut headers = properties.headers().clone().unwrap_or_default();
    let deaths = vec![AMQPValue::FieldTable(death)];
    headers.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
    properties.with_headers(headers)
}
