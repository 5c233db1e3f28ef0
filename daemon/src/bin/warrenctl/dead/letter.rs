//! How a letter is printed: a row, a page of text, or JSON.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lapin::BasicProperties;
use lapin::types::ShortString;
use serde::Serialize;
use serde_json::{Map, Value};
use warren::broker::dead::DeadLetter;
use warren::model::UnixMs;
use warren::task::header_json;
use warren::task::own::{HEADER_ALTERED, is_own};

use crate::output::{TextTable, clean, clean_lines, since, span};

/// Columns that a row gives to an error, and to the beginning of a body.
const SHORT: usize = 40;

/// What a letter says of itself.
#[derive(Debug, Clone, Serialize)]
struct LetterFacts {
    id: Option<String>,
    queue: Option<String>,
    reason: Option<String>,
    handler: Option<String>,
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers_dropped: Option<String>,
    error_code: Option<String>,
    error: Option<String>,
    first_failure_ms: Option<u64>,
    last_failure_ms: Option<u64>,
    bytes: usize,
}

/// One row of a list.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    #[serde(flatten)]
    facts: LetterFacts,
    /// The beginning of the body.
    text: String,
    /// Where it would be replayed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
}

/// Everything, as JSON.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Whole {
    #[serde(flatten)]
    facts: LetterFacts,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// In place of `body` where that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    properties: Map<String, Value>,
    headers: Map<String, Value>,
}

/// A letter's id for a message.
pub(super) fn name(letter: &DeadLetter) -> String {
    letter.id.as_ref().map_or_else(|| "-".to_owned(), |id| id.text.to_string())
}

impl LetterFacts {
    fn of(letter: &DeadLetter) -> Self {
        Self {
            id: letter.id.as_ref().map(|id| id.text.to_string()),
            queue: letter.queue.clone(),
            reason: letter.reason.clone(),
            handler: letter.handler.clone(),
            attempts: letter.attempts,
            headers_dropped: letter.headers_dropped.clone(),
            error_code: letter.error_code.clone(),
            error: letter.error.clone(),
            first_failure_ms: letter.first_failure.map(|time| time.0),
            last_failure_ms: letter.last_failure.map(|time| time.0),
            bytes: letter.body.len(),
        }
    }

    /// Code and message; the code only where the reason does not say as much.
    fn error(&self) -> String {
        let code = self.error_code.as_deref().filter(|&code| self.reason.as_deref() != Some(code));
        [code, self.error.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(": ")
    }
}

impl Summary {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        let beginning = &letter.body[..letter.body.len().min(4 * SHORT)];
        let text = short(&String::from_utf8_lossy(beginning), letter.body.len() > beginning.len());
        Self { facts: LetterFacts::of(letter), text, to: None }
    }

    /// The same with the queue that it would go to.
    pub(super) fn to(self, queue: &str) -> Self {
        Self { to: Some(queue.to_owned()), ..self }
    }
}

/// The letters as a table; with a column for where they would go, if they say so.
pub(super) fn table(letters: &[Summary]) -> String {
    let goes = letters.iter().any(|letter| letter.to.is_some());
    let mut head = vec!["AGE", "ID", "HANDLER", "REASON", "ATTEMPTS", "ERROR", "TEXT"];
    if goes {
        head.insert(2, "TO");
    }
    let mut table = TextTable::new(&head);
    for letter in letters {
        let facts = &letter.facts;
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let mut row = vec![
            facts.last_failure_ms.map_or_else(|| "-".to_owned(), |time| span(since(time))),
            text(&facts.id),
            text(&facts.handler),
            text(&facts.reason),
            facts.attempts.map_or_else(|| "-".to_owned(), |attempts| attempts.to_string()),
            short(&facts.error(), false),
            letter.text.clone(),
        ];
        if goes {
            row.insert(2, text(&letter.to));
        }
        table.row(row);
    }
    table.text()
}

impl Whole {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        let (body, body_base64) = match std::str::from_utf8(&letter.body) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(&letter.body))),
        };
        let headers = letter.properties.headers().iter().flatten();
        let headers = headers.map(|(name, value)| (name.to_string(), header_json(value)));
        Self {
            facts: LetterFacts::of(letter),
            body,
            body_base64,
            properties: properties(&letter.properties),
            headers: headers.collect(),
        }
    }

    /// A page for people: headers of ours are told in words, the body comes last.
    pub(super) fn text(&self) -> String {
        let facts = &self.facts;
        let mut text = String::new();
        let mut line = |name: &str, value: Option<String>| {
            // Writing to a String cannot fail.
            let _ = value.map(|value| writeln!(text, "{name:<14}{}", clean(&value)));
        };
        line("id", Some(facts.id.clone().unwrap_or_else(|| "-".to_owned())));
        line("queue", facts.queue.clone());
        line("reason", facts.reason.clone());
        line("handler", facts.handler.clone());
        line("attempts", facts.attempts.map(|attempts| attempts.to_string()));
        line("altered", self.headers.get(HEADER_ALTERED).map(plain));
        line(
            "without",
            facts.headers_dropped.as_ref().map(|names| format!("headers {names}: no room for them")),
        );
        line("error", Some(facts.error()).filter(|error| !error.is_empty()));
        line("first failure", facts.first_failure_ms.map(moment));
        line("last failure", facts.last_failure_ms.map(moment));
        for (name, value) in &self.properties {
            line("property", Some(format!("{name} = {}", plain(value))));
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| !is_own(name)) {
            line("header", Some(format!("{name} = {}", plain(value))));
        }
        let (kind, body) = match (&self.body, &self.body_base64) {
            (Some(body), _) => ("", body),
            (None, Some(body)) => (", not UTF-8, in base64", body),
            (None, None) => return text,
        };
        line("body", Some(format!("{} bytes{kind}", facts.bytes)));
        let _ = writeln!(text, "\n{}", clean_lines(body).trim_end_matches('\n'));
        text
    }
}

