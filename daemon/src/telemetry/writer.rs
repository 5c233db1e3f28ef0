//! The log thread and the queue before it.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::journald::Journal;
use super::record::Record;
use super::site;
use super::text;

/// Records that may wait for the log thread. At 5 ms a turn that is 1.6 million a second; when the journal or the
/// terminal stands still, the queue holds some 3 MB and the rest is dropped and counted.
pub(super) const QUEUE: usize = 8192;
/// The log thread rests this long after each turn. While it rests, putting a record into the queue wakes nobody,
/// so that logging every task costs no system call on the data path.
const REST: Duration = Duration::from_millis(5);
/// Text that is written with one system call.
const BATCH: usize = 64 * 1024;
/// How long the end of the process waits for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where lines go.
pub(super) enum Sink {
    /// Text, one line a record.
    Text {
        /// Colour the level.
        color: bool,
        /// Usually stderr.
        out: Box<dyn Write + Send>,
    },
    /// The journal.
    Journal(Journal),
}

/// The way into the log: never blocks.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

/// The log thread, seen from outside.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Queue,
}

#[derive(Debug)]
enum Item {
    Record(Box<Record>),
    Flush(SyncSender<()>),
}

impl Queue {
    /// Queues a record; when the queue is full it is lost and counted.
    pub(super) fn push(&self, record: Record) {
        if self.sender.try_send(Item::Record(Box::new(record))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Writer {
    /// Starts the log thread. It ends when every [`Queue`] is gone.
    pub(super) fn start(sink: Sink) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let queue = Queue { sender, dropped: Arc::new(AtomicU64::new(0)) };
        let dropped = Arc::clone(&queue.dropped);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || run(sink, &receiver, &dropped))?;
        Ok(Self { queue })
    }

    /// Lines lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Waits until what was queued before is written, but no longer than [`LAST_WORDS`]: a terminal that is
    /// stopped must not keep the process from ending.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + LAST_WORDS;
        let (done, written) = sync_channel(1);
        let mut item = Item::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.sender.try_send(item) {
            if Instant::now() > deadline {
                return;
            }
            item = back;
            std::thread::sleep(REST);
        }
        // Too late or without a log thread: there is nothing more to be done about it.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn run(mut sink: Sink, receiver: &Receiver<Item>, dropped: &AtomicU64) {
    let (mut text, mut told) = (String::new(), 0);
    while let Ok(first) = receiver.recv() {
        let mut waiting = Vec::new();
        for item in std::iter::once(first).chain(receiver.try_iter().take(QUEUE)) {
            match item {
                Item::Record(record) => sink.put(&record, &mut text),
                Item::Flush(done) => waiting.push(done),
            }
        }
        let lost = dropped.load(Ordering::Relaxed) - told;
        if lost > 0 {
            told += lost;
            let mut record = Record::new(&site::LOSS, "log lines were lost: the log is too slow");
            record.field("lost", lost.to_string());
            sink.put(&record, &mut text);
        }
        sink.write(&mut text);
        for done in &waiting {
            let _ = done.try_send(());
        }
        if waiting.is_empty() {
            std::thread::sleep(REST);
        }
    }
}

impl Sink {
    fn put(&mut self, record: &Record, buffer: &mut String) {
        match self {
            Self::Text { color, .. } => {
                text::render(record, *color, buffer);
                if buffer.len() >= BATCH {
                    self.write(buffer);
                }
            }
            Self::Journal(journal) => journal.send(record),
        }
    }

    fn write(&mut self, buffer: &mut String) {
        if let Self::Text { out, .. } = self {
            let _ = out.write_all(buffer.as_bytes()).and_then(|()| out.flush());
            buffer.clear();
        }
    }
}
