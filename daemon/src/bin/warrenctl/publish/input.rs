//! Where the tasks come from: the command line, a file or standard input; a line at a time, on a thread of its
//! own, because reading a pipe blocks.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::output::note;

/// Lines read ahead of the broker: enough that every channel always finds one, and no more memory than this times
/// the largest task.
const READ_AHEAD: usize = 64;

/// What some editors begin a file of UTF-8 with. A task that begins with it would be unroutable.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One task to publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InputTask {
    /// Its line, or its place on the command line, from 1.
    pub(super) line: u64,
    pub(super) body: Vec<u8>,
}

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error("cannot read {name}: {source}")]
    Read { name: String, source: io::Error },
    #[error(
        "{unit} {line} of {name} is longer than {limit} bytes: the daemon would dead-letter it (`daemon.max_task_bytes`)"
    )]
    TooLong { name: String, unit: &'static str, line: u64, limit: u64 },
    #[error(
        "more than {0} tasks with --wait: each is kept until its result is printed; publish them in parts, or without"
    )]
    TooMany(usize),
}

/// A source of tasks.
#[derive(Debug)]
pub(super) enum TaskSource {
    /// As given on the command line.
    Texts(Vec<String>),
    /// Lines of a file.
    File(PathBuf, File),
    /// Lines of standard input.
    Stdin,
}

/// The reading end of a source that is being read.
#[derive(Debug)]
pub(super) struct Input {
    /// Tasks in order; closed at the end or after an error.
    pub(super) tasks: mpsc::Receiver<Result<InputTask, InputError>>,
    /// Bytes read so far.
    pub(super) bytes: Arc<AtomicU64>,
}

impl Input {
    /// Reads everything before anything is published, at most so many tasks.
    pub(super) async fn gather(mut self, most: usize) -> Result<Self, InputError> {
        let (sender, tasks) = mpsc::channel(most);
        while let Some(task) = self.tasks.recv().await {
            // As many fit as may be: one more is too many.
            sender.try_send(Ok(task?)).map_err(|_| InputError::TooMany(most))?;
        }
        Ok(Self { tasks, bytes: self.bytes })
    }
}

impl TaskSource {
    /// Opens a file of tasks.
    pub(super) fn file(path: &Path) -> Result<Self, InputError> {
        let wrap = |source| InputError::Read { name: path.display().to_string(), source };
        Ok(Self::File(path.to_owned(), File::open(path).map_err(wrap)?))
    }

    /// The size in bytes, where it is known beforehand.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::Texts(texts) => Some(texts.iter().map(|text| text.len() as u64).sum()),
            Self::File(_, file) => {
                file.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len())
            }
            Self::Stdin => None,
        }
    }

    /// What one task is called in messages.
    pub(super) fn unit(&self) -> &'static str {
        if matches!(self, Self::Texts(_)) { "task" } else { "line" }
    }

    /// Starts to read; `limit` bounds one task. The thread ends with the source or with the receiver.
    pub(super) fn read(self, limit: u64) -> io::Result<Input> {
        let (sender, tasks) = mpsc::channel(READ_AHEAD);
        let bytes = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&bytes);
        std::thread::Builder::new().name("input".to_owned()).spawn(move || {
            let ended = match self {
                Self::Texts(texts) => give(texts, limit, &sender, &counter),
                Self::File(path, file) => {
                    let name = path.display().to_string();
                    lines(BufReader::with_capacity(1 << 16, file), &name, limit, &sender, &counter)
                }
                Self::Stdin => lines(io::stdin().lock(), "standard input", limit, &sender, &counter),
            };
            if let Err(error) = ended {
                // The receiver may be gone already: then nobody asks any more.
                let _ = sender.blocking_send(Err(error));
            }
        })?;
        Ok(Input { tasks, bytes })
    }
}

type Sender = mpsc::Sender<Result<InputTask, InputError>>;

