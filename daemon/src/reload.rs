//! Config + plugins → a new registry. Everything that can fail happens here, before anything is swapped: a handler
//! that cannot be started leaves what it would have replaced running, and says so.

mod wanted;

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::blocking;
use crate::config::Config;
use crate::host::{Spawner, probe};
use crate::model::status::{HandlerChange, ReloadRow};
use crate::plugin::{DiscoverError, discover, target_conflicts};
use crate::registry::{Absent, Generation, PrefixSource, Registry, Slot};
use crate::router::{Conflict, RouteEntry, Router};

use self::wanted::{PluginsOnDisk, Wanted, wanted};

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
        blocking::run("discover", move || discover(&dirs)).await.map_err(DiscoverError::NotLooked)??;
    let had_plugins = current.iter().any(|slot| slot.active().is_some());
    if found.is_empty() && had_plugins {
        return Err(DiscoverError::SuddenlyEmpty { dirs: config.plugins.dirs.clone() });
    }
    let found = PluginsOnDisk::new(found, current);
    for conflict in target_conflicts(&config.handlers, &found.manifests()) {
        tracing::warn!(handler = %conflict.handler, "{conflict}");
    }
    let mut rows = Vec::new();
    let wanted = wanted(config, &found, current, &mut rows);
    let probes: Vec<_> = wanted
        .into_iter()
        .map(|wanted| {
            *numbers += 1;
            realize(wanted, *numbers, current, spawner, config)
        })
        .collect();
    let mut slots = Vec::new();
    for (slot, row) in stream::iter(probes).buffered(PROBES).collect::<Vec<_>>().await {
        rows.push(row);
        slots.extend(slot);
    }
    rows.extend(removed(current, &slots));
    let (router, conflicts) = Router::build(entries(&slots, current));
    report_conflicts(&conflicts, &slots, &mut rows);
    let (claims, _) = Router::build(untrusted_entries(&slots));
    rows.sort_by(|a, b| a.handler.cmp(&b.handler));
    Ok(Plan { registry: Registry { slots, router, claims }, rows })
}

/// Handlers that are probed at once: each probe is a process, and has some descriptors open.
const PROBES: usize = 64;

/// The code with which a plugin refuses its settings; the SDK uses it for those that it cannot read.
const BAD_SETTINGS: &str = "bad-settings";

/// What follows for tasks from not knowing a handler's prefixes.
const UNKNOWN: &str = "its prefixes are not known, so tasks that no handler takes are parked; state `prefixes` in its \
                       [handlers.*] table, or mend the file and reload";

/// Turns a wanted handler into a slot: unchanged, probed and new, the old one kept, or absent.
async fn realize(
    wanted: Wanted,
    number: u64,
    current: &[Slot],
    spawner: &Spawner,
    config: &Config,
) -> (Option<Slot>, ReloadRow) {
    let Wanted { handler, plugin, source, .. } = wanted;
    let old = current.iter().filter_map(Slot::active).find(|old| old.handler == handler.name).cloned();
    let row = |change: HandlerChange, generation: u64, error: Option<String>| ReloadRow {
        handler: handler.name.to_string(),
        change,
        generation,
        error,
    };
    let why = match plugin {
        Err(why) => why,
        Ok(_) if handler.prefixes.is_empty() => {
            // A plugin without prefixes of its own (`exec`) waits for a [handlers.*] table that gives it some.
            return (None, row(HandlerChange::Unused, 0, None));
        }
        Ok(plugin) => {
            let new = Generation::new(number, &handler, plugin);
            if let Some(old) = old.as_ref().filter(|old| old.serves(&new)) {
                return (Some(Slot::Active(old.clone())), row(HandlerChange::Unchanged, old.number, None));
            }
            match probe(&new.host_spec(config.plugins.probe_timeout), spawner).await {
                Ok(()) => {
                    let change = if old.is_some() { HandlerChange::Replaced } else { HandlerChange::Added };
                    return (Some(Slot::Active(Arc::new(new))), row(change, number, None));
                }
                Err(error) if handler.origin.is_none() && old.is_none() && error.code == BAD_SETTINGS => {
                    tracing::info!(plugin = %handler.plugin, error = %error.message,
                        "plugin not used: it needs settings, which a [handlers.*] table gives");
                    return (None, row(HandlerChange::Unused, 0, None));
                }
                Err(error) => format!("{}: {}", error.code, error.message),
            }
        }
    };
    if let Some(old) = old {
        let kept = row(HandlerChange::Kept, old.number, Some(why));
        return (Some(Slot::Active(old)), kept);
    }
    let why = match source {
        PrefixSource::Unknown(_) => format!("{why}; {UNKNOWN}"),
        _ => why,
    };
    let refused = row(HandlerChange::Refused, 0, Some(why.clone()));
    let absent = Absent {
        handler: handler.name,
        plugin: handler.plugin,
        prefixes: handler.prefixes,
        source,
        queues: handler.queues,
        why,
    };
    (Some(Slot::Absent(Arc::new(absent))), refused)
}

