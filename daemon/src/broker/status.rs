//! Which of a link's two connections are up: the engine is told when both are, and whether publishing is blocked.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use super::event::{LinkEvent, LinkEvents};
use super::server::Server;

/// Shared by the supervisors of both connections of one link.
pub(super) struct LinkStatus {
    events: LinkEvents,
    consuming: RefCell<Option<(String, Server)>>,
    publishing: Cell<bool>,
    /// The broker takes nothing on the publishing connection.
    blocked: Cell<bool>,
    /// Which of the addresses answered last.
    turn: Cell<usize>,
    /// The consuming connection came up.
    up: Notify,
}

impl LinkStatus {
    pub(super) fn new(events: LinkEvents) -> Rc<Self> {
        Rc::new(Self {
            events,
            consuming: RefCell::default(),
            publishing: Cell::new(false),
            blocked: Cell::new(false),
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
        self.blocked.set(false);
        if up {
            self.tell_when_both();
        }
    }

    /// The broker blocks what is published, or does so no more.
    pub(super) fn blocked(&self, blocked: bool) {
        if self.blocked.replace(blocked) != blocked && self.both().is_some() {
            self.tell(LinkEvent::Blocked(blocked));
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
        if let Some((address, server)) = self.both() {
            self.tell(LinkEvent::Connected { address, server: server.to_string() });
            if self.blocked.get() {
                self.tell(LinkEvent::Blocked(true));
            }
        }
    }

    fn both(&self) -> Option<(String, Server)> {
        self.consuming.borrow().clone().filter(|_| self.publishing.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(steps: impl Fn(&LinkStatus)) -> Vec<&'static str> {
        let told: Rc<RefCell<Vec<&'static str>>> = Rc::default();
        let sink = told.clone();
        let status = LinkStatus::new(Rc::new(move |event| {
            sink.borrow_mut().push(match event {
                LinkEvent::Connected { .. } => "connected",
                LinkEvent::Blocked(true) => "blocked",
                LinkEvent::Blocked(false) => "unblocked",
                _ => "else",
            });
        }));
        steps(&status);
        told.take()
    }

    fn here() -> (String, Server) {
        ("127.0.0.1:5672/".to_owned(), Server::default())
    }

    #[test]
    fn connected_is_told_when_both_are_up_in_any_order() {
        let one = told(|status| {
            status.consuming(Some(here()));
            status.publishing(true);
        });
        let other = told(|status| {
            status.publishing(true);
            status.consuming(Some(here()));
        });
        assert_eq!((one, other), (vec!["connected"], vec!["connected"]));
    }

    #[test]
    fn a_new_consuming_connection_does_not_hide_that_publishing_is_blocked() {
        let told = told(|status| {
            status.consuming(Some(here()));
            status.publishing(true);
            status.blocked(true);
            status.consuming(None);
            status.consuming(Some(here()));
            status.blocked(false);
        });
        assert_eq!(told, ["connected", "blocked", "connected", "blocked", "unblocked"]);
    }

    #[test]
    fn nothing_is_said_of_a_block_while_one_of_them_is_away() {
        let told = told(|status| {
            status.consuming(Some(here()));
            status.publishing(true);
            status.consuming(None);
            status.blocked(true);
            status.blocked(false);
            status.blocked(true);
            status.publishing(false);
            status.consuming(Some(here()));
            status.publishing(true);
        });
        assert_eq!(told, ["connected", "connected"]);
    }
}
