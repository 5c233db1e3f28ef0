//! The core's actions are performed, in their order.

use std::rc::Rc;

use crate::dedup::StoreOrder;
use crate::failpoint::failpoint;
use crate::host::{Host, HostEvents, HostId};

use super::super::core::{Action, Event};
use super::{Driver, DriverInput};

impl Driver {
    /// Performs what the core wants done. None of it makes the core decide something anew.
    pub(super) fn perform(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            self.perform_one(action);
        }
        self.actions = actions;
    }

    fn perform_one(&mut self, action: Action) {
        match action {
            Action::Ack { consumer, tag } => {
                failpoint!("settle::before-ack");
                self.link.ack(consumer, tag);
            }
            Action::Requeue { consumer, tag } => self.link.requeue(consumer, tag),
            Action::SendTask { host, seq, entry } => {
                if let Some(host) = self.hosts.get_mut(&host) {
                    self.core.with_task(entry, seq, |task| host.send(task));
                }
            }
            Action::Consume { config, queues } => {
                self.link.reconfigure(&config.broker, &queues);
                self.publisher = self.link.publisher();
            }
            Action::SetMaxTaskBytes(bytes) => self.link.set_max_task_bytes(bytes),
            Action::RetryQuarantined => self.link.retry_quarantined(),
            Action::StopConsuming => self.stop_consuming(),
            Action::StartHost { host, generation, create_timeout } => {
                let spec = generation.host_spec(create_timeout);
                self.hosts.insert(host, Host::start(host, &spec, &self.spawner, self.host_events()));
            }
            Action::CancelTask { host, seq } => self.with_host(host, |host| host.cancel(seq)),
            Action::RecallTask { host, seq } => self.with_host(host, |host| host.recall(seq)),
            Action::QuitHost(host) => self.with_host(host, Host::quit),
            Action::KillHost(host) => self.with_host(host, Host::kill),
            Action::Publish(copy) => self.publish(*copy),
            Action::Dedup(order) => self.carry_out(order),
            Action::Show(health) => {
                self.health.send_if_modified(|shown| {
                    let changed = *shown != health;
                    *shown = health;
                    changed
                });
            }
            Action::Drained => self.drained = true,
        }
    }

    /// A host that has ended needs nothing any more.
    fn with_host(&mut self, host: HostId, act: impl FnOnce(&mut Host)) {
        if let Some(host) = self.hosts.get_mut(&host) {
            act(host);
        }
    }

    fn host_events(&self) -> HostEvents {
        let sender = self.sender.clone();
        Rc::new(move |host, event| {
            let _ = sender.send(DriverInput::Event(Event::Host { host, event, rss: None }));
        })
    }

    fn stop_consuming(&self) {
        let (stopped, sender) = (self.link.stop_consuming(), self.sender.clone());
        tokio::task::spawn_local(async move {
            stopped.await;
            let _ = sender.send(DriverInput::Event(Event::ConsumersStopped));
        });
    }

    /// What is read from disk comes as an event.
    fn carry_out(&mut self, order: StoreOrder) {
        let loaded = match &order {
            StoreOrder::Load { queue, .. } => Some(queue.clone()),
            StoreOrder::Record { .. } | StoreOrder::Forget { .. } => None,
        };
        let (Some(queue), Some(answer)) = (loaded, self.store.carry_out(order)) else { return };
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            let found = answer.await.unwrap_or_default();
            let _ = sender.send(DriverInput::Event(Event::DedupLoaded { queue, found }));
        });
    }
}
