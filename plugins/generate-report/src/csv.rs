//! A table as CSV: RFC 4180, UTF-8 without a byte order mark, CRLF after each line, a header line first.

use crate::query::Table;
use rusqlite::types::Value;
use std::fmt::Write;

/// Writes the table. With `guard`, text that a spreadsheet would take for a formula gets an apostrophe before it.
pub(crate) fn write(table: &Table, guard: bool) -> String {
    let mut csv = String::new();
    let header: Vec<String> = table.columns.iter().map(|name| text(name, guard)).collect();
    line(&mut csv, &header);
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(|value| cell(value, guard)).collect();
        line(&mut csv, &cells);
    }
    csv
}

fn line(csv: &mut String, cells: &[String]) {
    // A single empty cell would be an empty line, which many readers skip.
    if let [only] = cells
        && only.is_empty()
    {
        csv.push_str("\"\"");
    } else {
        csv.push_str(&cells.join(","));
    }
    csv.push_str("\r\n");
}

fn cell(value: &Value, guard: bool) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(content) => text(content, guard),
        Value::Blob(bytes) => bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}"); // Writing to a String does not fail.
            hex
        }),
    }
}

fn text(content: &str, guard: bool) -> String {
    let apostrophe = if guard && is_formula(content) { "'" } else { "" };
    let quote = content.contains([',', '"', '\r', '\n'])
        || content.starts_with([' ', '\t'])
        || content.ends_with([' ', '\t']);
    if quote {
        format!("\"{apostrophe}{}\"", content.replace('"', "\"\""))
    } else {
        format!("{apostrophe}{content}")
    }
}

/// Whether a spreadsheet could run this text. A plain number such as `-5` it only reads.
fn is_formula(content: &str) -> bool {
    content.starts_with(['=', '+', '-', '@', '\t', '\r']) && content.parse::<f64>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &Value) -> String {
        cell(value, true)
    }

    #[test]
    fn cells_are_quoted_only_where_they_must_be() {
        for (content, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"yes\"", "\"say \"\"yes\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            (" led by a blank", "\" led by a blank\""),
            ("", ""),
        ] {
            assert_eq!(one(&Value::Text(content.into())), expected, "{content:?}");
        }
        assert_eq!(one(&Value::Null), "");
        assert_eq!(one(&Value::Integer(-5)), "-5");
        assert_eq!(one(&Value::Real(0.5)), "0.5");
        assert_eq!(one(&Value::Blob(vec![0xDE, 0x01])), "de01");
    }

    #[test]
    fn text_that_a_spreadsheet_would_run_is_disarmed() {
        for (content, expected) in [
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
            ("-5.2", "-5.2"),
            ("+7", "+7"),
            ("-", "'-"),
            ("a=b", "a=b"),
        ] {
            assert_eq!(one(&Value::Text(content.into())), expected);
        }
        assert_eq!(cell(&Value::Text("=1+1".into()), false), "=1+1", "the operator may switch it off");
    }

    #[test]
    fn a_table_is_a_header_and_lines_ended_by_crlf() {
        let table = Table {
            columns: vec!["quarter".into(), "=amount".into()],
            rows: vec![vec![Value::Text("Q3".into()), Value::Integer(7)], vec![Value::Null, Value::Null]],
            asked_at: String::new(),
        };
        assert_eq!(write(&table, true), "quarter,'=amount\r\nQ3,7\r\n,\r\n");
        let narrow = Table { columns: vec!["x".into()], rows: vec![vec![Value::Null]], ..table };
        assert_eq!(write(&narrow, true), "x\r\n\"\"\r\n");
    }
}
