//! `[handlers.NAME]`: one handler at a time, and then what only shows when they are seen together.

use std::time::Duration;

use super::diagnostic::{Place, Problems, did_you_mean};
use super::reader::{TableReader, as_table};
use super::tree::{Node, Table, Value};
use super::{Breaker, Handler, Limits, Queue, Retry, bounds, consumer_timeout, keys, rate, task_key};
use crate::model::duration::{MAX_DURATION, format_size};
use warren_plugin::hosting::split_label;

/// A routing prefix can also be an AMQP `type`, which is a short string.
const MAX_PREFIX: usize = 255;
/// A longer name is a mistake, and would not fit a process title or a table.
const MAX_NAME: usize = 64;
/// A retry waits in a queue; above this a calendar is the right tool.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(7 * 24 * 3600);

/// A handler with the places of what is checked against others.
pub(super) struct Draft {
    pub(super) handler: Handler,
    place: Place,
    prefixes: Vec<Place>,
    queues: Vec<Place>,
}

/// Reads every `[handlers.NAME]`, in name order.
pub(super) fn read(tree: &Table, problems: &mut Problems) -> Vec<Draft> {
    let Some(tables) = tree.get("handlers").and_then(|node| as_table(node, "handlers", problems)) else {
        return Vec::new();
    };
    tables.iter().map(|(name, node)| read_one(name, node, problems)).collect()
}

/// Checks handlers against the queues, where all of those are known, and against each other.
pub(super) fn cross_check(drafts: &[Draft], queues: Option<&Vec<Queue>>, problems: &mut Problems) {
    if let Some(queues) = queues {
        for draft in drafts {
            unknown_queues(draft, queues, problems);
        }
    }
    for (i, later) in drafts.iter().enumerate() {
        for earlier in &drafts[..i] {
            if share_a_queue(&earlier.handler, &later.handler) {
                shared_prefixes(earlier, later, problems);
            }
        }
    }
}

/// Warns of handlers that can hold deliveries longer than the broker lets them.
pub(super) fn warn_of_consumer_timeout(
    drafts: &[Draft],
    queues: &[Queue],
    broker_limit: Duration,
    problems: &mut Problems,
) {
    for draft in drafts {
        let handler = &draft.handler;
        // A plugin's own limit is not known here; it is compared when the plugin is loaded.
        let Some(timeout) = handler.limits.timeout else { continue };
        for queue in queues.iter().filter(|q| takes_from(handler, &q.name)) {
            if let Some(message) = queue.consumer_timeout_risk(&handler.limits, timeout, broker_limit) {
                let key = format!("handlers.{}.timeout", handler.name);
                problems.warning(&draft.place, &key, message, consumer_timeout::REMEDY);
            }
        }
    }
}

/// Warns of handlers whose hosts have no room for a task of the largest size that is let through to them.
pub(super) fn warn_of_memory(drafts: &[Draft], max_task_bytes: u64, problems: &mut Problems) {
    let needs = bounds::memory_for(max_task_bytes);
    for draft in drafts {
        let memory = draft.handler.limits.bounds.memory;
        if memory > 0 && memory < needs {
            let key = format!("handlers.{}.memory", draft.handler.name);
            let message = format!(
                "is {}, and a host needs {} to read a task of daemon.max_task_bytes, {}: larger ones fail as a crash",
                format_size(memory),
                format_size(needs),
                format_size(max_task_bytes)
            );
            problems.warning(&draft.place, &key, message, "raise memory, or lower daemon.max_task_bytes");
        }
    }
}

fn read_one(name: &str, node: &Node, problems: &mut Problems) -> Draft {
    let path = format!("handlers.{name}");
    check_name(name, &path, &node.place, problems);
    let mut table = TableReader::open(Some(node), &path, keys::HANDLER, problems);
    let plugin = plugin(&mut table).unwrap_or_else(|| name.to_owned());
    let (prefixes, prefix_places) = unzip(prefixes(&mut table));
    let (queues, queue_places) = unzip(queue_names(&mut table));
    let limits = limits(&mut table);
    let settings_json = settings(table.node("settings"), &path, table.problems);
    let handler = Handler {
        name: name.into(),
        plugin,
        prefixes,
        queues,
        limits,
        settings_json,
        origin: node.place.origin(),
    };
    Draft { handler, place: node.place.clone(), prefixes: prefix_places, queues: queue_places }
}

fn check_name(name: &str, path: &str, place: &Place, problems: &mut Problems) {
    if let Some(why) = bad_name(name) {
        problems.error(place, path, format!("the handler's name {why}"), NAME_FORM);
    }
}

const NAME_FORM: &str = "use letters, digits, - and _, at most 64";

