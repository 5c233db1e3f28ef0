//! TOML as a tree in which every value knows its place, and how trees merge.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Place, Problems};

/// A value and where its key stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What TOML can hold, and text from the environment, whose type is the reader's choice.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// `None`: does not fit 64 bits.
    Integer(Option<i64>),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    List(Vec<Node>),
    Table(Table),
    /// From an environment variable.
    Untyped(String),
}

/// A table by key.
pub(super) type Table = BTreeMap<String, Node>;

impl Value {
    /// The type in the words of an error message.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Untyped(_) => "text",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a decimal number",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Parses one file. A file that does not parse contributes its syntax errors and no keys.
pub(super) fn parse(path: &Path, text: &str, problems: &mut Problems) -> Table {
    let lines = LineIndex::new(path, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        // Never the error's `Display`: it quotes the line, which may hold a credential.
        let at = error.span().map_or(0, |span| span.start);
        problems.error(
            &lines.place(at),
            "",
            format!("not valid TOML: {}", error.message()),
            "correct the syntax",
        );
    }
    if errors.is_empty() { table(&lines, document.get_ref()) } else { Table::new() }
}

/// Parses one TOML value, for text from the environment; `None` when it is not one.
pub(super) fn parse_value(text: &str, place: &Place) -> Option<Value> {
    let parsed = DeValue::parse(text).ok()?;
    let lines = LineIndex { text, starts: vec![0], path: Path::new("").into() };
    let mut value = value(&lines, parsed.get_ref());
    relocate(&mut value, place);
    Some(value)
}

/// Puts `over` on top of `base`: tables merge by key, any other value replaces what was there. Keys that are
/// spellings of one choice (`uri`, `uris`, `uri_file`) replace each other.
pub(super) fn merge(base: &mut Table, over: Table) {
    const CHOICES: [(&str, &[&str]); 2] =
        [("broker", &["uri", "uris", "uri_file"]), ("plugins", &["dir", "dirs"])];
    for (table, keys) in CHOICES {
        if let (Some(Value::Table(base)), Some(Value::Table(over))) =
            (base.get_mut(table).map(|n| &mut n.value), over.get(table).map(|n| &n.value))
            && keys.iter().any(|key| over.contains_key(*key))
        {
            base.retain(|key, _| !keys.contains(&key.as_str()));
        }
    }
    merge_by_key(base, over);
}

fn merge_by_key(base: &mut Table, over: Table) {
    for (key, node) in over {
        match (base.get_mut(&key).map(|n| &mut n.value), node.value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge_by_key(below, above),
            (_, value) => {
                base.insert(key, Node { place: node.place, value });
            }
        }
    }
}

fn table(lines: &LineIndex, parsed: &DeTable) -> Table {
    let node = |(key, value_): (&toml::Spanned<_>, &toml::Spanned<DeValue>)| {
        let key: &toml::Spanned<std::borrow::Cow<str>> = key;
        let place = lines.place(key.span().start);
        (key.get_ref().to_string(), Node { place, value: value(lines, value_.get_ref()) })
    };
    parsed.iter().map(node).collect()
}

fn value(lines: &LineIndex, parsed: &DeValue) -> Value {
    match parsed {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => Value::Integer(i64::from_str_radix(n.as_str(), n.radix()).ok()),
        DeValue::Float(n) => Value::Float(n.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(d) => Value::Datetime(d.to_string()),
        DeValue::Array(list) => Value::List(
            list.iter()
                .map(|v| Node { place: lines.place(v.span().start), value: value(lines, v.get_ref()) })
                .collect(),
        ),
        DeValue::Table(parsed) => Value::Table(table(lines, parsed)),
    }
}

/// Byte offsets → lines and columns of one file.
struct LineIndex<'a> {
    path: Arc<Path>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    fn new(path: &Path, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { path: path.into(), text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |t| t.chars().count()) + 1;
        Place::File { path: Arc::clone(&self.path), line, column }
    }
}

fn relocate(value: &mut Value, place: &Place) {
    let nodes: Vec<&mut Node> = match value {
        Value::List(list) => list.iter_mut().collect(),
        Value::Table(table) => table.values_mut().collect(),
        _ => return,
    };
    for node in nodes {
        node.place = place.clone();
        relocate(&mut node.value, place);
    }
}
