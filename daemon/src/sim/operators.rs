//! The operations of a plan: what producers, operators, the broker and the machine do.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::agenda::{AgendaItem, Undo};
use super::broker::Message;
use super::choice::{Choices, For};
use super::daemon::{DrainModel, prefix_of};
use super::fault::Fault;
use super::ledger::{HandStage, KnownTask};
use super::plan::{TaskPlan, What};
use super::setup::{HandlerSetup, KEY};
use super::world::World;
use crate::dedup::Fingerprint;
use crate::engine::PauseTarget;
use crate::model::status::HandlerState;
use crate::task::own;

impl World {
    pub(super) fn operate(&mut self, n: usize) {
        let operation = self.plan.operations[n].clone();
        self.note(|| format!("operation {}: {:?}", operation.number, operation.what));
        match operation.what {
            What::Publish(task) => self.publish_task(operation.number, task),
            What::PublishAgain(of) => {
                if let Some(task) = self.ledger.tasks.get(&of).map(|known| known.task) {
                    self.fault(Fault::PublishedTwice);
                    self.publish_task(of, task);
                }
            }
            What::LoseLink => self.lose_link(),
            What::LoseChannel(queue) => self.lose_channel(queue),
            What::LosePublishing => {
                self.fault(Fault::PublishingLost);
                self.lose_publishing();
            }
            What::Block(length) => {
                self.fault(Fault::Blocked);
                self.broker.is_blocked = true;
                self.agenda.add(self.now + length, AgendaItem::Undo(Undo::Block));
            }
            What::TakeElsewhere { queue, gives_back } => self.take_elsewhere(queue, gives_back),
            What::KillDaemon => {
                if self.daemon.is_some() {
                    self.fault(Fault::DaemonKilled);
                    self.dies_after = Some(self.choices.below(8, For::Lost, operation.number as u64, 3));
                }
            }
            What::MachineShort(length) => {
                self.is_machine_short = true;
                self.agenda.add(self.now + length, AgendaItem::Undo(Undo::MachineShort));
            }
            What::KillHost => self.kill_some_host(operation.number),
            What::Reload => self.reload(operation.number),
            What::PauseQueue(queue, length) => {
                self.fault(Fault::Paused);
                self.set_paused(Undo::PauseQueue(queue), true);
                self.agenda.add(self.now + length, AgendaItem::Undo(Undo::PauseQueue(queue)));
            }
            What::PauseHandler(handler, length) => {
                self.fault(Fault::Paused);
                self.set_paused(Undo::PauseHandler(handler), true);
                self.agenda.add(self.now + length, AgendaItem::Undo(Undo::PauseHandler(handler)));
            }
            What::Cancel(task) => self.cancel_task(task),
            What::Drain(second) => {
                self.fault(Fault::Drain);
                self.drain();
                if let Some(second) = second {
                    self.agenda.add(self.now + second, AgendaItem::Undo(Undo::SecondDrain));
                }
            }
        }
    }

    pub(super) fn undo(&mut self, undo: &Undo) {
        match undo {
            Undo::Block => self.unblock(),
            Undo::MachineShort => self.is_machine_short = false,
            Undo::PauseQueue(_) | Undo::PauseHandler(_) => self.set_paused(*undo, false),
            Undo::SecondDrain => {
                if self.daemon.as_ref().is_some_and(|daemon| daemon.drain.is_some()) {
                    self.fault(Fault::SecondDrain);
                    self.drain();
                }
            }
        }
    }