/// What keeps `name` from being the name of a handler or a plugin.
fn bad_name(name: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name {
        "" => Some("is empty"),
        _ if name.contains(['/', '\\']) => Some("has a path separator in it"),
        _ if name.starts_with('.') => Some("begins with a dot"),
        _ if !name.chars().all(allowed) => Some("has a character that is not allowed in it"),
        _ if name.len() > MAX_NAME => Some("is too long"),
        _ => None,
    }
}

fn plugin(table: &mut TableReader) -> Option<String> {
    let (name, node) = table.text("plugin", "the plugin's name as text")?;
    if let Some(why) = bad_name(name) {
        let remedy = format!("{NAME_FORM}; it is the name the plugin states, not its file");
        table.error(&node.place, "plugin", format!("the plugin's name {why}"), remedy);
        return None;
    }
    Some(name.to_owned())
}

fn prefixes(table: &mut TableReader) -> Option<Vec<(String, Place)>> {
    let prefixes = table.texts("prefixes", "a list of text, such as [\"Backup database\"]")?;
    if prefixes.is_empty() {
        let place = table.node("prefixes")?.place.clone();
        let remedy = "name at least one, or leave the key out for the plugin's own prefixes";
        table.error(&place, "prefixes", "is an empty list", remedy);
    }
    for (i, (prefix, place)) in prefixes.iter().enumerate() {
        let fault = match prefix.as_str() {
            "" => Some("a prefix is empty"),
            p if p.chars().any(char::is_control) => Some("a prefix has a control character in it"),
            p if p.trim() != p => Some("a prefix begins or ends with a space, which no task does"),
            p if p.len() > MAX_PREFIX => Some("a prefix is longer than 255 bytes"),
            p if split_label(p.as_bytes()).len() < p.len() => {
                Some("a prefix begins with a label such as \"Task 1:\", which is taken off first")
            }
            p if prefixes[..i].iter().any(|(earlier, _)| earlier == p) => Some("a prefix is named twice"),
            _ => None,
        };
        if let Some(fault) = fault {
            let remedy = "write the words a task begins with, such as \"Backup database\"";
            table.error(place, "prefixes", format!("{fault}: {prefix:?}"), remedy);
        }
    }
    Some(prefixes)
}

fn queue_names(table: &mut TableReader) -> Option<Vec<(String, Place)>> {
    let queues = table.texts("queues", "a list of queue names")?;
    if queues.is_empty() {
        let place = table.node("queues")?.place.clone();
        table.error(
            &place,
            "queues",
            "is an empty list",
            "name a queue, or leave the key out for all queues",
        );
    }
    Some(queues)
}

fn limits(table: &mut TableReader) -> Limits {
    let default = Limits::default();
    let second = Duration::from_secs(1);
    Limits {
        workers: table.integer("workers", 1..=65_535),
        weight: table.integer("weight", 1..=1000).unwrap_or(default.weight),
        fair_by: task_key::read(table, "fair_by"),
        exclusive_by: task_key::read(table, "exclusive_by"),
        rate: rate::read(table),
        timeout: table.duration("timeout", Duration::from_millis(1)..=MAX_DURATION),
        grace: table.duration("grace", Duration::ZERO..=second * 3600).unwrap_or(default.grace),
        retry: retry(table),
        max_tasks: table.integer("max_tasks", 0..=i64::MAX).unwrap_or(default.max_tasks),
        max_rss: table.size("max_rss", 0..=1 << 50).unwrap_or(default.max_rss),
        idle_timeout: table.duration("idle_timeout", second..=MAX_DURATION).unwrap_or(default.idle_timeout),
        max_output: table.size("max_output", 0..=16 << 20).unwrap_or(default.max_output),
        max_output_lines: table
            .integer("max_output_lines", 0..=1_000_000)
            .unwrap_or(default.max_output_lines),
        breaker: breaker(table),
        bounds: bounds::read(table),
    }
}

fn breaker(table: &mut TableReader) -> Option<Breaker> {
    let path = table.dotted("breaker");
    let node = table.node("breaker")?;
    let mut table = TableReader::open(Some(node), &path, keys::BREAKER, table.problems);
    let default = Breaker::default();
    let second = Duration::from_secs(1);
    Some(Breaker {
        rate: table.decimal("rate", 0.01..=1.0).unwrap_or(default.rate),
        window: table.duration("window", second..=second * 86_400).unwrap_or(default.window),
        tasks: table.integer("tasks", 1..=1_000_000).unwrap_or(default.tasks),
        rest: table.duration("rest", second..=second * 86_400).unwrap_or(default.rest),
    })
}

