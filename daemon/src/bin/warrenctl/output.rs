//! What is printed: aligned tables, times in words, JSON; and nothing that could drive the reader's terminal.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use crate::exit::{Code, VerbError};

/// Writes to stdout. A reader that left (`| head`) is not an error.
pub(crate) fn print(text: &str) -> Result<(), VerbError> {
    write(text.as_bytes())
}

/// Writes what a task or a handler made to stdout, with a newline at its end if it has none; nothing for nothing. Into
/// a pipe it goes byte for byte, onto a terminal as text.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), VerbError> {
    let mut bytes = if io::stdout().is_terminal() {
        clean_lines(&String::from_utf8_lossy(bytes)).into_bytes()
    } else {
        bytes.to_vec()
    };
    if bytes.last().is_some_and(|&last| last != b'\n') {
        bytes.push(b'\n');
    }
    write(&bytes)
}

fn write(bytes: &[u8]) -> Result<(), VerbError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(VerbError::new(Code::Io, anyhow::Error::new(e).context("cannot write to stdout")))
        }
        _ => Ok(()),
    }
}

/// Writes a value as JSON to stdout: indented on a terminal, one line in a pipe.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<(), VerbError> {
    let text = if io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    let mut text = text.map_err(|e| VerbError::new(Code::Software, e))?;
    text.push('\n');
    print(&text)
}

/// Writes one message to stderr, as `warrenctl: …`.
pub(crate) fn note(text: &str) {
    // There is nowhere left to say that stderr is gone.
    let _ = writeln!(io::stderr().lock(), "warrenctl: {}", clean_lines(text));
}

/// The exit code of a verb. A failure is written to stderr, with all that caused it.
pub(crate) fn exit_code(result: Result<(), VerbError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&failure.to_string());
            ExitCode::from(failure.code() as u8)
        }
    }
}

/// Rows under a head line, each column as wide as its widest cell; numbers to the right.
#[derive(Debug)]
pub(crate) struct TextTable {
    rows: Vec<Vec<String>>,
}

impl TextTable {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }

    pub(crate) fn text(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let right: Vec<bool> = (0..columns).map(|column| self.is_numeric(column)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, &width), &right) in row.iter().zip(&widths).zip(&right) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                let pad = " ".repeat(width - cell.width());
                if right {
                    line.push_str(&pad);
                }
                line.push_str(cell);
                if !right {
                    line.push_str(&pad);
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn is_numeric(&self, column: usize) -> bool {
        let number = |cell: &String| cell == "-" || cell.bytes().all(|b| b.is_ascii_digit());
        self.rows.len() > 1 && self.rows[1..].iter().all(|row| number(&row[column]))
    }
}

/// The text without control characters: what a task or a handler wrote must not drive the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The same, but lines stay lines and tabs stay tabs.
pub(crate) fn clean_lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A span in at most two units: `3d 4h`, `12m 5s`, `1.3s`, `250ms`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |high: u64, high_unit: &str, low: u64, low_unit: &str| match low {
        0 => format!("{high}{high_unit}"),
        _ => format!("{high}{high_unit} {low}{low_unit}"),
    };
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..=59 => match duration.subsec_millis() / 100 {
            0 => format!("{seconds}s"),
            tenths => format!("{seconds}.{tenths}s"),
        },
        60..=3599 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..=86_399 => two(seconds / 3600, "h", seconds / 60 % 60, "m"),
        _ => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

/// How long ago a moment in milliseconds since the epoch was; a clock that was set back gives zero.
pub(crate) fn since(epoch_ms: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(epoch_ms))
}

/// The first 12 digits of a digest: enough to tell two apart by eye.
pub(crate) fn short_digest(sha256: &str) -> String {
    sha256.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let mut table = TextTable::new(&["NAME", "COUNT", "NOTE"]);
        table.row(["ü".into(), "5".into(), "a".into()]);
        table.row(["longer".into(), "12345678".into(), String::new()]);
        // On a terminal each of these is as wide as two letters.
        table.row(["受注".into(), "1".into(), "b".into()]);
        assert_eq!(
            table.text(),
            "NAME       COUNT  NOTE\n\
             ü              5  a\n\
             longer  12345678\n\
             受注           1  b\n"
        );
    }

    #[test]
    fn spans_are_short_and_right() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1350, "1.3s"),
            (60_000, "1m"),
            (61_500, "1m 1s"),
            (3_600_000, "1h"),
            (3_725_000, "1h 2m"),
            (86_400_000, "1d"),
            (190_000_000, "2d 4h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(clean_lines("a\n\tb\r"), "a\n\tb\u{fffd}");
    }
}
