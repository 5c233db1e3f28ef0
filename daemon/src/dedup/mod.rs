//! Which tasks of a queue are done already, for queues with `deduplicate` set: a task that comes again within that
//! time, because its acknowledgement was lost or its producer published it twice, is acknowledged without a second run.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`Memories`] | which task was done, queue by queue; pure |
//! | `window` | what is remembered of one queue, and for how long; pure |
//! | `file` | a segment of it on disk |
//! | [`Store`] | the thread that owns the files |
//!
//! A task is known by its `message_id`, its body and all that its handler or its sender sees of it (see
//! [`crate::task::sameness`]): an id that a producer uses again for something else must not make that disappear. One
//! without an id of its producer's is never taken for another.
//!
//! What is promised: a task whose record was written is not run again by this daemon or its successor on the same
//! state directory, also after SIGKILL. The record is handed to the thread before the acknowledgement to the broker's
//! connection, and after the confirms of the task's follow-ups and reply. A duplicate gets no reply of its own.
//!
//! What is not: a daemon that dies between the end of a handler and that record runs the task again; a machine that
//! dies takes the last seconds of the page cache along; other daemons and consumers have their own memory, or none; and
//! above `MAX_PER_SEGMENT` tasks in half a window the oldest are forgotten early.

mod file;
mod store;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::ShortString;
use sha2::{Digest as _, Sha256};

pub use store::Store;
pub use window::Segment;

use self::window::{MAX_PER_SEGMENT, Window};
use crate::model::UnixMs;
use crate::task::sameness;

/// What makes a task the same as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u128);

/// What the memory says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateCheck {
    /// It was done.
    Done,
    /// Not as far as is known.
    New,
    /// What an earlier daemon left is still being read.
    Wait,
}

/// What is to be done with what is on disk.
#[derive(Debug, PartialEq, Eq)]
pub enum StoreOrder {
    /// A queue is to be remembered: what is there of it is for [`Memories::loaded`].
    Load { queue: Arc<str>, window: Duration },
    /// A task of it is done.
    Record {
        queue: Arc<str>,
        /// The segment that has the task.
        segment: u64,
        fingerprint: u128,
        at: u64,
    },
    /// Segments before this one are forgotten.
    Forget {
        queue: Arc<str>,
        /// The oldest that is kept.
        oldest: u64,
    },
}

/// The memories of all queues that have one. Pure: what is to be done on disk is handed out as [`StoreOrder`]s.
#[derive(Debug, Default)]
pub struct Memories(HashMap<Arc<str>, Memory>);

#[derive(Debug)]
struct Memory {
    length: Duration,
    /// `None` until what was left is read.
    window: Option<Window>,
    /// The oldest segment that the store was told to keep.
    oldest: u64,
    /// It was said that there is too little room.
    crowded: bool,
}

/// What is shown of a queue's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its window.
    pub length: Duration,
    /// Tasks that are remembered.
    pub tasks: usize,
}

impl Fingerprint {
    /// `None`: the producer gave it no id.
    pub fn of(properties: &BasicProperties, body: &[u8]) -> Option<Self> {
        properties.message_id().as_ref().map(ShortString::as_str).filter(|id| !id.is_empty())?;
        let mut digest = Sha256::new();
        sameness::write_task(properties, &mut |bytes| digest.update(bytes));
        digest.update(body);
        digest.finalize().first_chunk().map(|front| Self(u128::from_le_bytes(*front)))
    }

    /// As it stands in a [`StoreOrder::Record`].
    #[cfg(any(test, feature = "simulate"))]
    pub(crate) fn value(self) -> u128 {
        self.0
    }
}

impl Memories {
    /// Takes over the queues and their windows; zero is none.
    pub fn configure(
        &mut self,
        queues: impl Iterator<Item = (Arc<str>, Duration)>,
        mut order: impl FnMut(StoreOrder),
    ) {
        let wanted: Vec<(Arc<str>, Duration)> = queues.filter(|(_, length)| !length.is_zero()).collect();
        self.0.retain(|queue, _| wanted.iter().any(|(name, _)| name == queue));
        for (queue, length) in wanted {
            if let Some(memory) = self.0.get_mut(&queue) {
                memory.length = length;
                if let Some(window) = &mut memory.window {
                    window.resize(length);
                }
                continue;
            }
            let memory = Memory { length, window: None, oldest: 0, crowded: false };
            self.0.insert(queue.clone(), memory);
            order(StoreOrder::Load { queue, window: length });
        }
    }

    /// What an earlier daemon left of a queue was read.
    pub fn loaded(&mut self, queue: &str, found: Vec<Segment>) {
        let Some(memory) = self.0.get_mut(queue) else { return };
        let window = Window::new(memory.length, MAX_PER_SEGMENT, found);
        tracing::info!(queue, tasks = window.len(), "finished tasks are remembered");
        memory.window = Some(window);
    }

