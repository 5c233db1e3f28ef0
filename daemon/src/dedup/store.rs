//! The thread that owns the files, so that a slow or full disk never holds up a task. Every fault of the disk comes to
//! the same: what is remembered is in memory only, until writing works again; that is said once, and shown.
//!
//! A record is one write to the page cache. It survives the end of the daemon, however that comes, but not that of the
//! machine: nothing waits for the disk.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::StoreOrder;
use super::file::{self, MAGIC};
use super::window::Segment;
use crate::config::MAX_DEDUPLICATE;
use crate::model::UnixMs;

/// Messages that wait for the thread, 64 bytes each: a second of the fastest queue there is. A disk that is further
/// behind is a fault like any other.
const MAX_WAITING: usize = 1 << 16;
/// Messages taken at once, so that each file costs one write for all of them.
const BATCH: usize = 4096;
/// How long the disk is left alone after a fault.
const RETRY: Duration = Duration::from_secs(5);

/// What the thread is asked for.
#[derive(Debug)]
enum StoreRequest {
    Load { queue: Arc<str>, window: Duration, reply: oneshot::Sender<Vec<Segment>> },
    Record { queue: Arc<str>, segment: u64, fingerprint: u128, at: u64 },
    Forget { queue: Arc<str>, oldest: u64 },
}

/// Carries out [`StoreOrder`]s on a thread of its own, which starts with the first one. Nothing here blocks.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    thread: Option<StoreThread>,
}

/// The thread's handle. It ends when this is dropped and everything it was sent is done.
#[derive(Debug)]
struct StoreThread {
    inbox: mpsc::SyncSender<StoreRequest>,
    fault: StoreFault,
    ended: oneshot::Receiver<()>,
}

/// Why nothing is written at the moment, if so.
#[derive(Debug, Clone, Default)]
struct StoreFault(Arc<Mutex<Option<String>>>);

impl Store {
    /// No file is touched before the first order. `state`: the daemon's state directory.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("done"), thread: None }
    }

    /// Carries out an order. `Some`: what was asked for comes here; an error: the store has ended.
    pub fn carry_out(&mut self, order: StoreOrder) -> Option<oneshot::Receiver<Vec<Segment>>> {
        match order {
            StoreOrder::Load { queue, window } => {
                let (reply, answer) = oneshot::channel();
                self.send(StoreRequest::Load { queue, window, reply });
                return Some(answer);
            }
            StoreOrder::Record { queue, segment, fingerprint, at } => {
                self.send(StoreRequest::Record { queue, segment, fingerprint, at });
            }
            StoreOrder::Forget { queue, oldest } => self.send(StoreRequest::Forget { queue, oldest }),
        }
        None
    }

    /// Why nothing is written at the moment, if so.
    pub fn fault(&self) -> Option<String> {
        self.thread.as_ref()?.fault.lock().clone()
    }

    /// Waits until everything is written.
    pub async fn close(self) {
        if let Some(StoreThread { inbox, ended, .. }) = self.thread {
            drop(inbox);
            let _ = ended.await;
        }
    }

    /// A message that finds no room is dropped.
    fn send(&mut self, message: StoreRequest) {
        if self.thread.is_none() {
            match StoreThread::start(self.directory.clone()) {
                Ok(thread) => self.thread = Some(thread),
                // As without memory for a thread nothing else would start either, this is not shown anywhere else.
                Err(error) => return tracing::error!(%error, "finished tasks are remembered in memory only"),
            }
        }
        if let Some(thread) = &self.thread
            && thread.inbox.try_send(message).is_err()
        {
            thread.fault.set(&format!("the disk is more than {MAX_WAITING} tasks behind"));
        }
    }
}

impl StoreThread {
    /// For a directory that need not exist.
    fn start(directory: PathBuf) -> io::Result<Self> {
        let (inbox, messages) = mpsc::sync_channel(MAX_WAITING);
        let (end, ended) = oneshot::channel();
        let fault = StoreFault::default();
        let files =
            Files { directory, lock: None, open: HashMap::new(), fault: fault.clone(), paused_until: None };
        std::thread::Builder::new().name("dedup".into()).spawn(move || {
            files.run(&messages);
            let _ = end.send(());
        })?;
        Ok(Self { inbox, fault, ended })
    }
}

impl StoreFault {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, why: &str) {
        if self.lock().replace(why.to_owned()).is_none() {
            tracing::warn!(error = why, "finished tasks are remembered in memory only");
        }
    }

    fn clear(&self) {
        if self.lock().take().is_some() {
            tracing::info!("finished tasks are remembered on disk again");
        }
    }
}

struct Files {
    directory: PathBuf,
    /// Held as long as this daemon lives: two would overwrite each other's files.
    lock: Option<File>,
    open: HashMap<Arc<str>, Open>,
    fault: StoreFault,
    /// No file is touched before this.
    paused_until: Option<Instant>,
}

