//! Typed reading of one table: each getter reports what is wrong and goes on, so that one run finds every error.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::{Place, Problems, did_you_mean};
use super::keys;
use super::tree::{Node, Table, Value, parse_value};
use crate::model::duration::{
    DURATION_FORMS, SIZE_FORMS, format_duration, format_size, parse_duration, parse_size,
};

/// One table being read.
pub(super) struct TableReader<'a> {
    table: Option<&'a Table>,
    path: String,
    pub(super) problems: &'a mut Problems,
}

impl<'a> TableReader<'a> {
    /// Opens the table at `path`, an absent one as empty, and reports every key that is not in `known`.
    pub(super) fn open(
        node: Option<&'a Node>,
        path: &str,
        known: &[&str],
        problems: &'a mut Problems,
    ) -> Self {
        let table = node.and_then(|node| as_table(node, path, problems));
        for (key, node) in table.into_iter().flatten() {
            if !known.contains(&key.as_str()) {
                unknown_key(node, path, key, known, problems);
            }
        }
        Self { table, path: path.to_owned(), problems }
    }

    /// The value of `key`, as it is.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        self.table?.get(key)
    }

    /// `key` with the table's path before it.
    pub(super) fn dotted(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// Reports an error about `key`.
    pub(super) fn error(
        &mut self,
        place: &Place,
        key: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.error(place, &self.dotted(key), message, remedy);
    }

    /// Text; `what` says in an error what it is for.
    pub(super) fn text(&mut self, key: &str, what: &str) -> Option<(&'a str, &'a Node)> {
        let node = self.node(key)?;
        match &node.value {
            Value::Text(text) | Value::Untyped(text) => Some((text, node)),
            other => {
                self.wrong_type(node, key, what, other);
                None
            }
        }
    }

    /// A list of text. From the environment: a TOML array, or one element as it is.
    pub(super) fn texts(&mut self, key: &str, what: &str) -> Option<Vec<(String, Place)>> {
        let node = self.node(key)?;
        let from_variable = match &node.value {
            Value::Untyped(text) if text.trim_start().starts_with('[') => parse_value(text, &node.place),
            Value::Untyped(text) => return Some(vec![(text.clone(), node.place.clone())]),
            _ => None,
        };
        let Value::List(list) = from_variable.as_ref().unwrap_or(&node.value) else {
            self.wrong_type(node, key, what, &node.value);
            return None;
        };
        let mut texts = Vec::with_capacity(list.len());
        for element in list {
            match &element.value {
                Value::Text(text) => texts.push((text.clone(), element.place.clone())),
                other => self.wrong_type(element, key, what, other),
            }
        }
        Some(texts)
    }

    /// A whole number within `range`, which has to be one of the type asked for.
    pub(super) fn integer<T: TryFrom<i64>>(&mut self, key: &str, range: RangeInclusive<i64>) -> Option<T> {
        let node = self.node(key)?;
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        let number = match &node.value {
            Value::Integer(number) => *number,
            Value::Untyped(text) => text.trim().parse().ok(),
            other => {
                self.wrong_type(node, key, &what, other);
                return None;
            }
        };
        if let Some(number) = number.filter(|n| range.contains(n)) {
            return T::try_from(number).ok();
        }
        let found = number.map_or_else(|| "not such a number".to_owned(), |n| n.to_string());
        self.error(&node.place, key, format!("is {found}"), format!("write {what}"));
        None
    }

    /// A number within `range`, whole or not.
    pub(super) fn decimal(&mut self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let node = self.node(key)?;
        let what = format!("a number from {} to {}", range.start(), range.end());
        let number = match &node.value {
            Value::Float(number) => *number,
            Value::Integer(number) => number.map_or(f64::NAN, |n| n as f64),
            Value::Untyped(text) => text.trim().parse().unwrap_or(f64::NAN),
            other => {
                self.wrong_type(node, key, &what, other);
                return None;
            }
        };
        if range.contains(&number) {
            return Some(number);
        }
        self.error(&node.place, key, format!("is {number}"), format!("write {what}"));
        None
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        let node = self.node(key)?;
        match &node.value {
            Value::Boolean(value) => Some(*value),
            Value::Untyped(text) if text == "true" => Some(true),
            Value::Untyped(text) if text == "false" => Some(false),
            other => {
                self.wrong_type(node, key, "true or false", other);
                None
            }
        }
    }

    /// A duration within `range`.
    pub(super) fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.measured(key, "duration", DURATION_FORMS, &range, parse_duration, |d| format_duration(*d))
    }

    /// A size in bytes within `range`.
    pub(super) fn size(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.measured(key, "size", SIZE_FORMS, &range, parse_size, |s| format_size(*s))
    }

    /// One of the named values.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, values: &[(&str, T)]) -> Option<T> {
        let names = values.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
        let (text, node) = self.text(key, &names)?;
        let found = values.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let near = did_you_mean(text, values.iter().map(|(name, _)| *name));
            let hint = near.map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
            self.error(&node.place, key, format!("{text:?} is not known{hint}"), format!("write {names}"));
        }
        found
    }

    /// A path, a relative one taken from the directory of the file that states it.
    pub(super) fn path(&mut self, key: &str) -> Option<(PathBuf, Place)> {
        let (text, node) = self.text(key, "a path as text")?;
        if text.is_empty() || text.contains('\0') {
            self.error(&node.place, key, "is not a path", "write a path, absolute for preference");
            return None;
        }
        Some((absolute(text, &node.place), node.place.clone()))
    }

    fn measured<T: PartialOrd>(
        &mut self,
        key: &str,
        kind: &str,
        forms: &str,
        range: &RangeInclusive<T>,
        parse: impl Fn(&str) -> Option<T>,
        format: impl Fn(&T) -> String,
    ) -> Option<T> {
        let (text, node) = self.text(key, &format!("a {kind} as text: {forms}"))?;
        let Some(value) = parse(text) else {
            self.error(&node.place, key, format!("{text:?} is not a {kind}"), format!("write {forms}"));
            return None;
        };
        if range.contains(&value) {
            return Some(value);
        }
        let allowed = format!("write a {kind} from {:?} to {:?}", format(range.start()), format(range.end()));
        self.error(&node.place, key, format!("{text:?} is out of range"), allowed);
        None
    }

    fn wrong_type(&mut self, node: &Node, key: &str, what: &str, found: &Value) {
        self.error(&node.place, key, format!("is {}", found.describe()), format!("write {what}"));
    }
}

