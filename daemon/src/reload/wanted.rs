//! The handlers that the configuration and the plugins on disk ask for, and what is known of those whose file cannot be
//! loaded.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, Config, Limits};
use crate::model::status::{HandlerChange, ReloadRow};
use crate::plugin::{Found as Discovered, Manifest, Refused, Snapshot};
use crate::registry::{Generation, Slot, Source};

/// The plugins on disk: good snapshots, and files that are none.
pub(super) struct Found {
    good: Vec<Arc<Snapshot>>,
    bad: Vec<Refused>,
}

impl Found {
    /// Snapshots whose bytes are held already are replaced by the held ones, so that equal bytes are one memfd.
    pub(super) fn new(found: Vec<Discovered>, current: &[Slot]) -> Self {
        let held = |new: &Snapshot| {
            current.iter().find_map(|slot| match slot {
                Slot::Active(old) if old.plugin.sha256 == new.sha256 && old.plugin.path == new.path => {
                    Some(old.plugin.clone())
                }
                _ => None,
            })
        };
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for one in found {
            match one {
                Ok(snapshot) => good.push(held(&snapshot).unwrap_or_else(|| Arc::new(snapshot))),
                Err(file) => bad.push(*file),
            }
        }
        Self { good, bad }
    }

    /// What the good ones say of themselves.
    pub(super) fn manifests(&self) -> Vec<&Manifest> {
        self.good.iter().map(|snapshot| &snapshot.manifest).collect()
    }

    fn named(&self, name: &str) -> Option<&Arc<Snapshot>> {
        self.good.iter().find(|snapshot| snapshot.manifest.name == name)
    }

    fn files(&self) -> impl Iterator<Item = &Refused> {
        self.bad.iter()
    }

    /// The refused file that says it is this plugin, or by its own name may be.
    fn refused(&self, name: &str) -> Option<&Refused> {
        let claims = |file: &&Refused| file.claim.as_ref().is_some_and(|claim| claim.name == name);
        let named =
            |file: &&Refused| file.claim.is_none() && file.path.file_stem().is_some_and(|stem| stem == name);
        self.files().find(claims).or_else(|| self.files().find(named))
    }
}

/// A handler as config and manifests ask for it.
pub(super) struct Wanted {
    pub(super) handler: Arc<str>,
    pub(super) plugin_name: String,
    pub(super) plugin: Result<Arc<Snapshot>, String>,
    pub(super) prefixes: Vec<Arc<str>>,
    /// Where those are known from.
    pub(super) source: Source,
    pub(super) queues: Option<Vec<String>>,
    pub(super) settings_json: Arc<str>,
    pub(super) limits: Limits,
    /// No `[handlers.*]` table names the plugin: it is a handler with its own defaults, if it can do without settings.
    pub(super) implicit: bool,
    /// The file that is missed.
    missed: Option<PathBuf>,
}

/// All handlers that are asked for: the configured ones, then every plugin that none of them names.
pub(super) fn wanted(
    config: &Config,
    found: &Found,
    current: &[Slot],
    rows: &mut Vec<ReloadRow>,
) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> =
        config.handlers.iter().map(|handler| configured(handler, found, current)).collect();
    for snapshot in &found.good {
        let name = &snapshot.manifest.name;
        if !config.handlers.iter().any(|handler| handler.plugin == *name) {
            wanted.push(implicit(snapshot));
        }
    }
    for file in found.files() {
        if wanted.iter().any(|other| other.missed.as_ref() == Some(&file.path)) {
            continue;
        }
        let affected = current.iter().find_map(|slot| match slot {
            Slot::Active(old) if old.plugin.path == file.path => Some(old),
            _ => None,
        });
        let is_free =
            |name: &str| found.named(name).is_none() && !wanted.iter().any(|other| &*other.handler == name);
        let next = match affected {
            Some(old) if is_free(&old.handler) => Some(kept(old, file)),
            Some(_) => continue,
            None => refused(file, current).filter(|next| {
                let is_named = config.handlers.iter().any(|handler| handler.plugin == next.plugin_name);
                !is_named && is_free(&next.handler)
            }),
        };
        match next {
            Some(next) => wanted.push(next),
            None => rows.push(ReloadRow {
                handler: file.path.display().to_string(),
                change: HandlerChange::Refused,
                generation: 0,
                error: Some(file.error.to_string()),
            }),
        }
    }
    wanted
}