/// Those that are set; their headers stand on their own.
fn properties(properties: &BasicProperties) -> Map<String, Value> {
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| Value::from(text.as_str()));
    let number = |value: Option<u64>| value.map(Value::from);
    let all = [
        ("content_type", text(properties.content_type())),
        ("content_encoding", text(properties.content_encoding())),
        ("delivery_mode", number(properties.delivery_mode().map(u64::from))),
        ("priority", number(properties.priority().map(u64::from))),
        ("correlation_id", text(properties.correlation_id())),
        ("reply_to", text(properties.reply_to())),
        ("expiration", text(properties.expiration())),
        ("message_id", text(properties.message_id())),
        ("timestamp", number(*properties.timestamp())),
        ("type", text(properties.kind())),
        ("user_id", text(properties.user_id())),
        ("app_id", text(properties.app_id())),
        ("cluster_id", text(properties.cluster_id())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn moment(ms: u64) -> String {
    format!("{}, {} ago", UnixMs(ms), span(since(ms)))
}

/// A JSON string without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The beginning of a text on one line; `…` where something is left out.
fn short(text: &str, is_cut: bool) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let beginning: String = line.chars().take(SHORT).collect();
    if is_cut || beginning.len() < line.len() { format!("{beginning}…") } else { beginning }
}

#[cfg(test)]
mod tests {
    use lapin::types::{AMQPValue, FieldTable};

    use super::*;

    fn letter(body: &[u8]) -> DeadLetter {
        let mut headers = FieldTable::default();
        headers.insert("tenant".into(), AMQPValue::LongString("acme".into()));
        headers.insert("x-warren-error-code".into(), AMQPValue::LongString("io".into()));
        headers.insert("x-warren-error".into(), AMQPValue::LongString("disk\x1b[2J full".into()));
        headers.insert("x-warren-headers-dropped".into(), AMQPValue::LongString("cookie, \x1b[2J".into()));
        headers.insert("x-warren-last-failure".into(), AMQPValue::Timestamp(1_700_000_000));
        let properties =
            BasicProperties::default().with_message_id("o-1".into()).with_priority(3).with_headers(headers);
        DeadLetter::read(properties, body.to_vec())
    }

    #[test]
    fn json_has_the_body_as_text_or_in_base64() {
        let json = serde_json::to_value(Whole::of(&letter("Bäckup\n".as_bytes()))).expect("plain");
        assert_eq!(json["body"], "Bäckup\n");
        assert!(json.get("body_base64").is_none());
        let json = serde_json::to_value(Whole::of(&letter(b"\xff\x00"))).expect("plain");
        assert_eq!(json["body_base64"], "/wA=");
        assert!(json.get("body").is_none());
        assert_eq!(json["properties"], serde_json::json!({"message_id": "o-1", "priority": 3}));
        assert_eq!(json["headers"]["tenant"], "acme");
        assert_eq!(json["last_failure_ms"], 1_700_000_000_000_u64);
        assert_eq!((&json["reason"], &json["bytes"]), (&Value::Null, &2.into()));
    }

    #[test]
    fn the_page_drives_no_terminal_and_says_nothing_twice() {
        let text = Whole::of(&letter(b"one\n\x1b[2Jtwo\n")).text();
        assert!(text.contains("error         io: disk\u{fffd}[2J full\n"), "{text}");
        assert!(text.contains("header        tenant = acme\n") && !text.contains("x-warren"), "{text}");
        assert!(text.contains("without       headers cookie, \u{fffd}[2J: no room for them\n"), "{text}");
        assert!(text.contains("property      priority = 3\n"), "{text}");
        assert!(text.contains("last failure  2023-11-14T22:13:20Z, "), "{text}");
        assert!(text.ends_with("body          12 bytes\n\none\n\u{fffd}[2Jtwo\n"), "{text}");
        let text = Whole::of(&letter(b"\xff")).text();
        assert!(text.ends_with("body          1 bytes, not UTF-8, in base64\n\n/w==\n"), "{text}");
    }

    #[test]
    fn an_error_does_not_repeat_the_reason() {
        let letter = letter(b"");
        for (reason, code, expected) in [
            ("attempts", Some("io"), "io: disk\x1b[2J full"),
            ("timeout", Some("timeout"), "disk\x1b[2J full"),
            ("poison", None, "disk\x1b[2J full"),
        ] {
            let (reason, error_code) = (Some(reason.to_owned()), code.map(str::to_owned));
            assert_eq!(LetterFacts { reason, error_code, ..LetterFacts::of(&letter) }.error(), expected);
        }
    }

    #[test]
    fn rows_are_one_line_and_short() {
        let long = "many words\nof a body ".repeat(30);
        let summary = Summary::of(&letter(long.as_bytes()));
        assert_eq!(summary.text, "many words of a body many words of a bod…");
        let page = table(std::slice::from_ref(&summary));
        assert_eq!(page.lines().count(), 2);
        assert!(page.starts_with("AGE") && !page.contains("TO"), "{page}");
        assert!(page.contains("io: disk\u{fffd}[2J full"), "{page}");
        let page = table(&[summary.to("elsewhere")]);
        assert!(page.contains("  TO ") && page.contains("elsewhere"), "{page}");
        for (text, is_cut, expected) in [("", false, ""), ("a b", false, "a b"), ("a\tb", true, "a b…")] {
            assert_eq!(short(text, is_cut), expected);
        }
    }
}
