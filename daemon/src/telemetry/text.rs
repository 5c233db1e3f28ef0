//! A record as one line for people: `2026-11-23T22:13:17.123Z INFO  task done  handler=clean-temp task_id=…`.
//! Nothing that is logged can begin a line of its own or send a command to a terminal.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::Timestamp;
use tracing::Level;

use super::record::LogRecord;
use crate::config::log_level::{HANDLER, TASK};

/// Appends the record's line, its newline included.
pub(super) fn render(record: &LogRecord, color: bool, line: &mut String) {
    timestamp(record.time, line);
    let (code, name) = match record.level() {
        Level::ERROR => (31, "ERROR"),
        Level::WARN => (33, "WARN "),
        Level::INFO => (32, "INFO "),
        Level::DEBUG => (34, "DEBUG"),
        Level::TRACE => (35, "TRACE"),
    };
    // Writing to a String cannot fail.
    let _ = if color { write!(line, " \u{1b}[{code}m{name}\u{1b}[0m ") } else { write!(line, " {name} ") };
    escape(&record.message, line);
    fields(record, None, line);
    line.push('\n');
}

/// Appends the record's fields as they stand behind its message, but for one.
pub(super) fn fields(record: &LogRecord, without: Option<&str>, line: &mut String) {
    let mut gap = "  ";
    let mut field = |name: &str, value: &str| {
        if without == Some(name) {
            return;
        }
        line.push_str(gap);
        gap = " ";
        escape(name, line);
        line.push('=');
        quoted(value, line);
    };
    record.each_field(&mut field);
    for (name, value) in &record.foreign {
        field(name, value);
    }
    let own = [TASK, HANDLER].contains(&record.target()) || record.target().starts_with("warren");
    if !own {
        field("target", record.target());
    }
}

fn quoted(value: &str, line: &mut String) {
    let plain =
        !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '=' | '\\'));
    if plain {
        escape(value, line);
        return;
    }
    line.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            line.push('\\');
        }
        push(c, line);
    }
    line.push('"');
}

fn escape(text: &str, line: &mut String) {
    text.chars().for_each(|c| push(c, line));
}

/// Control characters, and those that reorder or break a line where Unicode is understood, in escaped form.
fn push(c: char, line: &mut String) {
    let harmful = c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if harmful { line.extend(c.escape_default()) } else { line.push(c) }
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(time: SystemTime, line: &mut String) {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    let _ = write!(line, "{time:.3}"); // Writing to a String cannot fail.
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::site;
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
            (1_795_471_997_123, "2026-11-23T22:13:17.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, expected) in table {
            let mut line = String::new();
            timestamp(UNIX_EPOCH + Duration::from_millis(millis) + Duration::from_micros(999), &mut line);
            assert_eq!(line, expected);
        }
    }

    fn line(message: &'static str, fields: &[(&'static str, &str)], color: bool) -> String {
        let mut record = LogRecord::new(site::task(Level::INFO), message);
        record.time = UNIX_EPOCH;
        for (name, value) in fields {
            record.field(name, *value);
        }
        let mut line = String::new();
        render(&record, color, &mut line);
        line
    }

    #[test]
    fn a_line_is_time_level_message_and_fields() {
        let fields = [("a", "1"), ("b", "two words"), ("c", ""), ("d", "q\"\\")];
        let expected =
            "1970-01-01T00:00:00.000Z INFO  task done  a=1 b=\"two words\" c=\"\" d=\"q\\\"\\\\\"\n";
        assert_eq!(line("task done", &fields, false), expected);
        assert!(line("x", &[], true).contains("\u{1b}[32mINFO \u{1b}[0m x\n"));
    }

    #[test]
    fn nothing_logged_can_forge_a_line_or_command_a_terminal() {
        let text = line("a\nb\u{1b}[2J", &[("k", "x\r\ny\u{7f}\u{9b}\u{2028}\u{202e}")], false);
        assert_eq!(
            text,
            "1970-01-01T00:00:00.000Z INFO  a\\nb\\u{1b}[2J  k=\"x\\r\\ny\\u{7f}\\u{9b}\\u{2028}\\u{202e}\"\n"
        );
    }
}