/// What ran from a file that is refused now.
fn kept(old: &Generation, file: &Refused) -> Wanted {
    Wanted {
        handler: old.handler.clone(),
        plugin_name: old.plugin.manifest.name.clone(),
        plugin: Err(described(file)),
        missed: Some(file.path.clone()),
        prefixes: old.prefixes.clone(),
        source: Source::Stated,
        queues: old.queues.clone(),
        settings_json: old.settings_json.clone(),
        limits: old.limits.clone(),
        implicit: false,
    }
}

/// The handler that a refused file would be, when no table names it. `None`: it would be none, or says nothing of itself
/// and is no half of a plugin either.
fn refused(file: &Refused, current: &[Slot]) -> Option<Wanted> {
    let stem = file.path.file_stem().and_then(OsStr::to_str);
    let name = match &file.claim {
        Some(claim) if claim.prefixes.is_empty() => return None,
        Some(claim) => claim.name.as_str(),
        None => stem.filter(|_| file.may_be_half())?,
    };
    let (prefixes, source) = known(name, Some(file), current);
    Some(Wanted {
        handler: Arc::from(name),
        plugin_name: name.to_owned(),
        plugin: Err(described(file)),
        missed: Some(file.path.clone()),
        prefixes,
        source,
        queues: None,
        settings_json: Arc::from("{}"),
        limits: Limits::default(),
        implicit: true,
    })
}

/// What is known of the prefixes of a handler whose plugin cannot be loaded and whose table states none: what its file
/// says, else what was known before.
fn known(handler: &str, file: Option<&Refused>, current: &[Slot]) -> (Vec<Arc<str>>, Source) {
    if let Some(file) = file
        && let Some(claim) = &file.claim
    {
        let source = if file.is_trusted() { Source::Manifest } else { Source::Hearsay };
        return (texts(&claim.prefixes), source);
    }
    let before = current.iter().find_map(|slot| match slot {
        Slot::Absent(old) if &*old.handler == handler => Some((old.prefixes.clone(), old.source)),
        _ => None,
    });
    match before {
        Some((_, Source::Stated)) | None => (Vec::new(), Source::Unknown(Instant::now())),
        Some(before) => before,
    }
}

fn texts(prefixes: &[String]) -> Vec<Arc<str>> {
    prefixes.iter().map(|prefix| Arc::from(prefix.as_str())).collect()
}

fn configured(handler: &config::Handler, found: &Found, current: &[Slot]) -> Wanted {
    let file = found.refused(&handler.plugin);
    let plugin = found.named(&handler.plugin).cloned().ok_or_else(|| {
        // A file that broke since it was loaded explains more than that the plugin is not there.
        let broken = current.iter().find_map(|slot| match slot {
            Slot::Active(old) if old.plugin.manifest.name == handler.plugin => {
                found.files().find(|file| file.path == old.plugin.path)
            }
            _ => None,
        });
        broken.or(file).map_or_else(|| missing(handler, found), described)
    });
    let (prefixes, source) = match (&handler.prefixes, &plugin) {
        (Some(stated), _) => (texts(stated), Source::Stated),
        (None, Ok(snapshot)) => (texts(&snapshot.manifest.prefixes), Source::Stated),
        (None, Err(_)) => known(&handler.name, file, current),
    };
    Wanted {
        handler: handler.name.clone(),
        plugin_name: handler.plugin.clone(),
        prefixes,
        source,
        queues: handler.queues.clone(),
        settings_json: Arc::from(handler.settings_json.as_str()),
        limits: handler.limits.clone(),
        missed: plugin.is_err().then(|| file.map(|file| file.path.clone())).flatten(),
        plugin,
        implicit: false,
    }
}

/// A refused file for an operator.
fn described(file: &Refused) -> String {
    format!("{}: {}", file.path.display(), file.error)
}

fn missing(handler: &config::Handler, found: &Found) -> String {
    let names: Vec<&str> = found.good.iter().map(|snapshot| snapshot.manifest.name.as_str()).collect();
    let there =
        if names.is_empty() { "there is none".to_owned() } else { format!("there are {}", names.join(", ")) };
    let bad: Vec<String> = found.files().map(|file| format!("; {}", described(file))).collect();
    format!(
        "{}: no plugin `{}` in the plugins directories ({there}{}); put its .so there or correct the name",
        handler.origin,
        handler.plugin,
        bad.concat()
    )
}

fn implicit(snapshot: &Arc<Snapshot>) -> Wanted {
    let manifest = &snapshot.manifest;
    Wanted {
        handler: Arc::from(manifest.name.as_str()),
        plugin_name: manifest.name.clone(),
        plugin: Ok(snapshot.clone()),
        missed: None,
        prefixes: texts(&manifest.prefixes),
        source: Source::Stated,
        queues: None,
        settings_json: Arc::from("{}"),
        limits: Limits::default(),
        implicit: true,
    }
}
