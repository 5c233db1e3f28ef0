//! What the filter knows of a message beyond what lapin hands over: noted on lapin's thread before lapin sees the
//! message, and taken on the thread that receives the delivery.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::BasicProperties;

use super::text::Alteration;
use crate::task::own::{HEADER_ALTERED, put, text};

/// Bytes of bodies over `daemon.max_task_bytes` that all queues hold at one time. Such a task is only read to become a
/// dead letter; lapin and the copy need up to three times its size. One larger body alone is let in: at most 128 MiB,
/// the bound of RabbitMQ 3.
pub const LARGE_BODY_ROOM: u64 = 64 << 20;

/// The notes of one connection. At most one per unsettled delivery.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Most connections never have a note.
    any: AtomicBool,
    all: Mutex<HashMap<(u16, u64), Note>>,
}

/// A note on one delivery.
#[derive(Debug, Default)]
pub(crate) struct Note {
    /// What was changed, so that lapin can read the message.
    pub(crate) altered: Option<Alteration>,
    /// The body is larger than any task may be.
    pub(crate) body: LargeBody,
}

/// What became of a body over `daemon.max_task_bytes`.
#[derive(Debug, Default)]
pub(crate) enum LargeBody {
    /// It is not larger.
    #[default]
    No,
    /// It is there, and counts until this is dropped.
    Held(#[expect(dead_code, reason = "it is only dropped")] Reservation),
    /// There was no room for it: the delivery has no body and has to go back to its queue.
    Withheld(u64),
}

/// The room for bodies that no task may have, shared by all connections that consume.
#[derive(Debug)]
pub(crate) struct BodyRoom {
    max_task_bytes: AtomicU64,
    held: AtomicU64,
}

/// A share of the room. Dropping it gives the share back.
#[derive(Debug)]
pub(crate) struct Reservation {
    room: Arc<BodyRoom>,
    bytes: u64,
}

impl Notes {
    pub(super) fn add(&self, channel: u16, tag: u64, note: Note) {
        self.lock().insert((channel, tag), note);
        self.any.store(true, Ordering::Release);
    }

    /// The note on a delivery, if there is one.
    pub(crate) fn take(&self, channel: u16, tag: u64) -> Option<Note> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut all = self.lock();
        let note = all.remove(&(channel, tag));
        self.any.store(!all.is_empty(), Ordering::Release);
        note
    }

    /// A channel was opened: tags begin again at 1.
    pub(super) fn forget(&self, channel: u16) {
        self.lock().retain(|(noted, _), _| *noted != channel);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(u16, u64), Note>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alteration {
    /// Adds the description to the headers, from where copies of the message keep it.
    pub(crate) fn record(&self, properties: &mut BasicProperties) {
        let mut headers = properties.headers().clone().unwrap_or_default();
        put(&mut headers, HEADER_ALTERED, text(&self.description));
        *properties = std::mem::take(properties).with_headers(headers);
    }
}

impl BodyRoom {
    pub(crate) fn new(max_task_bytes: u64) -> Arc<Self> {
        Arc::new(Self { max_task_bytes: AtomicU64::new(max_task_bytes), held: AtomicU64::new(0) })
    }

    /// A reload changed `daemon.max_task_bytes`.
    pub(crate) fn set_max_task_bytes(&self, bytes: u64) {
        self.max_task_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether a body of this size may come in.
    pub(super) fn admit(self: &Arc<Self>, bytes: u64) -> LargeBody {
        if bytes <= self.max_task_bytes.load(Ordering::Relaxed) {
            return LargeBody::No;
        }
        let held = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
            fits(held, bytes).then_some(held.saturating_add(bytes))
        });
        match held {
            Ok(_) => LargeBody::Held(Reservation { room: self.clone(), bytes }),
            Err(_) => LargeBody::Withheld(bytes),
        }
    }

    /// Whether a body of this size would be let in now.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        fits(self.held.load(Ordering::Acquire), bytes)
    }
}

fn fits(held: u64, bytes: u64) -> bool {
    held == 0 || held.saturating_add(bytes) <= LARGE_BODY_ROOM
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_come_in_while_there_is_room_and_one_alone_always() {
        let room = BodyRoom::new(1 << 20);
        assert!(matches!(room.admit(1 << 20), LargeBody::No));
        let first = room.admit(LARGE_BODY_ROOM * 2);
        assert!(matches!(first, LargeBody::Held(_)), "one alone, of any size");
        assert!(matches!(room.admit(2 << 20), LargeBody::Withheld(_)));
        drop(first);
        let held: Vec<_> = (0..4).map(|_| room.admit(LARGE_BODY_ROOM / 4)).collect();
        assert!(held.iter().all(|body| matches!(body, LargeBody::Held(_))));
        assert!(!room.has_room(2 << 20));
        drop(held);
        assert!(room.has_room(LARGE_BODY_ROOM * 2));
    }

    #[test]
    fn notes_are_found_once_and_end_with_their_channel() {
        let notes = Notes::default();
        assert!(notes.take(1, 1).is_none());
        notes.add(1, 1, Note::default());
        notes.add(2, 1, Note::default());
        notes.forget(2);
        assert!(notes.take(2, 1).is_none());
        assert!(notes.take(1, 1).is_some());
        assert!(notes.take(1, 1).is_none());
    }
}