fn retry(table: &mut TableReader) -> Retry {
    let default = Retry::default();
    let path = table.dotted("retry");
    let Some(node) = table.node("retry") else { return default };
    let mut table = TableReader::open(Some(node), &path, keys::RETRY, table.problems);
    let delays = Duration::ZERO..=MAX_RETRY_DELAY;
    let delay = table.duration("delay", delays.clone());
    let max_delay = table.duration("max_delay", delays);
    if let (Some(delay), Some(max)) = (delay, max_delay)
        && delay > max
    {
        table.error(&node.place, "delay", "is longer than max_delay", "raise max_delay or lower delay");
    }
    let delay = delay.unwrap_or(default.delay);
    Retry {
        attempts: table.integer("attempts", 1..=10_000).unwrap_or(default.attempts),
        delay,
        factor: table.decimal("factor", 1.0..=100.0).unwrap_or(default.factor),
        // A delay stated above the default bound means that delay, not the bound.
        max_delay: max_delay.unwrap_or(default.max_delay.max(delay)),
        jitter: table.decimal("jitter", 0.0..=1.0).unwrap_or(default.jitter),
    }
}

/// The settings as JSON text of an object; dates and times become text.
fn settings(node: Option<&Node>, path: &str, problems: &mut Problems) -> String {
    let path = format!("{path}.settings");
    let table = node.and_then(|node| as_table(node, &path, problems));
    let object = table.map(|table| object(table, &path, problems)).unwrap_or_default();
    serde_json::Value::Object(object).to_string()
}

fn object(table: &Table, path: &str, problems: &mut Problems) -> serde_json::Map<String, serde_json::Value> {
    let entry = |(key, node): (&String, &Node)| (key.clone(), json(node, &format!("{path}.{key}"), problems));
    table.iter().map(entry).collect()
}

fn json(node: &Node, path: &str, problems: &mut Problems) -> serde_json::Value {
    let number = match &node.value {
        Value::Text(text) | Value::Untyped(text) | Value::Datetime(text) => return text.as_str().into(),
        Value::Boolean(value) => return (*value).into(),
        Value::List(list) => return list.iter().map(|node| json(node, path, problems)).collect(),
        Value::Table(table) => return object(table, path, problems).into(),
        Value::Integer(number) => number.map(serde_json::Number::from),
        Value::Float(number) => serde_json::Number::from_f64(*number),
    };
    number.map_or_else(
        || {
            problems.error(
                &node.place,
                path,
                "is a number that JSON cannot hold",
                "write a finite 64-bit number",
            );
            serde_json::Value::Null
        },
        serde_json::Value::Number,
    )
}

fn unknown_queues(draft: &Draft, queues: &[Queue], problems: &mut Problems) {
    let names = draft.handler.queues.iter().flatten();
    for (name, place) in names.zip(&draft.queues) {
        if queues.iter().any(|q| *q.name == **name) {
            continue;
        }
        let near = did_you_mean(name, queues.iter().map(|q| &*q.name));
        let hint = near.map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
        let key = format!("handlers.{}.queues", draft.handler.name);
        let remedy = format!("name a configured queue, or add [queues.{name:?}]");
        problems.error(place, &key, format!("there is no queue {name:?}{hint}"), remedy);
    }
}

fn shared_prefixes(earlier: &Draft, later: &Draft, problems: &mut Problems) {
    let (one, two) = (&earlier.handler, &later.handler);
    let key = format!("handlers.{}.prefixes", two.name);
    let remedy = "give each handler prefixes of its own, or narrow them to different queues with `queues`";
    match (&one.prefixes, &two.prefixes) {
        (Some(taken), Some(wanted)) => {
            for (prefix, place) in wanted.iter().zip(&later.prefixes).filter(|(p, _)| taken.contains(p)) {
                let message =
                    format!("{prefix:?} is taken by [handlers.{}] already ({})", one.name, one.origin);
                problems.error(place, &key, message, remedy);
            }
        }
        (None, None) if one.plugin == two.plugin => {
            let message = format!(
                "[handlers.{}] ({}) takes the own prefixes of plugin {:?} already",
                one.name, one.origin, one.plugin
            );
            problems.error(&later.place, &key, message, remedy);
        }
        _ => {}
    }
}

fn takes_from(handler: &Handler, queue: &str) -> bool {
    handler.queues.as_ref().is_none_or(|queues| queues.iter().any(|q| q == queue))
}

fn share_a_queue(one: &Handler, two: &Handler) -> bool {
    match (&one.queues, &two.queues) {
        (Some(one), Some(two)) => one.iter().any(|q| two.contains(q)),
        _ => true,
    }
}

fn unzip(texts: Option<Vec<(String, Place)>>) -> (Option<Vec<String>>, Vec<Place>) {
    texts.map_or((None, Vec::new()), |texts| {
        let (texts, places) = texts.into_iter().unzip();
        (Some(texts), places)
    })
}
