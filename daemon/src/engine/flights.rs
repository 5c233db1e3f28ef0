//! The flights in hand, and which of them are the same task.

use std::collections::HashMap;
use std::ops::{Deref, Index, IndexMut};

use slab::Slab;

use crate::dedup::Fingerprint;

use super::flight::{Flight, FlightKey};
use super::queues::QueueKey;

/// All flights. Read as the slab it is.
#[derive(Debug, Default)]
pub(super) struct Flights {
    all: Slab<Flight>,
    /// The first flight of every task that has a fingerprint.
    first: HashMap<(QueueKey, Fingerprint), FlightKey>,
    /// Some task's first flight may have left.
    freed: bool,
}

impl Flights {
    pub(super) fn insert(&mut self, flight: Flight) -> FlightKey {
        let task = flight.print.map(|print| (flight.queue, print));
        let key = self.all.insert(flight);
        if let Some(task) = task {
            self.first.entry(task).or_insert(key);
        }
        key
    }

    pub(super) fn remove(&mut self, key: FlightKey) -> Flight {
        let mut flight = self.all.remove(key);
        flight.held_back = false;
        if let Some(print) = flight.print {
            let task = (flight.queue, print);
            if self.first.get(&task) == Some(&key) {
                self.first.remove(&task);
            }
            self.freed = true;
        }
        flight
    }

    /// The first flight in hand of this task.
    pub(super) fn first_of(&self, queue: QueueKey, print: Fingerprint) -> Option<FlightKey> {
        self.first.get(&(queue, print)).copied()
    }

    /// Says that what waits for another flight should be looked at again.
    pub(super) fn set_freed(&mut self) {
        self.freed = true;
    }

    /// Whether a flight with a fingerprint has left since this was last asked.
    pub(super) fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }
}

impl Deref for Flights {
    type Target = Slab<Flight>;

    fn deref(&self) -> &Slab<Flight> {
        &self.all
    }
}

impl Index<FlightKey> for Flights {
    type Output = Flight;

    fn index(&self, key: FlightKey) -> &Flight {
        &self.all[key]
    }
}

impl IndexMut<FlightKey> for Flights {
    fn index_mut(&mut self, key: FlightKey) -> &mut Flight {
        &mut self.all[key]
    }
}

impl<'f> IntoIterator for &'f Flights {
    type Item = (FlightKey, &'f Flight);
    type IntoIter = slab::Iter<'f, Flight>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

impl<'f> IntoIterator for &'f mut Flights {
    type Item = (FlightKey, &'f mut Flight);
    type IntoIter = slab::IterMut<'f, Flight>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter_mut()
    }
}
