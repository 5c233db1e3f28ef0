//! Cuts a stream of bytes into lines for the log, with bounds.

/// Longest line that is kept, in bytes; what follows on the same line is left out. A journal line is for reading.
const MAX_LINE: usize = 4 * 1024;

/// Most lines of one task that go to the log; the rest is counted. It keeps one noisy command from filling the
/// disk.
const MAX_LINES: usize = 1_000;

/// Collects bytes and gives out whole lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    cut: bool,
    given: usize,
    left_out: usize,
    last: String,
}

impl Lines {
    /// Takes more bytes and hands each line that they complete to `emit`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = MAX_LINE - self.partial.len();
            self.cut |= text.len() > room;
            self.partial.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.end_line(&mut emit);
            }
        }
    }

    /// Ends the stream: a last line without newline counts. Says how many lines were left out.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(&str)) -> usize {
        if !self.partial.is_empty() {
            self.end_line(&mut emit);
        }
        self.left_out
    }

    /// The last line that was not blank, left out or not.
    pub(crate) fn last(&self) -> &str {
        &self.last
    }

    fn end_line(&mut self, emit: &mut impl FnMut(&str)) {
        let bytes = std::mem::take(&mut self.partial);
        let cut = std::mem::take(&mut self.cut);
        let mut line = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(&bytes)).into_owned();
        if line.trim().is_empty() {
            return;
        }
        if cut {
            line.push('…');
        }
        if self.given < MAX_LINES {
            self.given += 1;
            emit(&line);
        } else {
            self.left_out += 1;
        }
        self.last = line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(chunks: &[&[u8]]) -> (Vec<String>, usize, String) {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line| out.push(line.to_owned()));
        }
        let left_out = lines.finish(|line| out.push(line.to_owned()));
        (out, left_out, lines.last().to_owned())
    }

    #[test]
    fn lines_are_whole_however_the_bytes_arrive() {
        let (lines, left_out, last) = collect(&[b"one\ntw", b"o\r\n\n  \nthr", b"ee"]);
        assert_eq!((lines.as_slice(), left_out), (["one", "two", "three"].map(str::to_owned).as_slice(), 0));
        assert_eq!(last, "three");
    }

    #[test]
    fn a_line_that_never_ends_is_cut() {
        let megabyte = vec![b'x'; 1 << 20];
        let (lines, ..) = collect(&[&megabyte, &megabyte, b"\nnext\n"]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), MAX_LINE + '…'.len_utf8());
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn too_many_lines_are_counted_and_the_last_is_still_known() {
        let many = "line\n".repeat(MAX_LINES + 7) + "the end\n";
        let (lines, left_out, last) = collect(&[many.as_bytes()]);
        assert_eq!((lines.len(), left_out, last.as_str()), (MAX_LINES, 8, "the end"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(collect(&[b"a\xffb\n"]).0, ["a\u{fffd}b"]);
    }
}
