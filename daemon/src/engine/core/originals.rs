//! The first delivery of an entry. Only the simulator asks for it, to keep an account of its own.

use crate::broker::ConsumerId;

use super::Core;
use super::entry::Ownership;
use super::keys::EntryKey;

/// A delivery by its consumer and its tag.
type By = (u32, u64);

impl Core {
    /// The delivery by which an entry came first.
    pub(crate) fn original_of(&self, key: EntryKey) -> Option<By> {
        let delivery = &self.in_flight.get(key)?.delivery;
        Some((delivery.consumer.0, delivery.tag))
    }

    /// The first delivery of the entry that this consumer and tag settle now.
    pub(crate) fn original_of_claim(&self, (consumer, tag): By) -> Option<By> {
        let ownership = Ownership::Held(ConsumerId(consumer), tag);
        let (key, _) = self.in_flight.iter().find(|(_, entry)| entry.ownership == ownership)?;
        self.original_of(key)
    }

    /// Whether the entry that came first by this delivery waits; `None`: there is none.
    pub(crate) fn waits(&self, original: By) -> Option<bool> {
        let (_, entry) = self.in_flight.iter().find(|(key, _)| self.original_of(*key) == Some(original))?;
        Some(entry.is_waiting())
    }
}
