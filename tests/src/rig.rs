//! A link on a runtime of its own, as the engine has one, and what it told.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use warren::broker::{ConsumerId, Delivery, Link, LinkEvent, Publisher};
use warren::config::{Broker, Queue, Secret};

use crate::wait::BOUND;

/// A link and its events. Nothing runs but inside its waits.
pub struct Rig {
    // Dropped in this order: tasks hold what the runtime drives.
    link: Option<Link>,
    local: LocalSet,
    runtime: Runtime,
    events: Rc<RefCell<VecDeque<LinkEvent>>>,
    arrived: Rc<Notify>,
}

/// A queue name that no other test uses.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The broker's part of a configuration.
pub fn broker(uri: &str) -> Broker {
    Broker {
        uri_file: None,
        uris: vec![Secret(uri.to_owned())],
        heartbeat: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(20),
        consumer_timeout: Duration::from_secs(1800),
        publish_channels: 4,
        ca_file: None,
        client_cert: None,
    }
}

/// A queue with defaults and this window.
pub fn queue(name: &str, window: u16) -> Queue {
    Queue { workers: window, ..Queue::new(name) }
}

impl Rig {
    /// Starts a link to the address.
    pub fn start(uri: &str, queues: &[Queue]) -> Self {
        Self::with(&broker(uri), queues)
    }

    /// Starts a link with this configuration.
    pub fn with(broker: &Broker, queues: &[Queue]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = LocalSet::new();
        let events: Rc<RefCell<VecDeque<LinkEvent>>> = Rc::default();
        let arrived = Rc::new(Notify::new());
        let sink = {
            let (events, arrived) = (events.clone(), arrived.clone());
            Rc::new(move |event| {
                events.borrow_mut().push_back(event);
                arrived.notify_one();
            })
        };
        let link = {
            let _runtime = runtime.enter();
            let _local = local.enter();
            Link::start(broker, queues, 1 << 20, sink)
        };
        Self { link: Some(link), local, runtime, events, arrived }
    }

