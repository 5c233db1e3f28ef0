//! Waiting for events, always with a bound.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tells "stuck" from "slow" on a machine that does several things at once.
pub const BOUND: Duration = Duration::from_secs(60);

/// What goes on without an end is stuck as well.
const LONGEST: Duration = Duration::from_mins(5);

/// What a busy machine may add to a time that is bounded.
pub const BUSY: Duration = Duration::from_secs(10);

/// What can be asked for but not waited for (a queue's depth, a file) is asked for this often, at first: what is not there
/// soon is asked for less and less, because asking takes CPU time from what is waited for.
const POLL: Duration = Duration::from_millis(10);
/// As rarely as it gets.
const MAX_POLL: Duration = Duration::from_millis(50);
/// Lines kept per stream. The longest test writes some ten thousand.
const MAX_LINES: usize = 100_000;

/// Asks until there is an answer; panics with `what` after [`BOUND`].
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_within(BOUND, what, ask)
}

/// As [`until`], for what takes its time: [`BOUND`] is for a standstill. Until there is an answer, `ask` says how far it is.
pub fn while_it_goes_on<T, P: PartialEq + Debug>(what: &str, mut ask: impl FnMut() -> Result<T, P>) -> T {
    let (begun, mut far) = (Instant::now(), None);
    while begun.elapsed() < LONGEST {
        let step = ask_within(BOUND, || match ask() {
            Ok(answer) => Some(Ok(answer)),
            Err(now) if far.as_ref() != Some(&now) => Some(Err(now)),
            Err(_) => None,
        });
        match step {
            Some(Ok(answer)) => return answer,
            Some(Err(now)) => far = Some(now),
            None => panic!("a standstill of {BOUND:?} at {far:?}: {what}"),
        }
    }
    panic!("waited {LONGEST:?} in vain, and got to {far:?}: {what}")
}

/// As [`until`], with a bound of its own.
pub fn until_within<T>(bound: Duration, what: &str, ask: impl FnMut() -> Option<T>) -> T {
    ask_within(bound, ask).unwrap_or_else(|| panic!("waited {bound:?} in vain: {what}"))
}

/// Asks until there is an answer, for a caller who has more to say about there being none within `bound`.
pub fn ask_within<T>(bound: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    let mut pause = POLL;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if begun.elapsed() >= bound {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(MAX_POLL);
    }
}

/// Lines that one thread writes and others wait for. A line has a number, from 0.
#[derive(Debug, Default)]
pub struct Lines {
    kept: Mutex<Kept>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    dropped: usize,
    ended: bool,
}

impl Lines {
    /// Adds a line.
    pub fn push(&self, line: String) {
        let mut kept = self.lock();
        if kept.lines.len() == MAX_LINES {
            kept.lines.pop_front();
            kept.dropped += 1;
        }
        kept.lines.push_back(line);
        self.changed.notify_all();
    }

    /// No more lines will come: whoever waits for one fails at once.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Whether no more lines will come.
    pub fn ended(&self) -> bool {
        self.lock().ended
    }

    /// The number the next line will have.
    pub fn next(&self) -> usize {
        let kept = self.lock();
        kept.dropped + kept.lines.len()
    }

    /// Waits for a line, number `from` or later, that `wanted` accepts. Gives its number and text; `None` when the
    /// stream ended without it or [`BOUND`] passed.
    pub fn wait(&self, from: usize, wanted: impl Fn(&str) -> bool) -> Option<(usize, String)> {
        let end = Instant::now() + BOUND;
        let mut next = from;
        let mut kept = self.lock();
        loop {
            next = next.max(kept.dropped);
            while let Some(line) = kept.lines.get(next - kept.dropped) {
                if wanted(line) {
                    return Some((next, line.clone()));
                }
                next += 1;
            }
            let left = end.saturating_duration_since(Instant::now());
            if kept.ended || left.is_zero() {
                return None;
            }
            kept = self.changed.wait_timeout(kept, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All lines from number `from` on.
    pub fn since(&self, from: usize) -> Vec<String> {
        let kept = self.lock();
        kept.lines.iter().skip(from.saturating_sub(kept.dropped)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