fn give(texts: Vec<String>, limit: u64, sender: &Sender, bytes: &AtomicU64) -> Result<(), InputError> {
    for (line, text) in (1..).zip(texts) {
        bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
        if text.len() as u64 > limit {
            let name = "the command line".to_owned();
            return Err(InputError::TooLong { name, unit: "task", line, limit });
        }
        if sender.blocking_send(Ok(InputTask { line, body: text.into_bytes() })).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A task per line, without its line end; blank lines are counted and skipped.
fn lines(
    mut source: impl BufRead,
    name: &str,
    limit: u64,
    sender: &Sender,
    bytes: &AtomicU64,
) -> Result<(), InputError> {
    for line in 1.. {
        let mut body = Vec::new();
        let read = (&mut source).take(limit + 2).read_until(b'\n', &mut body);
        let read = read.map_err(|source| InputError::Read { name: name.to_owned(), source })?;
        if read == 0 {
            break;
        }
        bytes.fetch_add(read as u64, Ordering::Relaxed);
        strip_line_end(&mut body);
        if line == 1 && body.starts_with(BYTE_ORDER_MARK) {
            body.drain(..BYTE_ORDER_MARK.len());
            note(&format!("{name} begins with a byte order mark; it is no part of the first task"));
        }
        if body.len() as u64 > limit {
            return Err(InputError::TooLong { name: name.to_owned(), unit: "line", line, limit });
        }
        if body.trim_ascii().is_empty() {
            continue;
        }
        if sender.blocking_send(Ok(InputTask { line, body })).is_err() {
            break;
        }
    }
    Ok(())
}

fn strip_line_end(line: &mut Vec<u8>) {
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], limit: u64) -> (Vec<(u64, Vec<u8>)>, Option<String>) {
        let (sender, mut receiver) = mpsc::channel(100);
        let ended = lines(text, "x", limit, &sender, &AtomicU64::new(0));
        drop(sender);
        let mut tasks = Vec::new();
        while let Some(task) = receiver.blocking_recv() {
            let task = task.unwrap();
            tasks.push((task.line, task.body));
        }
        (tasks, ended.err().map(|e| e.to_string()))
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_task() {
        let tasks = |text: &str| read(text.as_bytes(), 100).0;
        assert_eq!(tasks("\u{feff}one\n\u{feff}two"), [(1, b"one".to_vec()), (2, "\u{feff}two".into())]);
        assert_eq!(tasks("\u{feff}\none"), [(2, b"one".to_vec())]);
    }

    #[test]
    fn a_line_is_a_task_and_blank_lines_are_only_counted() {
        let (tasks, error) = read(b"one\n\n \t\r\ntwo\r\nth\xffree", 100);
        assert_eq!(tasks, [(1, b"one".to_vec()), (4, b"two".to_vec()), (5, b"th\xffree".to_vec())]);
        assert_eq!(error, None);
    }

    #[test]
    fn a_line_over_the_limit_ends_the_reading_and_is_named() {
        let (tasks, error) = read(b"12345678\n12345678\r\n123456789\nnever", 8);
        assert_eq!(tasks.len(), 2);
        let error = error.unwrap();
        assert!(error.contains("line 3 of x is longer than 8 bytes"), "{error}");
    }

    #[test]
    fn an_endless_line_does_not_fill_the_memory() {
        let endless = BufReader::new(io::repeat(b'x'));
        let (sender, _receiver) = mpsc::channel(1);
        let error = lines(endless, "x", 1000, &sender, &AtomicU64::new(0)).unwrap_err();
        assert!(matches!(error, InputError::TooLong { line: 1, .. }), "{error}");
    }

    #[test]
    fn gathering_takes_as_many_as_are_allowed_and_no_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (count, most, fits) in [(0, 1, true), (3, 3, true), (4, 3, false)] {
            let texts = (0..count).map(|n| n.to_string()).collect();
            let input = TaskSource::Texts(texts).read(100).unwrap();
            let gathered = runtime.block_on(input.gather(most));
            match gathered {
                Ok(mut input) => {
                    assert!(fits, "{count} of {most}");
                    let given = std::iter::from_fn(|| input.tasks.blocking_recv()).count();
                    assert_eq!(given, count);
                }
                Err(error) => assert!(!fits && error.to_string().contains("more than 3"), "{error}"),
            }
        }
        let input = TaskSource::Texts(vec!["long".to_owned()]).read(3).unwrap();
        assert!(matches!(runtime.block_on(input.gather(9)), Err(InputError::TooLong { .. })));
    }

    #[test]
    fn reading_ends_when_nobody_takes_the_tasks() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let endless = BufReader::new(b"line\n".chain(io::repeat(b'\n')));
        lines(endless, "x", 10, &sender, &AtomicU64::new(0)).unwrap();
    }
}
