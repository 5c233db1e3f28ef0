//! Where things are: the configuration, and the control socket, which is found without a whole configuration.
//!
//! `status` must work for a user who may not read the broker's credentials, and while the file is being edited.

use std::path::{Path, PathBuf};

use warren::config::{Config, ConfigErrors, Environment};
use warren::control::client::Client;

use crate::Global;
use crate::exit::{Code, Failure};
use crate::output::note;

/// The configuration when `--config` names none.
pub(crate) const CONFIG: &str = "/etc/warren/warren.toml";
/// The socket when nothing names one.
const SOCKET: &str = "/run/warren/control.sock";
/// The environment's word for `daemon.socket`.
const VARIABLE: &str = "WARREN_DAEMON__SOCKET";

/// A client for the daemon that the command line means.
pub(crate) fn client(global: &Global) -> Client {
    Client::new(socket(global))
}

/// The whole configuration, as the daemon would read it; warnings go to stderr.
pub(crate) fn config(global: &Global) -> Result<Config, Failure> {
    let loaded = Config::load(&global.config, &environment()).map_err(|errors| bad_config(&errors))?;
    for warning in &loaded.warnings {
        note(&format!("warning: {warning}"));
    }
    Ok(loaded.config)
}

/// The failure that a configuration's errors are.
pub(crate) fn bad_config(errors: &ConfigErrors) -> Failure {
    let head = match errors.0.len() {
        1 => "the configuration has an error".to_owned(),
        count => format!("the configuration has {count} errors"),
    };
    Failure::text(Code::Config, format!("{head}\n{errors}"))
}

/// The environment; what is not UTF-8 is none of ours.
pub(crate) fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn socket(global: &Global) -> PathBuf {
    global
        .socket
        .clone()
        .or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from))
        .or_else(|| configured(&global.config))
        .unwrap_or_else(|| PathBuf::from(SOCKET))
}

/// The last of `warren.toml` and `conf.d/*.toml` that sets `daemon.socket`; what cannot be read or parsed is
/// passed over, as `config check` is the verb that complains.
fn configured(config: &Path) -> Option<PathBuf> {
    let mut files = vec![config.to_owned()];
    let directory = config.parent()?.join("conf.d");
    let mut more: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    more.sort();
    files.append(&mut more);
    files.iter().rev().find_map(|file| socket_in(&std::fs::read_to_string(file).ok()?))
}

fn socket_in(text: &str) -> Option<PathBuf> {
    let table: toml::Table = text.parse().ok()?;
    Some(PathBuf::from(table.get("daemon")?.get("socket")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_file_that_names_a_socket_wins_and_broken_ones_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("warren.toml");
        assert_eq!(configured(&config), None);
        std::fs::write(&config, "[daemon]\nsocket = \"/a\"\n").unwrap();
        assert_eq!(configured(&config), Some("/a".into()));
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        std::fs::write(dir.path().join("conf.d/10.toml"), "[daemon]\nsocket = \"/b\"\n").unwrap();
        std::fs::write(dir.path().join("conf.d/20.toml"), "[daemon\n").unwrap();
        std::fs::write(dir.path().join("conf.d/30.txt"), "[daemon]\nsocket = \"/c\"\n").unwrap();
        assert_eq!(configured(&config), Some("/b".into()));
    }
}
