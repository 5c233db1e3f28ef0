//! Config + plugins → a new registry. Everything that can fail happens here, before anything is swapped: a handler
//! that cannot be started leaves what it would have replaced running, and says so.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::config::{self, Config, Limits};
use crate::control::api::ReloadRow;
use crate::host::{Spawner, probe};
use crate::plugin::{
    DiscoverError, Found as Discovered, Manifest, Snapshot, SnapshotError, discover, target_conflicts,
};
use crate::registry::{Absent, Generation, Registry, Slot};
use crate::router::{Conflict, Entry, Router};

/// What a reload would put in force, and how it compares.
#[derive(Debug)]
pub struct Plan {
    /// Ready to be swapped in.
    pub registry: Registry,
    /// One row per handler, old and new.
    pub rows: Vec<ReloadRow>,
}

impl Plan {
    /// Whether everything that was asked for is in it.
    pub fn ok(&self) -> bool {
        self.rows.iter().all(|row| row.error.is_none())
    }
}

/// Builds the registry that `config` and the plugins on disk ask for. `current` is what runs now; `numbers` is the
/// last generation number given out. Fails only when nothing may change at all: a plugins directory that cannot be
/// read, or that is empty all of a sudden (a lost mount looks like that).
pub async fn plan(
    config: &Config,
    current: &[Slot],
    numbers: &mut u64,
    spawner: &Spawner,
) -> Result<Plan, DiscoverError> {
    let dirs = config.plugins.dirs.clone();
    let found =
        tokio::task::spawn_blocking(move || discover(&dirs)).await.expect("discover does not panic")?;
    let had_plugins = current.iter().any(|slot| matches!(slot, Slot::Active(_)));
    if found.is_empty() && had_plugins {
        return Err(DiscoverError::SuddenlyEmpty { dirs: config.plugins.dirs.clone() });
    }
    let found = Found::new(found, current);
    let manifests: Vec<&Manifest> = found.good.iter().map(|snapshot| &snapshot.manifest).collect();
    for conflict in target_conflicts(&config.handlers, &manifests) {
        tracing::warn!(handler = %conflict.handler, "{conflict}");
    }
    let mut rows = Vec::new();
    let wanted = wanted(config, &found, current, &mut rows);
    let probes = wanted.into_iter().map(|wanted| {
        *numbers += 1;
        realize(wanted, *numbers, current, spawner, config)
    });
    let mut slots = Vec::new();
    for (slot, row) in join_all(probes.collect::<Vec<_>>()).await {
        rows.push(row);
        slots.extend(slot);
    }
    rows.extend(removed(current, &slots));
    let (router, conflicts) = Router::build(entries(&slots, current));
    report_conflicts(&conflicts, &slots, &mut rows);
    rows.sort_by(|a, b| a.handler.cmp(&b.handler));
    Ok(Plan { registry: Registry { slots, router }, rows })
}

/// The plugins on disk: good snapshots, and files that are none.
struct Found {
    good: Vec<Arc<Snapshot>>,
    bad: Vec<(PathBuf, SnapshotError)>,
}

impl Found {
    /// Snapshots whose bytes are held already are replaced by the held ones, so that equal bytes are one memfd.
    fn new(found: Vec<Discovered>, current: &[Slot]) -> Self {
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
                Err(error) => bad.push(error),
            }
        }
        Self { good, bad }
    }

    fn named(&self, name: &str) -> Option<&Arc<Snapshot>> {
        self.good.iter().find(|snapshot| snapshot.manifest.name == name)
    }
}

/// A handler as config and manifests ask for it.
struct Wanted {
    handler: Arc<str>,
    plugin_name: String,
    plugin: Result<Arc<Snapshot>, String>,
    prefixes: Vec<Arc<str>>,
    queues: Option<Vec<String>>,
    settings_json: Arc<str>,
    limits: Limits,
    /// No `[handlers.*]` table names the plugin: it is a handler with its own defaults, if it can do without settings.
    implicit: bool,
}