    /// Runs a future beside the link, within the bound.
    pub fn run<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        self.local.block_on(&self.runtime, async {
            let Ok(value) = tokio::time::timeout(BOUND, future).await else {
                let events = self.events.borrow();
                let events: Vec<_> = events.iter().map(|event| format!("{event:.300?}")).collect();
                panic!("waited {BOUND:?} in vain: {what}; events: {events:#?}");
            };
            value
        })
    }

    /// Waits for the first event that `wanted` takes, and forgets it; the others stay.
    pub fn wait<T>(&self, what: &str, wanted: impl Fn(&LinkEvent) -> Option<T>) -> (T, LinkEvent) {
        self.run(what, async {
            loop {
                let found = {
                    let mut events = self.events.borrow_mut();
                    let found =
                        events.iter().enumerate().find_map(|(index, event)| Some((index, wanted(event)?)));
                    found.and_then(|(index, value)| Some((value, events.remove(index)?)))
                };
                match found {
                    Some(found) => return found,
                    None => self.arrived.notified().await,
                }
            }
        })
    }

    /// Waits until a queue is consumed.
    pub fn consuming(&self) -> ConsumerId {
        let wanted = |event: &LinkEvent| match event {
            LinkEvent::Consuming { consumer, .. } => Some(*consumer),
            _ => None,
        };
        self.wait("a consumer", wanted).0
    }

    /// Waits until this queue is consumed.
    pub fn consuming_queue(&self, name: &str) -> ConsumerId {
        let wanted = |event: &LinkEvent| match event {
            LinkEvent::Consuming { consumer, queue, .. } if &**queue == name => Some(*consumer),
            _ => None,
        };
        self.wait("a consumer of the queue", wanted).0
    }

    /// Waits until both connections are up; address and server.
    pub fn connected(&self) -> (String, String) {
        let wanted = |event: &LinkEvent| match event {
            LinkEvent::Connected { address, server } => Some((address.clone(), server.clone())),
            _ => None,
        };
        self.wait("both connections", wanted).0
    }

    /// Waits for a delivery.
    pub fn delivery(&self) -> Delivery {
        match self.wait("a delivery", |event| matches!(event, LinkEvent::Delivery(_)).then_some(())).1 {
            LinkEvent::Delivery(delivery) => delivery,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for so many deliveries.
    pub fn deliveries(&self, count: usize) -> Vec<Delivery> {
        (0..count).map(|_| self.delivery()).collect()
    }

    /// Waits until a subscription is lost; which, and why.
    pub fn lost(&self) -> (ConsumerId, String) {
        let wanted = |event: &LinkEvent| match event {
            LinkEvent::Lost { consumer, why } => Some((*consumer, why.clone())),
            _ => None,
        };
        self.wait("a lost consumer", wanted).0
    }

    /// Waits until a subscription has stopped.
    pub fn stopped(&self) -> ConsumerId {
        let wanted = |event: &LinkEvent| match event {
            LinkEvent::Stopped { consumer } => Some(*consumer),
            _ => None,
        };
        self.wait("a stopped consumer", wanted).0
    }

    /// Waits for the begin or the end of an alarm.
    pub fn blocked(&self) -> bool {
        let wanted = |event: &LinkEvent| match event {
            LinkEvent::Blocked(blocked) => Some(*blocked),
            _ => None,
        };
        self.wait("an alarm, or its end", wanted).0
    }

    /// Waits for a failed attempt, or a lost connection; why.
    pub fn away(&self) -> String {
        let wanted = |event: &LinkEvent| match event {
            LinkEvent::Away { why } => Some(why.clone()),
            _ => None,
        };
        self.wait("a failed attempt", wanted).0
    }

    /// Waits until nothing can be published while tasks are consumed; why.
    pub fn not_publishing(&self) -> String {
        let wanted = |event: &LinkEvent| match event {
            LinkEvent::NotPublishing { why } => Some(why.clone()),
            _ => None,
        };
        self.wait("the loss of the publishing connection", wanted).0
    }

    /// Waits for a queue that cannot be consumed; why.
    pub fn unusable(&self) -> String {
        let wanted = |event: &LinkEvent| match event {
            LinkEvent::Unusable { why, .. } => Some(why.clone()),
            _ => None,
        };
        self.wait("an unusable queue", wanted).0
    }

    /// Deliveries that have already arrived.
    pub fn buffered(&self) -> Vec<Delivery> {
        let events = self.events.take();
        events
            .into_iter()
            .filter_map(|event| match event {
                LinkEvent::Delivery(delivery) => Some(delivery),
                _ => None,
            })
            .collect()
    }

    /// The link.
    pub fn link(&mut self) -> &mut Link {
        self.link.as_mut().expect("not closed")
    }

    /// Its publisher.
    pub fn publisher(&self) -> Publisher {
        self.link.as_ref().expect("not closed").publisher()
    }

    /// Acknowledges, and lets lapin write it.
    pub fn ack(&mut self, deliveries: &[Delivery]) {
        for delivery in deliveries {
            self.link().ack(delivery.consumer, delivery.tag);
        }
        self.link().flush();
    }

    /// Stops consuming: what arrives until then is in [`Rig::buffered`].
    pub fn stop(&self) {
        self.run("the end of the consumers", self.link.as_ref().expect("not closed").stop_consuming());
    }

    /// Closes the link and waits for it.
    pub fn close(&mut self) {
        self.close_within(Duration::from_secs(20));
    }

    /// Closes the link, which may take as long.
    pub fn close_within(&mut self, limit: Duration) {
        let link = self.link.take().expect("not closed");
        self.run("the close", link.close(limit));
    }

    /// Changes the configuration.
    pub fn reconfigure(&mut self, broker: &Broker, queues: &[Queue]) {
        let _runtime = self.runtime.enter();
        let _local = self.local.enter();
        self.link.as_mut().expect("not closed").reconfigure(broker, queues);
    }
}