    /// Whether a task of this queue was done.
    pub fn ask(&self, queue: &str, fingerprint: Fingerprint, now: UnixMs) -> DuplicateCheck {
        let Some(memory) = self.0.get(queue) else { return DuplicateCheck::New };
        match &memory.window {
            None => DuplicateCheck::Wait,
            Some(window) if window.contains(fingerprint.0, now.0) => DuplicateCheck::Done,
            Some(_) => DuplicateCheck::New,
        }
    }

    /// A task of this queue is done: to be called before its acknowledgement.
    pub fn record(
        &mut self,
        queue: &Arc<str>,
        fingerprint: Fingerprint,
        now: UnixMs,
        mut order: impl FnMut(StoreOrder),
    ) {
        let Some(memory) = self.0.get_mut(queue) else { return };
        let Some(window) = &mut memory.window else { return };
        let recorded = window.record(fingerprint.0, now.0);
        if recorded.crowded && !std::mem::replace(&mut memory.crowded, true) {
            tracing::warn!(
                %queue,
                "more than {MAX_PER_SEGMENT} tasks in half of `deduplicate`: the oldest are forgotten earlier"
            );
        }
        let forget = recorded.oldest != std::mem::replace(&mut memory.oldest, recorded.oldest);
        order(StoreOrder::Record {
            queue: queue.clone(),
            segment: recorded.segment,
            fingerprint: fingerprint.0,
            at: recorded.at,
        });
        if forget {
            order(StoreOrder::Forget { queue: queue.clone(), oldest: recorded.oldest });
        }
    }

    /// What is to be shown of a queue's memory, if it has one.
    pub fn shown(&self, queue: &str) -> Option<Shown> {
        let memory = self.0.get(queue)?;
        Some(Shown { length: memory.length, tasks: memory.window.as_ref().map_or(0, Window::len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(id: &str, kind: &str, body: &str) -> Option<Fingerprint> {
        let properties = BasicProperties::default().with_message_id(id.into()).with_type(kind.into());
        Fingerprint::of(&properties, body.as_bytes())
    }

    #[test]
    fn a_task_is_known_by_its_id_its_body_and_what_its_handler_and_sender_see() {
        let task = fingerprint("1", "mail", "to me");
        assert_eq!(task, fingerprint("1", "mail", "to me"));
        for other in [
            fingerprint("2", "mail", "to me"),
            fingerprint("1", "fax", "to me"),
            fingerprint("1", "mail", "to you"),
            fingerprint("1", "mailt", "o me"),
        ] {
            assert_ne!(task, other);
        }
        let asked = |reply_to: &str| {
            let properties = BasicProperties::default().with_message_id("1".into());
            Fingerprint::of(&properties.with_reply_to(reply_to.into()), b"to me")
        };
        assert_ne!(asked("alice"), asked("carol"), "each waits for an answer of its own");
        assert_eq!(fingerprint("", "mail", "to me"), None);
        assert_eq!(Fingerprint::of(&BasicProperties::default(), b"to me"), None);
    }

    #[test]
    fn only_a_queue_with_a_window_remembers_and_not_before_its_past_is_read() {
        const NOW: UnixMs = UnixMs(1_000_000);
        let mut memories = Memories::default();
        let (on, off): (Arc<str>, Arc<str>) = ("on".into(), "off".into());
        let hour = Duration::from_secs(3600);
        let mut orders = Vec::new();
        memories.configure([(on.clone(), hour), (off.clone(), Duration::ZERO)].into_iter(), |order| {
            orders.push(order);
        });
        assert_eq!(orders, [StoreOrder::Load { queue: on.clone(), window: hour }]);
        let task = fingerprint("1", "", "x").unwrap();
        let ask = |memories: &Memories| (memories.ask(&on, task, NOW), memories.ask(&off, task, NOW));
        assert_eq!(ask(&memories), (DuplicateCheck::Wait, DuplicateCheck::New));
        memories.loaded(&on, Vec::new());
        assert_eq!(ask(&memories), (DuplicateCheck::New, DuplicateCheck::New));
        orders.clear();
        memories.record(&on, task, NOW, |order| orders.push(order));
        memories.record(&off, task, NOW, |order| orders.push(order));
        assert_eq!(ask(&memories), (DuplicateCheck::Done, DuplicateCheck::New));
        let record = StoreOrder::Record { queue: on.clone(), segment: 1, fingerprint: task.0, at: NOW.0 };
        assert_eq!(orders, [record, StoreOrder::Forget { queue: on.clone(), oldest: 1 }]);
        let shown = Shown { length: hour, tasks: 1 };
        assert_eq!((memories.shown(&on), memories.shown(&off)), (Some(shown), None));
        memories
            .configure([(on.clone(), hour)].into_iter(), |order| panic!("nothing is read again: {order:?}"));
        memories.configure(std::iter::empty(), |order| panic!("{order:?}"));
        assert_eq!(memories.ask(&on, task, NOW), DuplicateCheck::New);
    }
}