    fn publish_task(&mut self, number: usize, task: TaskPlan) {
        let now = self.unix();
        let id = format!("t{number}");
        let mut properties = BasicProperties::default().with_delivery_mode(2);
        if task.has_id {
            properties = properties.with_message_id(id.into());
        }
        if task.wants_reply {
            properties = properties.with_reply_to("answers".into());
        }
        let mut headers = FieldTable::default();
        for (name, after) in [(own::HEADER_DUE, task.delay), (own::HEADER_DEADLINE, task.deadline)] {
            if let Some(after) = after {
                headers.insert(name.into(), AMQPValue::LongLongInt(now.plus(after).0 as i64));
            }
        }
        if let Some(key) = task.key {
            headers.insert(KEY.into(), AMQPValue::LongString(key.to_string().into()));
        }
        if !headers.inner().is_empty() {
            properties = properties.with_headers(headers);
        }
        let prefix = task.handler.map_or_else(|| "Nobody".to_owned(), prefix_of);
        let body = format!("{prefix} task {number}").into_bytes();
        let known = self.ledger.tasks.entry(number).or_insert_with(|| KnownTask {
            task,
            published: 0,
            print: Fingerprint::of(&properties, &body).map(Fingerprint::value),
            recorded: None,
            runs: 0,
            done: 0,
            dead: 0,
            dropped: 0,
            taken_elsewhere: 0,
        });
        known.published += 1;
        let mut message = Message::new(number, task.queue, properties, body);
        message.due = task.delay.map(|after| now.plus(after));
        message.deadline = task.deadline.map(|after| now.plus(after));
        let uid = self.broker.messages.len();
        self.broker.messages.push(message);
        self.come_back(uid);
    }

    fn lose_link(&mut self) {
        let Some(daemon) = self.daemon.as_mut().filter(|daemon| daemon.is_connected) else { return };
        daemon.is_connected = false;
        self.fault(Fault::LinkLost);
        self.lose_subscriptions(&self.consumers());
        self.connect();
    }

    fn lose_channel(&mut self, queue: usize) {
        let of_queue = |consumer: &u32| self.broker.subscriptions[consumer].queue == queue;
        let consumers: Vec<u32> = self.consumers().into_iter().filter(of_queue).collect();
        if consumers.is_empty() || self.daemon.as_ref().is_none_or(|daemon| !daemon.is_connected) {
            return;
        }
        self.fault(Fault::ChannelLost);
        self.lose_subscriptions(&consumers);
        self.subscribe();
    }

    fn take_elsewhere(&mut self, queue: usize, gives_back: bool) {
        let Some(uid) = self.broker.take_elsewhere(queue) else { return };
        self.fault(Fault::TakenElsewhere);
        self.note(|| format!("    message {uid} is taken elsewhere"));
        if gives_back {
            let after = Duration::from_millis(self.choices.below(400, For::Lost, uid as u64, 4));
            self.agenda.add(self.now + after, AgendaItem::Back(uid));
        } else {
            self.broker.messages[uid].place = super::broker::MessagePlace::Gone;
            let task = self.broker.messages[uid].task;
            if let Some(known) = self.ledger.tasks.get_mut(&task) {
                known.taken_elsewhere += 1;
            }
        }
    }

    fn kill_some_host(&mut self, number: usize) {
        let Some(daemon) = &self.daemon else { return };
        let alive: Vec<_> =
            daemon.hosts.iter().filter(|(_, host)| !host.is_dead).map(|(id, _)| *id).collect();
        if !alive.is_empty() {
            let at = self.choices.below(alive.len() as u64, For::Lost, number as u64, 5);
            self.fault(Fault::DiedIdle);
            self.on_host_step(alive[at as usize], super::agenda::HostStep::Kill);
        }
    }

    fn cancel_task(&mut self, task: usize) {
        let now = self.clock();
        let Some(daemon) = &mut self.daemon else { return };
        for hand in self.ledger.hands.values_mut() {
            let is_waiting =
                hand.stage == HandStage::Waiting && self.broker.messages[hand.message].task == task;
            hand.is_called_off |= is_waiting;
        }
        let has_id = self.ledger.tasks.get(&task).is_some_and(|known| known.task.has_id);
        if daemon.core.cancel(&format!("t{task}"), now, &mut daemon.actions).is_ok() {
            if !has_id {
                return self.broken("a task is found by its id", format!("task {task} has none"));
            }
            self.fault(Fault::Cancelled);
        }
        self.is_operator_cancelling = true;
        self.perform();
        self.is_operator_cancelling = false;
        self.end_turn();
    }

