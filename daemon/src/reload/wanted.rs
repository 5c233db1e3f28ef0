//! The handlers that the configuration and the plugins on disk ask for, and what is known of those whose file cannot be
//! loaded.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Config, Limits};
use crate::model::status::{HandlerChange, ReloadRow};
use crate::plugin::{Discovered, Manifest, Refused, Snapshot, WantedHandler, texts, wanted_handlers};
use crate::registry::{Generation, PrefixSource, Slot};

/// The plugins on disk: good snapshots, and files that are none.
pub(super) struct PluginsOnDisk {
    good: Vec<Arc<Snapshot>>,
    bad: Vec<Refused>,
}

impl PluginsOnDisk {
    /// Snapshots whose bytes are held already are replaced by the held ones, so that equal bytes are one memfd.
    pub(super) fn new(found: Vec<Discovered>, current: &[Slot]) -> Self {
        let held = |new: &Snapshot| {
            let mut held = current.iter().filter_map(Slot::active).map(|old| &old.plugin);
            held.find(|old| old.sha256 == new.sha256 && old.path == new.path).cloned()
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

/// A handler that is asked for, and its plugin.
pub(super) struct Wanted {
    pub(super) handler: WantedHandler,
    /// The plugin, or why there is none.
    pub(super) plugin: Result<Arc<Snapshot>, String>,
    /// Where its prefixes are known from.
    pub(super) source: PrefixSource,
    /// The file that is missed.
    missed: Option<PathBuf>,
}

/// All handlers that are asked for: the configured ones, every plugin that none of them names, and what is known of
/// those whose file is refused.
pub(super) fn wanted(
    config: &Config,
    found: &PluginsOnDisk,
    current: &[Slot],
    rows: &mut Vec<ReloadRow>,
) -> Vec<Wanted> {
    let asked = wanted_handlers(&config.handlers, &found.manifests());
    let mut wanted: Vec<Wanted> =
        asked.into_iter().map(|handler| with_plugin(handler, found, current)).collect();
    for file in found.files() {
        if wanted.iter().any(|other| other.missed.as_ref() == Some(&file.path)) {
            continue;
        }
        let affected = current.iter().filter_map(Slot::active).find(|old| old.plugin.path == file.path);
        let is_free = |name: &str| {
            found.named(name).is_none() && !wanted.iter().any(|other| &*other.handler.name == name)
        };
        let next = match affected {
            Some(old) if is_free(&old.handler) => Some(kept(old, file)),
            Some(_) => continue,
            None => refused(file, current).filter(|next| {
                let is_named = config.handlers.iter().any(|handler| handler.plugin == next.handler.plugin);
                !is_named && is_free(&next.handler.name)
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
    let handler = WantedHandler {
        name: old.handler.clone(),
        prefixes: old.prefixes.clone(),
        queues: old.queues.clone(),
        settings_json: old.settings_json.clone(),
        limits: old.limits.clone(),
        timeout: old.timeout,
        is_missing: true,
        ..WantedHandler::implicit(&old.plugin.manifest)
    };
    refused_file(handler, file, PrefixSource::Stated)
}

fn refused_file(handler: WantedHandler, file: &Refused, source: PrefixSource) -> Wanted {
    Wanted { handler, plugin: Err(described(file)), source, missed: Some(file.path.clone()) }
}

/// The handler that a refused plugin file stands for, if no table names the plugin. `None`: the file claims no prefixes, or
/// has no readable claim and cannot be a truncated plugin.
fn refused(file: &Refused, current: &[Slot]) -> Option<Wanted> {
    let stem = file.path.file_stem().and_then(OsStr::to_str);
    let name = match &file.claim {
        Some(claim) if claim.prefixes.is_empty() => return None,
        Some(claim) => claim.name.as_str(),
        None => stem.filter(|_| file.may_be_half())?,
    };
    let (prefixes, source) = known(name, Some(file), current);
    let handler = WantedHandler {
        name: Arc::from(name),
        plugin: name.to_owned(),
        origin: None,
        is_missing: true,
        prefixes,
        queues: None,
        settings_json: Arc::from("{}"),
        limits: Limits::default(),
        timeout: Limits::DEFAULT_TIMEOUT,
    };
    Some(refused_file(handler, file, source))
}

/// What is known of the prefixes of a handler whose plugin cannot be loaded and whose table states none: what its file
/// says, else what was known before.
fn known(handler: &str, file: Option<&Refused>, current: &[Slot]) -> (Vec<Arc<str>>, PrefixSource) {
    if let Some(file) = file
        && let Some(claim) = &file.claim
    {
        let source = if file.is_trusted() { PrefixSource::Manifest } else { PrefixSource::Untrusted };
        return (texts(&claim.prefixes), source);
    }
    let before = current.iter().filter_map(Slot::absent).find(|old| &*old.handler == handler);
    match before.map(|old| (old.prefixes.clone(), old.source)) {
        Some((_, PrefixSource::Stated)) | None => (Vec::new(), PrefixSource::Unknown(Instant::now())),
        Some(before) => before,
    }
}

fn with_plugin(mut handler: WantedHandler, found: &PluginsOnDisk, current: &[Slot]) -> Wanted {
    if let Some(snapshot) = found.named(&handler.plugin) {
        return Wanted { handler, plugin: Ok(snapshot.clone()), source: PrefixSource::Stated, missed: None };
    }
    let file = found.refused(&handler.plugin);
    // A file that broke since it was loaded explains more than that the plugin is not there.
    let mut loaded = current.iter().filter_map(Slot::active).map(|old| &old.plugin);
    let broken = loaded.find_map(|old| {
        let is_it = old.manifest.name == handler.plugin;
        is_it.then(|| found.files().find(|file| file.path == old.path)).flatten()
    });
    let mut source = PrefixSource::Stated;
    if handler.prefixes.is_empty() {
        (handler.prefixes, source) = known(&handler.name, file, current);
    }
    Wanted {
        plugin: Err(broken.or(file).map_or_else(|| missing(&handler, found), described)),
        missed: file.map(|file| file.path.clone()),
        handler,
        source,
    }
}

/// A refused file for an operator.
fn described(file: &Refused) -> String {
    format!("{}: {}", file.path.display(), file.error)
}

fn missing(handler: &WantedHandler, found: &PluginsOnDisk) -> String {
    let names: Vec<&str> = found.good.iter().map(|snapshot| snapshot.manifest.name.as_str()).collect();
    let there =
        if names.is_empty() { "there is none".to_owned() } else { format!("there are {}", names.join(", ")) };
    let bad: Vec<String> = found.files().map(|file| format!("; {}", described(file))).collect();
    format!(
        "{}: no plugin `{}` in the plugins directories ({there}{}); put its .so there or correct the name",
        handler.origin.as_deref().unwrap_or_default(),
        handler.plugin,
        bad.concat()
    )
}
