//! Which tasks of a queue are done already, for queues with `deduplicate` set: a task that comes again within that
//! time, because its acknowledgement was lost or its producer published it twice, is acknowledged without a second run.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `window` | what is remembered, and for how long; pure |
//! | `file` | a generation of it on disk |
//! | `store` | the thread that owns the files |
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
//! above `MAX_PER_GENERATION` tasks in half a window the oldest are forgotten early.

mod file;
mod store;
mod window;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::ShortString;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

pub use window::Generation;

use self::store::{Order, Store};
use self::window::{MAX_PER_GENERATION, Window};
use crate::task::sameness;

/// What makes a task the same as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u128);

/// What the memory says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// Not as far as is known.
    New,
    /// What an earlier daemon left is still being read.
    Wait,
}

/// The memories of all queues that have one. Nothing here blocks.
#[derive(Debug)]
pub struct Dedup {
    directory: PathBuf,
    /// Started with the first queue that needs it.
    store: Option<Store>,
    memories: HashMap<Arc<str>, Memory>,
}

#[derive(Debug)]
struct Memory {
    length: Duration,
    /// `None` until what was left is read.
    window: Option<Window>,
    /// The oldest generation that the store was told to keep.
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
    /// Why they are remembered in memory only, if so.
    pub fault: Option<String>,
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
}

impl Dedup {
    /// Nothing is remembered yet, and no file touched. `state`: the daemon's state directory.
    pub fn new(state: &std::path::Path) -> Self {
        Self { directory: state.join("done"), store: None, memories: HashMap::new() }
    }

    /// Takes over the queues and their windows; zero is none. Gives those whose past is now being read: what comes of it
    /// is for [`loaded`](Self::loaded).
    pub fn configure(
        &mut self,
        queues: impl Iterator<Item = (Arc<str>, Duration)>,
    ) -> Vec<(Arc<str>, oneshot::Receiver<Vec<Generation>>)> {
        let wanted: HashMap<Arc<str>, Duration> = queues.filter(|(_, length)| !length.is_zero()).collect();
        self.memories.retain(|queue, _| wanted.contains_key(queue));
        let mut loading = Vec::new();
        for (queue, length) in wanted {
            if let Some(memory) = self.memories.get_mut(&queue) {
                memory.length = length;
                if let Some(window) = &mut memory.window {
                    window.resize(length);
                }
                continue;
            }
            let memory = Memory { length, window: None, oldest: 0, crowded: false };
            self.memories.insert(queue.clone(), memory);
            let (reply, answer) = oneshot::channel();
            self.send(Order::Load { queue: queue.clone(), window: length, reply });
            loading.push((queue, answer));
        }
        loading
    }

    /// What an earlier daemon left of a queue was read.
    pub fn loaded(&mut self, queue: &str, found: Vec<Generation>) {
        let Some(memory) = self.memories.get_mut(queue) else { return };
        let window = Window::new(memory.length, MAX_PER_GENERATION, found);
        tracing::info!(queue, tasks = window.len(), "finished tasks are remembered");
        memory.window = Some(window);
    }

    /// Whether a task of this queue was done.
    pub fn ask(&self, queue: &str, print: Fingerprint) -> Answer {
        let Some(memory) = self.memories.get(queue) else { return Answer::New };
        match &memory.window {
            None => Answer::Wait,
            Some(window) if window.contains(print.0, store::now_ms()) => Answer::Done,
            Some(_) => Answer::New,
        }
    }

