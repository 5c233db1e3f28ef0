//! What a handler and its children print, as lines for the log: bounded per task, whatever they print.

use super::{HostEvent, OutputBounds, Seq};

/// Longest line; a longer one comes in parts.
const MAX_LINE: usize = 8 << 10;

/// One of a host's two output streams.
#[derive(Debug)]
pub(super) struct OutputStream {
    stderr: bool,
    /// What a task may have in the log.
    max: OutputBounds,
    /// The task that the counts below are of.
    seq: Seq,
    /// Bytes that passed, the lines that they made, and bytes that did not pass.
    passed: u64,
    made: u64,
    dropped: u64,
    partial: Vec<u8>,
}

impl OutputStream {
    pub(super) fn new(stderr: bool, max: OutputBounds) -> Self {
        Self { stderr, max, seq: 0, passed: 0, made: 0, dropped: 0, partial: Vec::new() }
    }

    /// Takes what was read while `seq` ran; what is over the bound is counted and forgotten.
    pub(super) fn push(&mut self, seq: Seq, mut bytes: &[u8], emit: &mut impl FnMut(HostEvent)) {
        if seq != self.seq {
            self.finish(emit);
            self.seq = seq;
        }
        while !bytes.is_empty() {
            let room = usize::try_from(self.max.bytes - self.passed).unwrap_or(usize::MAX);
            if room == 0 || self.made >= self.max.lines {
                self.dropped += bytes.len() as u64;
                return;
            }
            let window = &bytes[..bytes.len().min(room).min(MAX_LINE - self.partial.len())];
            let newline = window.iter().position(|&byte| byte == b'\n');
            let taken = newline.map_or(window.len(), |at| at + 1);
            self.partial.extend_from_slice(&window[..newline.unwrap_or(taken)]);
            self.passed += taken as u64;
            bytes = &bytes[taken..];
            if newline.is_some() || self.partial.len() == MAX_LINE {
                self.line(emit);
            }
        }
    }

    /// The task ended: what has no newline becomes a line, and what was left out is stated.
    pub(super) fn finish(&mut self, emit: &mut impl FnMut(HostEvent)) {
        if self.passed == 0 && self.dropped == 0 {
            return;
        }
        if !self.partial.is_empty() {
            self.line(emit);
        }
        if self.dropped > 0 {
            let line = format!("… {} bytes more", self.dropped);
            emit(HostEvent::Output { seq: self.seq, stderr: self.stderr, line });
        }
        self.passed = 0;
        self.made = 0;
        self.dropped = 0;
        self.partial.shrink_to(MAX_LINE);
    }

    fn line(&mut self, emit: &mut impl FnMut(HostEvent)) {
        self.made += 1;
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        let line = String::from_utf8_lossy(line).into_owned();
        emit(HostEvent::Output { seq: self.seq, stderr: self.stderr, line });
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(max: u64, chunks: &[(Seq, &[u8])]) -> Vec<(Seq, String)> {
        lines_within(OutputBounds { bytes: max, lines: 100 }, chunks)
    }

    fn lines_within(max: OutputBounds, chunks: &[(Seq, &[u8])]) -> Vec<(Seq, String)> {
        let mut lines = OutputStream::new(false, max);
        let mut out = Vec::new();
        let mut emit = |event| match event {
            HostEvent::Output { seq, line, .. } => out.push((seq, line)),
            other => panic!("{other:?}"),
        };
        for (seq, chunk) in chunks {
            lines.push(*seq, chunk, &mut emit);
        }
        lines.finish(&mut emit);
        out
    }

    fn line(seq: Seq, text: &str) -> (Seq, String) {
        (seq, text.to_owned())
    }

    #[test]
    fn chunks_are_cut_at_newlines_and_the_rest_is_a_line_too() {
        assert_eq!(
            lines_of(1000, &[(1, b"one\ntw"), (1, b"o\r\n\nthree")]),
            [line(1, "one"), line(1, "two"), line(1, ""), line(1, "three")]
        );
    }

    #[test]
    fn each_task_has_its_own_bound_and_what_is_left_out_is_stated() {
        assert_eq!(
            lines_of(5, &[(1, b"abc\ndefghi"), (1, b"jkl\n"), (2, b"xy\n")]),
            [line(1, "abc"), line(1, "d"), line(1, "… 9 bytes more"), line(2, "xy")]
        );
    }

    #[test]
    fn lines_are_bounded_as_well_as_bytes() {
        let max = OutputBounds { bytes: 1000, lines: 2 };
        let expected = [line(1, ""), line(1, ""), line(1, "… 3 bytes more"), line(2, "x"), line(2, "")];
        assert_eq!(lines_within(max, &[(1, b"\n\n\n"), (1, b"\n\n"), (2, b"x\n\n")]), expected);
    }

    #[test]
    fn a_line_without_an_end_comes_in_parts() {
        let long = vec![b'a'; MAX_LINE + 1];
        let lines = lines_of(1 << 20, &[(1, &long)]);
        assert_eq!(lines.iter().map(|(_, line)| line.len()).collect::<Vec<_>>(), [MAX_LINE, 1]);
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        assert_eq!(lines_of(100, &[(1, b"a\xFFb\n")]), [line(1, "a\u{FFFD}b")]);
    }

    #[test]
    fn a_bound_of_zero_says_nothing_but_the_count() {
        assert_eq!(lines_of(0, &[(1, b"abc\n")]), [line(1, "… 4 bytes more")]);
    }
}
