//! Collects facts from daemon, broker, systemd and files; read-only. What cannot be known is left out rather than guessed.

mod files;
mod system;

use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, getgrouplist};
use warren::broker::survey::{addresses, survey};
use warren::config::{Config, Environment};
use warren::model::status::Status;
use warren::plugin::{SnapshotError, discover};

use super::facts::{
    BrokerFacts, DaemonFacts, Facts, PluginDirectories, PluginFact, PluginRefusal, Unit, Who,
};
use crate::exit::{Code, VerbError};
use crate::{Global, place};

/// What the broker shows as the connection's name.
const CLIENT: &str = "warrenctl doctor";

/// Everything that the checks examine.
pub(super) fn facts(global: &Global) -> Result<Facts, VerbError> {
    let config_file = place::config_file(global);
    let config = Config::load(&config_file, &Environment::of_process());
    let client = place::client(global);
    let status = client.status();
    let pid = status.as_ref().ok().map(|status| status.pid);
    // A unit is not asked for a configuration that is not the installed one, unless it runs the daemon that answers.
    let is_installed = global.config == Path::new(place::CONFIG);
    let instance = global.instance.as_ref();
    let installed =
        || instance.map_or("warrend.service".to_owned(), |name| format!("warrend@{name}.service"));
    let unit = system::unit(pid, is_installed.then(installed));
    let who = who(status.as_ref().ok(), unit.as_ref());
    let loaded = config.as_ref().ok().map(|loaded| &loaded.config);
    let broker = loaded.map(broker).transpose()?;
    Ok(Facts {
        files: files::configuration(&config_file, loaded),
        plugin_dirs: loaded.map(plugin_dirs),
        broker,
        machine: system::machine(&config_file, loaded, pid),
        daemon: DaemonFacts {
            socket: files::file(client.path()),
            limits: pid.and_then(system::limits),
            status,
            unit,
        },
        who,
        config,
        config_file,
    })
}

fn broker(config: &Config) -> Result<BrokerFacts, VerbError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| VerbError::new(Code::Software, e))?;
    let facts = runtime.block_on(async {
        let addresses = addresses(&config.broker, CLIENT).await;
        let survey = if addresses.iter().any(|address| address.answer.is_ok()) {
            Some(survey(&config.broker, &config.queues, CLIENT).await.map_err(|error| error.to_string()))
        } else {
            None
        };
        BrokerFacts { addresses, survey }
    });
    // lapin's thread of a connection that does not answer must not keep the program from ending.
    runtime.shutdown_background();
    Ok(facts)
}

fn plugin_dirs(config: &Config) -> PluginDirectories {
    let directories = config.plugins.dirs.iter().map(|path| files::file(path)).collect();
    let found = match discover(&config.plugins.dirs) {
        Ok(found) => found,
        Err(error) => {
            return PluginDirectories { directories, fault: Some(error.to_string()), plugins: Vec::new() };
        }
    };
    let plugins = found.into_iter().map(|found| match found {
        Ok(snapshot) => PluginFact { file: files::file(&snapshot.path), manifest: Ok(snapshot.manifest) },
        Err(refused) => PluginFact {
            file: files::file(&refused.path),
            manifest: Err(PluginRefusal {
                owner: match refused.error {
                    SnapshotError::Owner { owner } => Some(owner),
                    _ => None,
                },
                why: refused.error.to_string(),
            }),
        },
    });
    PluginDirectories { directories, fault: None, plugins: plugins.collect() }
}

/// The user of the running daemon, else of the unit, else whoever asks.
fn who(status: Option<&Status>, unit: Option<&Unit>) -> Who {
    let running = status.and_then(|status| system::credentials(status.pid));
    let named = || {
        let user = User::from_name(&unit?.user).ok()??;
        Some((user.uid.as_raw(), user.gid.as_raw()))
    };
    let (user, groups) = running.unwrap_or_else(|| {
        let (user, group) = named().unwrap_or_else(|| (Uid::effective().as_raw(), Gid::effective().as_raw()));
        (user, groups(user, group))
    });
    let name = User::from_uid(Uid::from_raw(user)).ok().flatten().map(|user| user.name);
    Who { name: name.unwrap_or_else(|| user.to_string()), user, groups }
}

fn groups(user: u32, group: u32) -> Vec<u32> {
    let listed = || {
        let name = User::from_uid(Uid::from_raw(user)).ok()??.name;
        getgrouplist(&std::ffi::CString::new(name).ok()?, Gid::from_raw(group)).ok()
    };
    listed().map_or_else(|| vec![group], |groups| groups.into_iter().map(Gid::as_raw).collect())
}

/// The files of the configuration, or the one that was to be read.
fn files_of(config_file: &Path, config: Option<&Config>) -> Vec<PathBuf> {
    config.map_or_else(|| vec![config_file.to_owned()], |config| config.files.clone())
}
