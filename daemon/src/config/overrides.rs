//! `WARREN_…` variables as a table that goes on top of the files.
//!
//! The name is the key's path in capitals with `__` between its parts: `WARREN_BROKER__URI`,
//! `WARREN_QUEUES__TASK_QUEUE__WORKERS`, `WARREN_HANDLERS__CLEAN_TEMP__RETRY__ATTEMPTS`,
//! `WARREN_HANDLERS__CLEAN_TEMP__SETTINGS__DRY_RUN`.
//!
//! - A variable without `__` after `WARREN_` is none of ours; one whose value is empty counts as not set.
//! - Keys are lower case. A queue or handler is found by its name in capitals with every other character than
//!   letters and digits as `_`. Where the files have none of that name, one is added: lower case, and for a
//!   handler with `-` for `_`. Names with `__` in them cannot be reached.
//! - Values are taken as the key's type asks: text as it is, numbers and booleans as in TOML, lists as a TOML
//!   array or, without a bracket, as their only element. A setting is a TOML value where it reads as a number,
//!   a boolean, an array, an inline table or a quoted text, and plain text otherwise.

use super::Environment;
use super::diagnostic::{Place, Problems, did_you_mean};
use super::keys;
use super::tree::{Node, Table, Value, parse_value};

/// Reads the variables; `files` is what the files said, for the names of queues and handlers.
pub(super) fn read(environment: &Environment, files: &Table, problems: &mut Problems) -> Table {
    let mut table = Table::new();
    for (name, value) in environment.iter() {
        let Some(path) = name.strip_prefix("WARREN_").filter(|path| path.contains("__")) else { continue };
        let place = Place::Variable(name.to_owned());
        if let Some(path) = resolve(path, files, &place, problems) {
            let Some(value) = value.to_str() else {
                let remedy = "write the value as UTF-8 text, other bytes of a URI percent-encoded";
                problems.error(&place, &path.join("."), "is not UTF-8", remedy);
                continue;
            };
            let is_setting = path.get(2).is_some_and(|key| key == "settings");
            let typed = if is_setting { parse_value(value, &place) } else { None };
            insert(&mut table, &path, typed.unwrap_or_else(|| untyped(value, is_setting)), &place);
        }
    }
    table
}

/// The key's path, or `None` after an error.
fn resolve(path: &str, files: &Table, place: &Place, problems: &mut Problems) -> Option<Vec<String>> {
    let mut parts: Vec<String> = path.split("__").map(str::to_lowercase).collect();
    let top = parts[0].clone();
    if !keys::TOP.contains(&top.as_str()) {
        let near = did_you_mean(&top, keys::TOP.iter().copied());
        let hint = near.map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
        let remedy = format!("after WARREN_ comes one of {}", keys::TOP.join(", ").to_uppercase());
        problems.error(place, &top, format!("unknown table{hint}"), remedy);
        return None;
    }
    let named = top == "queues" || top == "handlers";
    let fits = match (named, parts.get(2).map(String::as_str)) {
        (false, _) => parts.len() == 2,
        (true, Some("settings")) => parts.len() >= 4,
        (true, Some("retry")) => parts.len() == 4,
        (true, _) => parts.len() == 3,
    };
    if !fits || parts.iter().any(String::is_empty) {
        let form = if named { "WARREN_TABLE__NAME__KEY" } else { "WARREN_TABLE__KEY" };
        problems.error(place, &parts.join("."), "names no key", format!("write {form}"));
        return None;
    }
    if named {
        parts[1] = named_table(&top, &parts[1], files, place, problems)?;
    }
    Some(parts)
}

/// The name of the queue or handler that `spelled` means.
fn named_table(
    top: &str,
    spelled: &str,
    files: &Table,
    place: &Place,
    problems: &mut Problems,
) -> Option<String> {
    let normal = |name: &str| {
        name.to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect::<String>()
    };
    let known = match files.get(top).map(|node| &node.value) {
        Some(Value::Table(table)) => table.keys().filter(|name| normal(name) == spelled).collect(),
        _ => Vec::new(),
    };
    match known[..] {
        [] if top == "handlers" => Some(spelled.replace('_', "-")),
        [] => Some(spelled.to_owned()),
        [name] => Some(name.clone()),
        _ => {
            let message = format!("could mean each of {known:?}");
            problems.error(place, &format!("{top}.{spelled}"), message, "set the key in a file instead");
            None
        }
    }
}

fn untyped(value: &str, is_setting: bool) -> Value {
    if is_setting { Value::Text(value.to_owned()) } else { Value::Untyped(value.to_owned()) }
}

fn insert(table: &mut Table, path: &[String], value: Value, place: &Place) {
    let [key, rest @ ..] = path else { return };
    if rest.is_empty() {
        table.insert(key.clone(), Node { place: place.clone(), value });
        return;
    }
    let node = table
        .entry(key.clone())
        .or_insert_with(|| Node { place: place.clone(), value: Value::Table(Table::new()) });
    // A variable for a whole setting gives way to those for its parts.
    if !matches!(node.value, Value::Table(_)) {
        node.value = Value::Table(Table::new());
    }
    if let Value::Table(inner) = &mut node.value {
        insert(inner, rest, value, place);
    }
}
