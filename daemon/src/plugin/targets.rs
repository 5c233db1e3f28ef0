//! Two handlers on one target: what each would replace or delete of the other. A plugin's settings are opaque to the
//! daemon, so its manifest names the ones that matter.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Manifest;
use crate::config::Handler;

/// Settings that name what a handler works on. Their values are text or lists of text; absolute paths are compared as
/// paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Targets {
    /// Two handlers of this plugin that agree in all of these settings are on one target.
    #[serde(default)]
    pub exclusive: Vec<String>,
    /// Directories in which old files are deleted, whosever they are.
    #[serde(default)]
    pub clears: Vec<String>,
    /// Directories in which the handler keeps what it makes.
    #[serde(default)]
    pub stores: Vec<String>,
}

/// Two handlers that are in each other's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetConflict {
    /// The handler to look at: the one that deletes, else the second of two alike.
    pub handler: String,
    /// Where its table stands, `file:line`.
    pub origin: String,
    /// What is the matter, with both names.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
}

impl std::fmt::Display for TargetConflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.origin, self.what, self.remedy)
    }
}

/// Every pair of configured handlers that are on one target, or of which one deletes what the other keeps.
pub fn target_conflicts(handlers: &[Handler], manifests: &[&Manifest]) -> Vec<TargetConflict> {
    let claims: Vec<TargetClaim<'_>> = handlers
        .iter()
        .filter_map(|handler| {
            let manifest = manifests.iter().find(|manifest| manifest.name == handler.plugin)?;
            let settings = serde_json::from_str(&handler.settings_json).unwrap_or_default();
            Some(TargetClaim { handler, targets: &manifest.targets, settings })
        })
        .collect();
    let mut conflicts = Vec::new();
    for (index, one) in claims.iter().enumerate() {
        for other in &claims[index + 1..] {
            conflicts.extend(one.shares_target(other).map(|what| other.conflict(what, APART)));
            for (clears, stores) in [(one, other), (other, one)] {
                conflicts.extend(clears.deletes_of(stores).map(|what| clears.conflict(what, MOVE)));
            }
        }
    }
    conflicts
}

const APART: &str = "give each a target of its own, or make them one handler with both prefixes";
const MOVE: &str = "move one of the two directories out of the other";

/// A configured handler, with what its plugin says of its settings.
struct TargetClaim<'a> {
    handler: &'a Handler,
    targets: &'a Targets,
    settings: Map<String, Value>,
}

impl TargetClaim<'_> {
    fn conflict(&self, what: String, remedy: &'static str) -> TargetConflict {
        let Handler { name, origin, .. } = self.handler;
        TargetConflict { handler: name.to_string(), origin: origin.clone(), what, remedy }
    }

    fn shares_target(&self, other: &Self) -> Option<String> {
        let keys = &self.targets.exclusive;
        let same_plugin = self.handler.plugin == other.handler.plugin;
        let agree = |key: &String| meet(self.settings.get(key), other.settings.get(key));
        (same_plugin && !keys.is_empty() && keys.iter().all(agree)).then(|| {
            format!(
                "the handlers `{}` and `{}` agree in {} of their settings: each replaces or removes what the other made",
                self.handler.name,
                other.handler.name,
                listed(keys)
            )
        })
    }

    /// A directory of the other's inside one that this handler clears. The same one for both is meant: whoever makes
    /// files without a limit has them cleaned so.
    fn deletes_of(&self, other: &Self) -> Option<String> {
        let stores = other.paths(&other.targets.stores);
        let (cleared, kept) = self.paths(&self.targets.clears).into_iter().find_map(|cleared| {
            let inside = stores.iter().find(|kept| **kept != cleared && kept.starts_with(&cleared))?;
            Some((cleared, inside.clone()))
        })?;
        Some(format!(
            "the handler `{}` deletes old files below {}, and `{}` keeps its files in {}",
            self.handler.name,
            cleared.display(),
            other.handler.name,
            kept.display()
        ))
    }

    fn paths(&self, keys: &[String]) -> Vec<PathBuf> {
        keys.iter()
            .flat_map(|key| texts(self.settings.get(key)))
            .filter(|text| text.starts_with('/'))
            .map(resolved)
            .collect()
    }
}

/// Whether two values of one setting are on one target: both are left to the default, or they have a text in common, or
/// a directory of one lies in the other's.
fn meet(one: Option<&Value>, other: Option<&Value>) -> bool {
    if one.is_none() && other.is_none() {
        return true;
    }
    let others: Vec<&str> = texts(other).collect();
    texts(one).any(|one| others.iter().any(|other| overlap(one, other)))
}

fn overlap(one: &str, other: &str) -> bool {
    if !(one.starts_with('/') && other.starts_with('/')) {
        return one == other;
    }
    let (one, other) = (resolved(one), resolved(other));
    one.starts_with(&other) || other.starts_with(&one)
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (text, list) = match value {
        Some(Value::String(text)) => (Some(text.as_str()), &[][..]),
        Some(Value::Array(list)) => (None, &list[..]),
        _ => (None, &[][..]),
    };
    text.into_iter().chain(list.iter().filter_map(Value::as_str))
}

/// The path without links, as far as it is there; else as it is written, without doubled slashes.
fn resolved(path: &str) -> PathBuf {
    let path = Path::new(path);
    path.canonicalize().unwrap_or_else(|_| path.components().collect())
}

/// `a`, `a and b`, `a, b and c`.
fn listed(keys: &[String]) -> String {
    match keys {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|key| format!("`{key}`")).collect();
            format!("{} and `{last}`", first.join(", "))
        }
    }
}