/// The file of a queue's newest segment.
#[derive(Debug, Default)]
struct Open {
    number: u64,
    file: Option<File>,
    pending: Vec<u8>,
}

impl Files {
    fn run(mut self, inbox: &mpsc::Receiver<StoreRequest>) {
        while let Ok(first) = inbox.recv() {
            for message in std::iter::once(first).chain(inbox.try_iter().take(BATCH - 1)) {
                match message {
                    StoreRequest::Record { queue, segment, fingerprint, at } => {
                        self.note(queue, segment, file::record(fingerprint, at));
                    }
                    StoreRequest::Load { queue, window, reply } => {
                        self.write_all();
                        let found = self.attempt(|files| files.load(&queue, window)).unwrap_or_default();
                        let _ = reply.send(found);
                    }
                    StoreRequest::Forget { queue, oldest } => {
                        self.attempt(|files| files.forget(&queue, oldest));
                    }
                }
            }
            self.write_all();
        }
        self.write_all();
    }

    /// Touches the disk unless the store pauses, and pauses the store when that fails.
    fn attempt<T>(&mut self, act: impl FnOnce(&mut Self) -> io::Result<T>) -> Option<T> {
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        match self.take_directory().and_then(|()| act(self)) {
            Ok(done) => {
                self.paused_until = None;
                self.fault.clear();
                Some(done)
            }
            Err(error) => {
                self.paused_until = Some(Instant::now() + RETRY);
                self.fault.set(&format!("{}: {error}", self.directory.display()));
                None
            }
        }
    }

    fn take_directory(&mut self) -> io::Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let lock = File::create(self.directory.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                io::Error::other("another warrend uses it; give each one a daemon.state_dir of its own")
            }
            TryLockError::Error(error) => error,
        })?;
        self.lock = Some(lock);
        self.remove_old()
    }

    fn remove_old(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > MAX_DEDUPLICATE && entry.file_name() != "lock" {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The segments of a queue that are within its window; what is older is removed.
    fn load(&mut self, queue: &str, window: Duration) -> io::Result<Vec<Segment>> {
        let now = UnixMs::now().0;
        let mut segments = Vec::new();
        for (number, path) in self.files_of(queue)? {
            let found = file::read(&path, number, now)?;
            if found.bad > 0 {
                let (path, bad) = (path.display(), found.bad);
                tracing::warn!(%path, bytes = bad, "the end of a file of finished tasks cannot be read; ignored");
                OpenOptions::new().write(true).open(path.to_string())?.set_len(found.good)?;
            }
            if found.segment.is_over(window.as_millis() as u64, now) {
                fs::remove_file(&path)?;
            } else {
                segments.push(found.segment);
            }
        }
        self.open.remove(queue);
        Ok(segments)
    }

    fn forget(&mut self, queue: &str, oldest: u64) -> io::Result<()> {
        for (_, path) in self.files_of(queue)?.into_iter().filter(|(number, _)| *number < oldest) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn files_of(&self, queue: &str) -> io::Result<Vec<(u64, PathBuf)>> {
        let stem = stem(queue);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_prefix(&stem)?.strip_prefix('.')?.parse().ok());
            files.extend(number.map(|number| (number, entry.path())));
        }
        Ok(files)
    }

    fn note(&mut self, queue: Arc<str>, segment: u64, record: [u8; file::RECORD]) {
        if self.open.get(&queue).is_some_and(|open| open.number != segment) {
            self.write_all();
            self.open.remove(&queue);
        }
        let open = self.open.entry(queue).or_insert_with(|| Open { number: segment, ..Open::default() });
        open.pending.extend(record);
    }

    /// Writes what is pending, or gives it up.
    fn write_all(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        for (queue, open) in &mut open {
            if open.pending.is_empty() {
                continue;
            }
            let path = self.directory.join(format!("{}.{}", stem(queue), open.number));
            if self.attempt(|_| open.write(&path)).is_none() {
                // What was written of it, if anything, is cut off when it is opened again.
                open.file = None;
            }
            open.pending.clear();
        }
        self.open = open;
    }
}

impl Open {
    fn write(&mut self, path: &Path) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(path)?),
        };
        file.write_all(&self.pending)
    }
}

/// Opens a file behind its last whole record.
fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let whole = file::whole_records(file.metadata()?.len());
    file.set_len(whole)?;
    file.seek(SeekFrom::End(0))?;
    if whole == 0 {
        file.write_all(&MAGIC)?;
    }
    Ok(file)
}

/// What the names of a queue's files begin with: as much of its name as a file's can have, and a digest of all of it.
fn stem(queue: &str) -> String {
    const SHOWN: usize = 64;
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let shown: String = queue.chars().take(SHOWN).map(plain).collect();
    let digest = Sha256::digest(queue.as_bytes());
    let front = digest.first_chunk().map_or(0, |front| u64::from_be_bytes(*front));
    format!("{shown}-{front:016x}")
}

#[cfg(test)]
mod tests;
