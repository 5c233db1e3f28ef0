//! Tasks that went back to the broker and had not been started here. Their redelivery is no sign of a crash.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::broker::Delivery;

/// As many as one queue can have unacknowledged. The oldest is forgotten first: then its next start costs one copy.
const BOUND: usize = 65_535;

/// A bounded set of messages, by digest.
#[derive(Debug, Default)]
pub(super) struct Unstarted {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Unstarted {
    /// Remembers a task that goes back.
    pub(super) fn note(&mut self, delivery: &Delivery) {
        let digest = digest(delivery);
        if !self.known.insert(digest) {
            return;
        }
        self.order.push_back(digest);
        if self.order.len() > BOUND
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether this one went back from here, unstarted. It is remembered on: it may go back more than once.
    pub(super) fn contains(&self, delivery: &Delivery) -> bool {
        !self.known.is_empty() && self.known.contains(&digest(delivery))
    }

    /// It starts now: from here on a redelivery says something.
    pub(super) fn forget(&mut self, delivery: &Delivery) {
        self.known.remove(&digest(delivery));
    }
}

/// Of what makes it the same message: id, type and body.
fn digest(delivery: &Delivery) -> u64 {
    let mut hasher = DefaultHasher::new();
    for text in [delivery.properties.message_id(), delivery.properties.kind()] {
        text.as_ref().map(lapin::types::ShortString::as_str).hash(&mut hasher);
    }
    delivery.body.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;
    use crate::broker::ConsumerId;
    use crate::task::UnixMs;

    fn delivery(id: &str, tag: u64) -> Delivery {
        Delivery {
            consumer: ConsumerId(1),
            tag,
            redelivered: false,
            received: UnixMs(0),
            properties: BasicProperties::default().with_message_id(id.into()),
            body: b"Backup database".to_vec(),
            note: None,
        }
    }

    #[test]
    fn a_task_is_known_by_id_and_body_whatever_its_tag_until_it_starts() {
        let mut unstarted = Unstarted::default();
        unstarted.note(&delivery("a", 1));
        unstarted.note(&delivery("a", 2));
        assert!(unstarted.contains(&delivery("a", 9)) && !unstarted.contains(&delivery("b", 1)));
        unstarted.forget(&delivery("a", 9));
        assert!(!unstarted.contains(&delivery("a", 1)));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut unstarted = Unstarted::default();
        for n in 0..=BOUND {
            unstarted.note(&delivery(&n.to_string(), 1));
        }
        assert!(!unstarted.contains(&delivery("0", 1)) && unstarted.contains(&delivery("1", 1)));
        assert_eq!(unstarted.order.len(), BOUND);
    }
}
