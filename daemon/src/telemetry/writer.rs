//! The log thread and the queue before it.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::journald::Journal;
use super::record::LogRecord;
use super::site;
use super::text;

/// Records that may wait for the log thread. At 5 ms a turn that is 1.6 million a second; when the journal or the
/// terminal stands still, the queue holds some 3 MB and the rest is dropped and counted.
pub(super) const QUEUE: usize = 8192;
/// Of these, records of what handlers log and print: the rest is room that only Warren's own records use, so that a
/// handler's flood costs its own lines and not those about the tasks of others.
pub(super) const OF_HANDLERS: usize = QUEUE / 2;
/// The log thread sleeps this long after each turn. While it sleeps, putting a record into the queue wakes nobody,
/// so that logging every task costs no system call on the data path.
const TURN_PAUSE: Duration = Duration::from_millis(5);
/// Text that is written with one system call.
const WRITE_BYTES: usize = 64 * 1024;
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
    Journal(Journal),
}

/// The way into the log: never blocks.
#[derive(Debug, Clone)]
pub(super) struct RecordQueue {
    sender: SyncSender<Item>,
    counts: Arc<RecordCounts>,
}

#[derive(Debug, Default)]
struct RecordCounts {
    /// Records that handlers are the source of, waiting.
    of_handlers: AtomicUsize,
    /// Lost since the start: those of handlers, and Warren's own.
    dropped: [AtomicU64; 2],
}

/// Whose record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordSource {
    /// A handler's.
    Handler,
    /// Warren's own.
    Own,
}

/// The log thread, seen from outside.
#[derive(Debug)]
pub(super) struct Writer {
    queue: RecordQueue,
}

#[derive(Debug)]
enum Item {
    Record(RecordSource, Box<LogRecord>),
    Flush(SyncSender<()>),
}

impl RecordQueue {
    /// Queues a record; when the queue is full, or what of it is a handler's to fill, the record is lost and counted.
    pub(super) fn push(&self, source: RecordSource, record: LogRecord) {
        let waiting = &self.counts.of_handlers;
        let is_handlers = source == RecordSource::Handler;
        if is_handlers && waiting.fetch_add(1, Ordering::Relaxed) >= OF_HANDLERS
            || self.sender.try_send(Item::Record(source, Box::new(record))).is_err()
        {
            if is_handlers {
                waiting.fetch_sub(1, Ordering::Relaxed);
            }
            self.counts.dropped[source as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl RecordCounts {
    fn lost(&self, source: RecordSource) -> u64 {
        self.dropped[source as usize].load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Starts the log thread. It ends when every [`RecordQueue`] is gone.
    pub(super) fn start(sink: Sink) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let queue = RecordQueue { sender, counts: Arc::default() };
        let counts = Arc::clone(&queue.counts);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || run(sink, &receiver, &counts))?;
        Ok(Self { queue })
    }

    /// Lines lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.queue.counts.lost(RecordSource::Own) + self.queue.counts.lost(RecordSource::Handler)
    }

    pub(super) fn queue(&self) -> RecordQueue {
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
            std::thread::sleep(TURN_PAUSE);
        }
        // Too late or without a log thread: there is nothing more to be done about it.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn run(mut sink: Sink, receiver: &Receiver<Item>, counts: &RecordCounts) {
    const LOSSES: [(RecordSource, &str); 2] = [
        (RecordSource::Own, "log lines were lost: the log is too slow"),
        (RecordSource::Handler, "lines of handlers were lost: they log and print more than the log takes"),
    ];
    let (mut text, mut told) = (String::new(), [0; 2]);
    while let Ok(first) = receiver.recv() {
        let mut waiting = Vec::new();
        for item in std::iter::once(first).chain(receiver.try_iter().take(QUEUE)) {
            match item {
                Item::Record(source, record) => {
                    if source == RecordSource::Handler {
                        counts.of_handlers.fetch_sub(1, Ordering::Relaxed);
                    }
                    sink.put(&record, &mut text);
                }
                Item::Flush(done) => waiting.push(done),
            }
        }
        for (source, message) in LOSSES {
            let told = &mut told[source as usize];
            let lost = counts.lost(source) - *told;
            if lost > 0 {
                *told += lost;
                let mut record = LogRecord::new(&site::LOSS, message);
                record.field("lost", lost.to_string());
                sink.put(&record, &mut text);
            }
        }
        sink.write(&mut text);
        for done in &waiting {
            let _ = done.try_send(());
        }
        if waiting.is_empty() {
            std::thread::sleep(TURN_PAUSE);
        }
    }
}

impl Sink {
    fn put(&mut self, record: &LogRecord, buffer: &mut String) {
        match self {
            Self::Text { color, .. } => {
                text::render(record, *color, buffer);
                if buffer.len() >= WRITE_BYTES {
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
