//! Where things are: the configuration, the queue, and the control socket, which is found without a whole configuration.
//!
//! `status` must work for a user who may not read the broker's credentials, and while the file is being edited.

use std::path::{Path, PathBuf};

use warren::config::{Config, ConfigErrors, Environment, Queue};
use warren::control::client::Client;

use crate::Global;
use crate::exit::{Code, VerbError};
use crate::output::note;

/// The configuration when `--config` names none.
pub(crate) const CONFIG: &str = "/etc/warren/warren.toml";

/// A client for the daemon that the command line means.
pub(crate) fn client(global: &Global) -> Client {
    Client::new(socket(global))
}

/// The whole configuration, as the daemon would read it; warnings go to stderr.
pub(crate) fn config(global: &Global) -> Result<Config, VerbError> {
    let loaded = Config::load(&config_file(global), &Environment::of_process())
        .map_err(|errors| bad_config(&errors))?;
    for warning in &loaded.warnings {
        note(&format!("warning: {warning}"));
    }
    Ok(loaded.config)
}

/// The queue that the command line means: one of the configured ones, and the only one where none is named.
pub(crate) fn queue(config: &Config, name: Option<&str>) -> Result<Queue, VerbError> {
    let names = || config.queues.iter().map(|queue| &*queue.name).collect::<Vec<_>>().join(", ");
    match (name, &*config.queues) {
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(VerbError::text(
            Code::Usage,
            format!("several queues are configured: --queue one of {}", names()),
        )),
        (Some(name), queues) => queues.iter().find(|queue| &*queue.name == name).cloned().ok_or_else(|| {
            let text = format!("no queue `{name}` is configured; there is {}", names());
            VerbError::text(Code::Usage, text)
        }),
    }
}

/// The failure that a configuration's errors are.
pub(crate) fn bad_config(errors: &ConfigErrors) -> VerbError {
    let head = match errors.0.len() {
        1 => "the configuration has an error".to_owned(),
        count => format!("the configuration has {count} errors"),
    };
    VerbError::text(Code::Config, format!("{head}\n{errors}"))
}

/// The configuration file that the command line means.
pub(crate) fn config_file(global: &Global) -> PathBuf {
    let instance = global.instance.as_ref();
    instance
        .map_or_else(|| global.config.clone(), |name| Path::new("/etc/warren").join(name).join("warren.toml"))
}

fn socket(global: &Global) -> PathBuf {
    let mut environment = Environment::of_process();
    if let Some(name) = &global.instance {
        // As systemd tells the daemon: the default of `daemon.socket` is in there.
        environment.set("RUNTIME_DIRECTORY", format!("/run/warren-{name}"));
    }
    global.socket.clone().unwrap_or_else(|| Config::socket(&config_file(global), &environment))
}
