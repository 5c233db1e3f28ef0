//! Owners and modes, and whether there is a secret in a file.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use warren::config::{Config, MAX_FILE_BYTES};
use warren::text::read_bounded;

use super::super::facts::{FileFact, Role, Stat};
use super::files_of;

/// What can be said of a file or directory.
pub(super) fn file(path: &Path) -> FileFact {
    let stat = std::fs::metadata(path)
        .map(|meta| Stat { mode: meta.mode(), user: meta.uid(), group: meta.gid() })
        .map_err(|error| format!("cannot look at it: {error}"));
    FileFact { path: path.to_owned(), stat }
}

/// The files that the configuration is made of, and those that it names.
pub(super) fn configuration(config_file: &Path, config: Option<&Config>) -> Vec<(Role, FileFact)> {
    let mut files: Vec<(Role, FileFact)> = files_of(config_file, config)
        .iter()
        .map(|path| (Role::Config { has_secret: has_secret(&text(path)) }, file(path)))
        .collect();
    let named = config.map(|config| &config.broker).into_iter().flat_map(|broker| {
        let uris = broker.uri_file.as_ref().map(|path| (Role::Uris, file(path)));
        let key = broker.client_cert.as_ref().map(|cert| (Role::Key, file(&cert.key_file)));
        [uris, key]
    });
    files.extend(named.flatten());
    files
}

fn text(path: &Path) -> String {
    // One that cannot be read or is too long is an error of the configuration, and stands there.
    let bytes = read_bounded(path, MAX_FILE_BYTES).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A URI with a password that not everybody knows, or a key that is named like one.
fn has_secret(text: &str) -> bool {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#')).any(|line| {
        has_password(line) || line.split_once('=').is_some_and(|(key, value)| is_secret(key, value))
    })
}

fn has_password(line: &str) -> bool {
    let userinfo = |rest: &str| {
        let word = rest.split(['"', '\'', ' ']).next()?;
        let (userinfo, _) = word.rsplit_once('@')?;
        userinfo.split_once(':').map(|(_, password)| !password.is_empty() && password != "guest")
    };
    line.split("://").skip(1).any(|rest| userinfo(rest) == Some(true))
}

fn is_secret(key: &str, value: &str) -> bool {
    const WORDS: [&str; 4] = ["password", "passwd", "secret", "token"];
    let (key, value) = (key.trim().to_lowercase(), value.trim());
    let names = WORDS.iter().any(|word| key.ends_with(word));
    names && value.len() > 2 && value.starts_with(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_seen_and_what_everybody_knows_is_none() {
        let table = [
            ("uri = \"amqp://guest:guest@127.0.0.1:5672/%2f\"", false),
            ("uri = \"amqp://warren:hunter2@broker/%2f\"", true),
            ("# uri = \"amqp://warren:hunter2@broker/%2f\"", false),
            ("uris = ['amqps://a:guest@b', 'amqps://a:x@b']", true),
            ("uri = \"amqps://broker/%2f\"", false),
            ("url = \"https://example.com/a:b\"", false),
            ("password = \"x\"", true),
            ("smtp_password = 'x'", true),
            ("password = \"\"", false),
            ("password_file = \"/run/secret\"", false),
            ("max_tokens = 9", false),
        ];
        for (line, expected) in table {
            assert_eq!(has_secret(&format!("[broker]\n{line}\n")), expected, "{line}");
        }
    }
}
