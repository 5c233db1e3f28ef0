//! The order in which waiting tasks are started. Here a bound is checked whenever a task is given to a host.
//!
//! What holds today: of the tasks of one queue for one handler the one that came first starts first.

use super::ledger::{Hand, HandKey, Owed, Stage};
use super::world::World;

impl World {
    /// A waiting task is about to start.
    pub(super) fn check_order(&mut self, starts: HandKey) {
        let hand = &self.ledger.hands[&starts];
        if !self.is_in_order(hand) {
            return;
        }
        let (queue, handler) =
            (self.broker.messages[hand.message].queue, self.task_of(hand.message).and_then(|t| t.handler));
        let before = self.ledger.hands.values().find(|other| {
            other.order < hand.order
                && other.stage == Stage::Waiting
                && other.owed == Owed::Run
                && self.is_in_order(other)
                && self.broker.messages[other.message].queue == queue
                && self.task_of(other.message).and_then(|task| task.handler) == handler
        });
        if let Some(before) = before {
            let seen = format!("message {} starts before message {}", hand.message, before.message);
            self.broken("of one queue and handler the first comes first", seen);
        }
    }

    /// Not so what a host gave back, and what may have been held back as a duplicate.
    fn is_in_order(&self, hand: &Hand) -> bool {
        !hand.was_put_back && self.window_of(hand.message).is_zero()
    }
}
