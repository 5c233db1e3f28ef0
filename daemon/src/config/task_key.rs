//! `fair_by` and `exclusive_by` of `[handlers.NAME]`: what tells the tasks of one handler apart.

use super::TaskKey;
use super::reader::TableReader;

/// What a key may look like, for messages.
const FORMS: &str = r#""argument" or "header:" and the name of a message header, such as "header:tenant""#;
/// Of a name in an AMQP table.
const MAX_NAME: usize = 255;

pub(super) fn read(table: &mut TableReader, key: &str) -> Option<TaskKey> {
    let (text, node) = table.text(key, &format!("text: {FORMS}"))?;
    let parsed = parse(text);
    if parsed.is_none() {
        table.error(&node.place, key, format!("{text:?} names no part of a task"), format!("write {FORMS}"));
    }
    parsed
}

fn parse(text: &str) -> Option<TaskKey> {
    match text.split_once(':') {
        None if text == "argument" => Some(TaskKey::Argument),
        Some(("header", name)) if (1..=MAX_NAME).contains(&name.len()) => Some(TaskKey::Header(name.into())),
        _ => None,
    }
}

impl std::fmt::Display for TaskKey {
    /// As it is written in a configuration.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Argument => f.write_str("argument"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}