/// What a reload does with a plugin that nothing configures and that cannot do without: no handler, no error.
const UNUSED: &str = "unused";

/// The code with which a plugin refuses its settings; the SDK uses it for those that it cannot read.
const BAD_SETTINGS: &str = "bad-settings";

/// All handlers that are asked for: the configured ones, then every plugin that none of them names.
fn wanted(config: &Config, found: &Found, current: &[Slot], rows: &mut Vec<ReloadRow>) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> =
        config.handlers.iter().map(|handler| configured(handler, found, current)).collect();
    for snapshot in &found.good {
        let name = &snapshot.manifest.name;
        if !config.handlers.iter().any(|handler| handler.plugin == *name) {
            wanted.push(implicit(snapshot));
        }
    }
    for (path, error) in &found.bad {
        let affected = current.iter().find_map(|slot| match slot {
            Slot::Active(old) if old.plugin.path == *path => Some(old),
            _ => None,
        });
        let is_wanted = |name: &str| wanted.iter().any(|other| &*other.handler == name);
        match affected {
            Some(old) if !is_wanted(&old.handler) => wanted.push(Wanted {
                handler: old.handler.clone(),
                plugin_name: old.plugin.manifest.name.clone(),
                plugin: Err(error.to_string()),
                prefixes: old.prefixes.clone(),
                queues: old.queues.clone(),
                settings_json: old.settings_json.clone(),
                limits: old.limits.clone(),
                implicit: false,
            }),
            Some(_) => {}
            None => rows.push(ReloadRow {
                handler: path.display().to_string(),
                change: "refused".to_owned(),
                generation: 0,
                error: Some(error.to_string()),
            }),
        }
    }
    wanted
}

fn configured(handler: &config::Handler, found: &Found, current: &[Slot]) -> Wanted {
    let plugin = found.named(&handler.plugin).cloned().ok_or_else(|| {
        // A file that broke since it was loaded explains more than that the plugin is not there.
        let broken = current.iter().find_map(|slot| match slot {
            Slot::Active(old) if old.plugin.manifest.name == handler.plugin => found
                .bad
                .iter()
                .find(|(path, _)| *path == old.plugin.path)
                .map(|(_, error)| error.to_string()),
            _ => None,
        });
        broken.unwrap_or_else(|| missing(handler, found))
    });
    let own = plugin.as_ref().map_or(&[][..], |snapshot| &snapshot.manifest.prefixes);
    let prefixes = handler.prefixes.as_deref().unwrap_or(own);
    Wanted {
        handler: handler.name.clone(),
        plugin_name: handler.plugin.clone(),
        prefixes: prefixes.iter().map(|prefix| Arc::from(prefix.as_str())).collect(),
        queues: handler.queues.clone(),
        settings_json: Arc::from(handler.settings_json.as_str()),
        limits: handler.limits.clone(),
        plugin,
        implicit: false,
    }
}

fn missing(handler: &config::Handler, found: &Found) -> String {
    let names: Vec<&str> = found.good.iter().map(|snapshot| snapshot.manifest.name.as_str()).collect();
    let there =
        if names.is_empty() { "there is none".to_owned() } else { format!("there are {}", names.join(", ")) };
    let bad: Vec<String> = found.bad.iter().map(|(_, error)| format!("; {error}")).collect();
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
        prefixes: manifest.prefixes.iter().map(|prefix| Arc::from(prefix.as_str())).collect(),
        queues: None,
        settings_json: Arc::from("{}"),
        limits: Limits::default(),
        implicit: true,
    }
}