    pub(super) fn drain(&mut self) {
        let (now, clock) = (self.now, self.clock());
        let timeout = self.setup().drain_timeout;
        let Some(daemon) = &mut self.daemon else { return };
        match &mut daemon.drain {
            Some(drain) => drain.deadline = now,
            None => {
                daemon.drain = Some(DrainModel {
                    began: now,
                    deadline: now + timeout,
                    has_cancelled: false,
                    is_waiting_for_consumers: false,
                });
            }
        }
        daemon.core.drain(clock, &mut daemon.actions);
        self.perform();
        self.end_turn();
    }

    fn set_paused(&mut self, what: Undo, paused: bool) {
        let clock = self.clock();
        let target = match what {
            Undo::PauseQueue(queue) => PauseTarget::Queue(self.setup().queues[queue].config.name.to_string()),
            Undo::PauseHandler(handler) => {
                PauseTarget::Handler(self.setup().handlers[handler].name.to_string())
            }
            Undo::Block | Undo::MachineShort | Undo::SecondDrain => return,
        };
        let Some(daemon) = &mut self.daemon else { return };
        if daemon.core.set_paused(&target, paused, clock, &mut daemon.actions).is_ok() {
            match what {
                Undo::PauseQueue(queue) => daemon.paused_queues[queue] = paused,
                Undo::PauseHandler(handler) => daemon.paused_handlers[handler] = paused,
                _ => {}
            }
        }
        self.perform();
        self.end_turn();
    }

    /// A handler is replaced, removed or added, or a queue gets other workers.
    fn reload(&mut self, number: usize) {
        let random = &mut Choices(self.choices.number(For::Reload, number as u64, 0)).generator(For::Reload);
        let Some(daemon) = &mut self.daemon else { return };
        let loaded = &mut daemon.loaded;
        let handler = random.usize(..loaded.active.len());
        let was_there = loaded.active[handler].is_some();
        match random.u8(..6) {
            0 => loaded.active[handler] = None,
            1 => {
                let queue = random.usize(..loaded.queues.len());
                loaded.queues[queue].workers = random.u16(1..4);
            }
            2 => {}
            _ => {
                let next = loaded.next_generation();
                loaded.generations.insert(next, (handler, HandlerSetup::random(handler, random)));
                loaded.active[handler] = Some(next);
                daemon.starts[handler].clear();
            }
        }
        self.fault(Fault::Reload);
        self.swap();
        if !was_there {
            self.note_pause_of_new(handler);
        }
    }

    /// A handler that was removed takes its pause with it, unless it comes back before its last task has left.
    fn note_pause_of_new(&mut self, handler: usize) {
        let now = self.clock().instant;
        let name = self.setup().handlers[handler].name.clone();
        let Some(daemon) = &mut self.daemon else { return };
        let status = daemon.core.status(now, &|_| None);
        let row = status.handlers.iter().find(|row| row.name == *name);
        daemon.paused_handlers[handler] = row.is_some_and(|row| row.state == HandlerState::Paused);
    }

    fn swap(&mut self) {
        let clock = self.clock();
        let Some(daemon) = &mut self.daemon else { return };
        let (config, registry) = (daemon.loaded.config(&self.plan.setup), daemon.loaded.registry());
        daemon.core.swap(config, registry, clock, &mut daemon.actions);
        self.perform();
        self.end_turn();
    }

    /// What operators did is undone: every handler runs, and nothing is paused.
    pub(super) fn restore(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let loaded = &mut daemon.loaded;
        let setup = &self.plan.setup;
        let mut is_changed = false;
        for handler in 0..loaded.active.len() {
            if loaded.active[handler].is_none() {
                let next = loaded.next_generation();
                loaded.generations.insert(next, (handler, setup.handlers[handler].clone()));
                loaded.active[handler] = Some(next);
                is_changed = true;
            }
        }
        if is_changed {
            self.swap();
        }
        for queue in 0..self.setup().queues.len() {
            if self.daemon.as_ref().is_some_and(|daemon| daemon.paused_queues[queue]) {
                self.set_paused(Undo::PauseQueue(queue), false);
            }
        }
        for handler in 0..self.setup().handlers.len() {
            if self.daemon.as_ref().is_some_and(|daemon| daemon.paused_handlers[handler]) {
                self.set_paused(Undo::PauseHandler(handler), false);
            }
        }
    }
}
