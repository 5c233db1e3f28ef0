//! Which of a link's two connections are up: the engine is told when both are.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use super::server::Server;
use super::{LinkEvent, LinkEvents};

/// Shared by the supervisors of both connections of one link.
pub(super) struct Status {
    events: LinkEvents,
    consuming: RefCell<Option<(String, Server)>>,
    publishing: Cell<bool>,
    /// Which of the addresses answered last.
    turn: Cell<usize>,
    /// The consuming connection came up.
    up: Notify,
}

impl Status {
    pub(super) fn new(events: LinkEvents) -> Rc<Self> {
        Rc::new(Self {
            events,
            consuming: RefCell::default(),
            publishing: Cell::new(false),
            turn: Cell::new(0),
            up: Notify::new(),
        })
    }

    /// The consuming connection is up, at this address; or gone.
    pub(super) fn consuming(&self, at: Option<(String, Server)>) {
        let up = at.is_some();
        *self.consuming.borrow_mut() = at;
        if up {
            self.up.notify_waiters();
            self.tell_when_both();
        }
    }

    /// The publishing connection is up, or gone.
    pub(super) fn publishing(&self, up: bool) {
        self.publishing.set(up);
        if up {
            self.tell_when_both();
        }
    }

    pub(super) fn tell(&self, event: LinkEvent) {
        (self.events)(event);
    }

    /// The consuming connection reached the address at this index.
    pub(super) fn used(&self, turn: usize) {
        self.turn.set(turn);
    }

    /// Where the consuming connection found the broker.
    pub(super) fn turn(&self) -> usize {
        self.turn.get()
    }

    /// Waits until the consuming connection is up: it is the one that finds the broker and says why it cannot.
    pub(super) async fn until_consuming(&self) {
        loop {
            let up = self.up.notified();
            if self.consuming.borrow().is_some() {
                return;
            }
            up.await;
        }
    }

    fn tell_when_both(&self) {
        let at = self.consuming.borrow().clone();
        if let (Some((address, server)), true) = (at, self.publishing.get()) {
            self.tell(LinkEvent::Connected { address, server: server.to_string() });
        }
    }
}