/// Turns a wanted handler into a slot: unchanged, probed and new, the old one kept, or absent.
async fn realize(
    wanted: Wanted,
    number: u64,
    current: &[Slot],
    spawner: &Spawner,
    config: &Config,
) -> (Option<Slot>, ReloadRow) {
    let old = current.iter().find_map(|slot| match slot {
        Slot::Active(old) if old.handler == wanted.handler => Some(old.clone()),
        _ => None,
    });
    let row = |change: &str, generation: u64, error: Option<String>| ReloadRow {
        handler: wanted.handler.to_string(),
        change: change.to_owned(),
        generation,
        error,
    };
    let why = match &wanted.plugin {
        Err(why) => why.clone(),
        Ok(_) if wanted.prefixes.is_empty() => {
            // A plugin without prefixes of its own (`exec`) waits for a [handlers.*] table that gives it some.
            return (None, row(UNUSED, 0, None));
        }
        Ok(plugin) => {
            let new = generation(&wanted, plugin, number);
            if let Some(old) = old.as_ref().filter(|old| old.serves(&new)) {
                return (Some(Slot::Active(old.clone())), row("unchanged", old.number, None));
            }
            match probe(&new.host_spec(config.plugins.probe_timeout), spawner).await {
                Ok(()) => {
                    let change = if old.is_some() { "replaced" } else { "added" };
                    return (Some(Slot::Active(Arc::new(new))), row(change, number, None));
                }
                Err(error) if wanted.implicit && old.is_none() && error.code == BAD_SETTINGS => {
                    tracing::info!(plugin = %wanted.plugin_name, error = %error.message,
                        "plugin not used: it needs settings, which a [handlers.*] table gives");
                    return (None, row(UNUSED, 0, None));
                }
                Err(error) => format!("{}: {}", error.code, error.message),
            }
        }
    };
    if let Some(old) = old {
        let kept = row("kept", old.number, Some(why));
        return (Some(Slot::Active(old)), kept);
    }
    let refused = row("refused", 0, Some(why.clone()));
    let absent = Absent {
        handler: wanted.handler.clone(),
        plugin: wanted.plugin_name.clone(),
        prefixes: wanted.prefixes.clone(),
        queues: wanted.queues.clone(),
        why,
    };
    (Some(Slot::Absent(Arc::new(absent))), refused)
}

fn generation(wanted: &Wanted, plugin: &Arc<Snapshot>, number: u64) -> Generation {
    let timeout = wanted.limits.timeout.or(plugin.manifest.timeout).unwrap_or(Limits::DEFAULT_TIMEOUT);
    Generation {
        number,
        handler: wanted.handler.clone(),
        prefixes: wanted.prefixes.clone(),
        queues: wanted.queues.clone(),
        plugin: plugin.clone(),
        settings_json: wanted.settings_json.clone(),
        limits: wanted.limits.clone(),
        timeout,
    }
}

fn removed(current: &[Slot], slots: &[Slot]) -> Vec<ReloadRow> {
    current
        .iter()
        .filter(|old| !slots.iter().any(|new| new.handler() == old.handler()))
        .map(|old| ReloadRow {
            handler: old.handler().to_string(),
            change: "removed".to_owned(),
            generation: 0,
            error: None,
        })
        .collect()
}

/// The claims to prefixes. Who has one now is its incumbent.
fn entries(slots: &[Slot], current: &[Slot]) -> Vec<Entry> {
    let holds = |handler: &str, prefix: &Arc<str>| {
        current.iter().any(|slot| &**slot.handler() == handler && slot.prefixes().contains(prefix))
    };
    let mut entries = Vec::new();
    for (index, slot) in slots.iter().enumerate() {
        for prefix in slot.prefixes() {
            entries.push(Entry {
                prefix: prefix.clone(),
                handler: index,
                queues: slot.queues().map(<[String]>::to_vec),
                incumbent: holds(slot.handler(), prefix),
            });
        }
    }
    entries
}

fn report_conflicts(conflicts: &[Conflict], slots: &[Slot], rows: &mut [ReloadRow]) {
    for conflict in conflicts {
        let message = conflict.message(|index| &**slots[index].handler());
        let refused = &**slots[conflict.handler].handler();
        if let Some(row) = rows.iter_mut().find(|row| row.handler == refused) {
            let before = row.error.take().map(|error| format!("{error}; ")).unwrap_or_default();
            row.error = Some(before + &message);
        }
    }
}