/// The table behind `node`; anything else is an error.
pub(super) fn as_table<'a>(node: &'a Node, path: &str, problems: &mut Problems) -> Option<&'a Table> {
    if let Value::Table(table) = &node.value {
        return Some(table);
    }
    problems.error(
        &node.place,
        path,
        format!("is {}", node.value.describe()),
        format!("make it a table: [{path}]"),
    );
    None
}

/// Takes a relative path from the directory of the file that states it.
pub(super) fn absolute(text: &str, place: &Place) -> PathBuf {
    place.directory().map_or_else(|| PathBuf::from(text), |dir| dir.join(text))
}

fn unknown_key(node: &Node, path: &str, key: &str, known: &[&str], problems: &mut Problems) {
    let dotted = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let hint = match (did_you_mean(key, known.iter().copied()), keys::home_of(key)) {
        (Some(near), _) => format!(" (did you mean {near:?}?)"),
        (None, Some(home)) => format!(" here (it belongs in {home})"),
        (None, None) => String::new(),
    };
    let mut remedy = format!("known here: {}", known.join(", "));
    if let (Some((top, name)), Value::Table(inner)) = (path.split_once('.'), &node.value)
        && (known == keys::QUEUE || known == keys::HANDLER)
    {
        let rest = innermost(inner).map(|rest| format!(".{rest}")).unwrap_or_default();
        remedy = format!("a name with a dot in it is quoted: [{top}.\"{name}.{key}{rest}\"]; {remedy}");
    }
    problems.error(&node.place, &dotted, format!("unknown key{hint}"), remedy);
}

/// `a.b` of a table that has nothing but the table `a`, and that nothing but the table `b`: so `[x.y.a.b]` is read.
fn innermost(table: &Table) -> Option<String> {
    let mut tables = table.iter().map(|(key, node)| (key, &node.value));
    match (tables.next(), tables.next()) {
        (Some((key, Value::Table(inner))), None) => {
            Some(innermost(inner).map_or_else(|| key.clone(), |rest| format!("{key}.{rest}")))
        }
        _ => None,
    }
}