    /// A task of this queue is done: to be called before its acknowledgement is sent.
    pub fn record(&mut self, queue: &Arc<str>, print: Fingerprint) {
        let Some(memory) = self.memories.get_mut(queue) else { return };
        let Some(window) = &mut memory.window else { return };
        let recorded = window.record(print.0, store::now_ms());
        if recorded.crowded && !std::mem::replace(&mut memory.crowded, true) {
            tracing::warn!(
                %queue,
                "more than {MAX_PER_GENERATION} tasks in half of `deduplicate`: the oldest are forgotten earlier"
            );
        }
        let forget = recorded.oldest != std::mem::replace(&mut memory.oldest, recorded.oldest);
        self.send(Order::Record {
            queue: queue.clone(),
            generation: recorded.generation,
            print: print.0,
            at: recorded.at,
        });
        if forget {
            self.send(Order::Forget { queue: queue.clone(), oldest: recorded.oldest });
        }
    }

    /// What is to be shown of a queue's memory, if it has one.
    pub fn shown(&self, queue: &str) -> Option<Shown> {
        let memory = self.memories.get(queue)?;
        Some(Shown {
            length: memory.length,
            tasks: memory.window.as_ref().map_or(0, Window::len),
            fault: self.store.as_ref().and_then(Store::fault),
        })
    }

    /// Has what was recorded written, and ends.
    pub async fn close(self) {
        if let Some(store) = self.store {
            store.close().await;
        }
    }

    fn send(&mut self, order: Order) {
        if self.store.is_none() {
            match Store::start(self.directory.clone()) {
                Ok(store) => self.store = Some(store),
                // As without memory for a thread nothing else would start either, this is not shown anywhere else.
                Err(error) => return tracing::error!(%error, "finished tasks are remembered in memory only"),
            }
        }
        if let Some(store) = &self.store {
            store.send(order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(id: &str, kind: &str, body: &str) -> Option<Fingerprint> {
        let properties = BasicProperties::default().with_message_id(id.into()).with_type(kind.into());
        Fingerprint::of(&properties, body.as_bytes())
    }

    #[test]
    fn a_task_is_known_by_its_id_its_body_and_what_its_handler_and_sender_see() {
        let task = print("1", "mail", "to me");
        assert_eq!(task, print("1", "mail", "to me"));
        for other in [
            print("2", "mail", "to me"),
            print("1", "fax", "to me"),
            print("1", "mail", "to you"),
            print("1", "mailt", "o me"),
        ] {
            assert_ne!(task, other);
        }
        let asked = |reply_to: &str| {
            let properties = BasicProperties::default().with_message_id("1".into());
            Fingerprint::of(&properties.with_reply_to(reply_to.into()), b"to me")
        };
        assert_ne!(asked("alice"), asked("carol"), "each waits for an answer of its own");
        assert_eq!(print("", "mail", "to me"), None);
        assert_eq!(Fingerprint::of(&BasicProperties::default(), b"to me"), None);
    }

    #[test]
    fn only_a_queue_with_a_window_remembers_and_not_before_its_past_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut dedup = Dedup::new(directory.path());
        let (on, off): (Arc<str>, Arc<str>) = ("on".into(), "off".into());
        let hour = Duration::from_secs(3600);
        let loading = dedup.configure([(on.clone(), hour), (off.clone(), Duration::ZERO)].into_iter());
        assert_eq!(loading.iter().map(|(queue, _)| queue).collect::<Vec<_>>(), [&on]);
        let task = print("1", "", "x").unwrap();
        assert_eq!((dedup.ask(&on, task), dedup.ask(&off, task)), (Answer::Wait, Answer::New));
        dedup.loaded(&on, Vec::new());
        assert_eq!(dedup.ask(&on, task), Answer::New);
        dedup.record(&on, task);
        dedup.record(&off, task);
        assert_eq!((dedup.ask(&on, task), dedup.ask(&off, task)), (Answer::Done, Answer::New));
        let shown = Shown { length: hour, tasks: 1, fault: None };
        assert_eq!((dedup.shown(&on), dedup.shown(&off)), (Some(shown), None));
        assert!(dedup.configure([(on.clone(), hour)].into_iter()).is_empty(), "nothing is read again");
        dedup.configure(std::iter::empty());
        assert_eq!(dedup.ask(&on, task), Answer::New);
    }
}
