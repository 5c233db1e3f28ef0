//! How much of what a handler logs goes into the log: lines and bytes for each task, counted where they are made (the
//! host), and once more where they arrive.

use std::time::{Duration, Instant};

use warren_plugin::abi;

use super::Seq;

/// What is logged while no task runs counts for the last one that did. So often it may be as much again.
const RENEWED: Duration = Duration::from_secs(60);

/// What one task may have in the log, of each kind: what it prints to either stream, and what it logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputBounds {
    /// Bytes.
    pub bytes: u64,
    /// Lines.
    pub lines: u64,
}

impl OutputBounds {
    /// The most log lines that the daemon accepts of a host: twice the budget, because the clocks of host and daemon may
    /// renew it in different minutes, and room for the lines that say what was left out.
    pub(super) fn most_that_arrives(self) -> Self {
        const TOLD: OutputBounds = OutputBounds { bytes: 4096, lines: 16 };
        let twice = |bound: u64, told| bound.saturating_mul(2).saturating_add(told);
        Self { bytes: twice(self.bytes, TOLD.bytes), lines: twice(self.lines, TOLD.lines) }
    }
}

/// What is left out of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

/// The budgets of one host's log lines. What an operator is told of and what is for debugging have one each: lines that
/// the level hides leave room for those that it shows, and an error at the end of a flood is seen.
#[derive(Debug)]
pub(super) struct LogBudgets {
    bounds: OutputBounds,
    /// The task that is counted for.
    seq: Seq,
    since: Instant,
    kinds: [Spent; 3],
}

#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    lines: u64,
    bytes: u64,
    left_out: LeftOut,
}

/// The level of the line that says how much was left out, by kind.
const LEFT_OUT_AT: [i32; 3] = [abi::LOG_WARN, abi::LOG_WARN, abi::LOG_DEBUG];

impl LogBudgets {
    pub(super) fn new(bounds: OutputBounds, now: Instant) -> Self {
        Self { bounds, seq: 0, since: now, kinds: [Spent::default(); 3] }
    }

    /// Whether a line may pass that is logged while `seq` runs (0: none). `tell` gets what was left out of the task
    /// before, with the level for it.
    pub(super) fn admit(
        &mut self,
        (seq, level, bytes): (Seq, i32, u64),
        now: Instant,
        tell: impl FnMut(Seq, i32, LeftOut),
    ) -> bool {
        // A thread may still name a task that has ended: that gives it no budget of its own.
        if seq > self.seq || (seq == 0 && now >= self.since + RENEWED) {
            self.settle(tell);
            self.seq = seq.max(self.seq);
            self.since = now;
            self.kinds = [Spent::default(); 3];
        }
        let kind = &mut self.kinds[kind_of(level)];
        let passes = kind.lines < self.bounds.lines && kind.bytes.saturating_add(bytes) <= self.bounds.bytes;
        if passes {
            kind.lines += 1;
            kind.bytes += bytes;
        } else {
            kind.left_out.lines += 1;
            kind.left_out.bytes += bytes;
            // Once something is left out, all that follows is: a log with holes misleads.
            kind.bytes = self.bounds.bytes;
        }
        passes
    }

    /// The task has ended: emits what was left out.
    pub(super) fn settle(&mut self, mut emit: impl FnMut(Seq, i32, LeftOut)) {
        for (kind, level) in self.kinds.iter_mut().zip(LEFT_OUT_AT) {
            let left_out = std::mem::take(&mut kind.left_out);
            if left_out.lines > 0 {
                emit(self.seq, level, left_out);
            }
        }
    }
}

impl LeftOut {
    /// For the log.
    pub(super) fn message(self) -> String {
        let Self { lines, bytes } = self;
        format!("… {lines} lines more were logged, {bytes} bytes (see `max_output` and `max_output_lines`)")
    }
}

fn kind_of(level: i32) -> usize {
    match level {
        ..=abi::LOG_WARN => 0,
        abi::LOG_INFO => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: OutputBounds = OutputBounds { bytes: 10, lines: 3 };

    /// A line: the task, the level, its bytes, and when; or what is told: the task, the level, lines and bytes.
    type Line = (Seq, i32, u64, u64);

    /// Of each line whether it passes, and what is told of those that do not.
    fn played(lines: &[Line]) -> (Vec<bool>, Vec<Line>) {
        let start = Instant::now();
        let mut budgets = LogBudgets::new(BOUNDS, start);
        let mut told = Vec::new();
        let mut tell = |seq, level, LeftOut { lines, bytes }| told.push((seq, level, lines, bytes));
        let admit = |&(seq, level, bytes, second)| {
            budgets.admit((seq, level, bytes), start + Duration::from_secs(second), &mut tell)
        };
        let passed = lines.iter().map(admit).collect();
        budgets.settle(&mut tell);
        (passed, told)
    }

    #[test]
    fn each_task_has_its_lines_and_bytes_and_what_is_left_out_is_told() {
        const INFO: i32 = abi::LOG_INFO;
        let table: [(&[Line], &[bool], &[Line]); 7] = [
            (&[(1, INFO, 1, 0); 3], &[true; 3], &[]),
            (&[(1, INFO, 1, 0); 5], &[true, true, true, false, false], &[(1, 2, 2, 2)]),
            (&[(1, INFO, 9, 0), (1, INFO, 2, 0), (1, INFO, 1, 0)], &[true, false, false], &[(1, 2, 2, 3)]),
            (&[(1, INFO, 10, 0), (1, INFO, 1, 0), (2, INFO, 10, 0)], &[true, false, true], &[(1, 2, 1, 1)]),
            // An ended task's thread renews nothing, and neither does the time between tasks, but for a minute.
            (&[(2, INFO, 10, 0), (1, INFO, 1, 0), (0, INFO, 1, 59)], &[true, false, false], &[(2, 2, 2, 2)]),
            (&[(0, INFO, 10, 0), (0, INFO, 1, 59), (0, INFO, 10, 60)], &[true, false, true], &[(0, 2, 1, 1)]),
            // Debug lines that the level hides are counted apart, and so are errors.
            (
                &[(1, 5, 9, 0), (1, 4, 9, 0), (1, INFO, 10, 0), (1, INFO, 9, 0), (1, 1, 10, 0)],
                &[true, false, true, false, true],
                &[(1, 2, 1, 9), (1, 4, 1, 9)],
            ),
        ];
        for (lines, passed, told) in table {
            assert_eq!(played(lines), (passed.to_vec(), told.to_vec()), "{lines:?}");
        }
    }
}