fn removed(current: &[Slot], slots: &[Slot]) -> Vec<ReloadRow> {
    current
        .iter()
        .filter(|old| !slots.iter().any(|new| new.handler() == old.handler()))
        .map(|old| ReloadRow {
            handler: old.handler().to_string(),
            change: HandlerChange::Removed,
            generation: 0,
            error: None,
        })
        .collect()
}

/// The claims to prefixes. Who has one now is its incumbent. What a file says that cannot be loaded never takes anything
/// from a handler that runs.
fn entries(slots: &[Slot], current: &[Slot]) -> Vec<RouteEntry> {
    let holds = |handler: &str, prefix: &Arc<str>| {
        let counts = |slot: &&Slot| !is_from(slot, PrefixSource::Untrusted);
        current
            .iter()
            .filter(counts)
            .any(|slot| &**slot.handler() == handler && slot.prefixes().contains(prefix))
    };
    let runs = |slot: &Slot, prefix: &Arc<str>| {
        let same = |other: &&Slot| other.active().is_some() && share_a_queue(slot, other);
        slots.iter().filter(same).any(|other| other.prefixes().contains(prefix))
    };
    let mut entries = Vec::new();
    for (index, slot) in slots.iter().enumerate() {
        if is_from(slot, PrefixSource::Untrusted) {
            continue;
        }
        let yields = is_from(slot, PrefixSource::Manifest);
        for prefix in slot.prefixes().iter().filter(|prefix| !(yields && runs(slot, prefix))) {
            entries.push(RouteEntry {
                prefix: prefix.clone(),
                handler: index,
                queues: slot.queues().map(<[String]>::to_vec),
                incumbent: holds(slot.handler(), prefix),
            });
        }
    }
    entries
}

/// What files claim that others may have written. Two that claim the same both want the task to be parked.
fn untrusted_entries(slots: &[Slot]) -> Vec<RouteEntry> {
    let claims = slots.iter().enumerate().filter(|(_, slot)| is_from(slot, PrefixSource::Untrusted));
    let entry = |(handler, slot): (usize, &Slot)| {
        let queues = slot.queues().map(<[String]>::to_vec);
        let entry = move |prefix: &Arc<str>| RouteEntry {
            prefix: prefix.clone(),
            handler,
            queues: queues.clone(),
            incumbent: true,
        };
        slot.prefixes().iter().map(entry).collect::<Vec<_>>()
    };
    claims.flat_map(entry).collect()
}

fn is_from(slot: &Slot, source: PrefixSource) -> bool {
    slot.absent().is_some_and(|absent| absent.source == source)
}

fn share_a_queue(one: &Slot, other: &Slot) -> bool {
    match (one.queues(), other.queues()) {
        (Some(one), Some(other)) => one.iter().any(|queue| other.contains(queue)),
        _ => true,
    }
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
