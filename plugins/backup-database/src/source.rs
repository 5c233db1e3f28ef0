//! Which database a backup is of: a digest that every name of a backup carries, so that retention removes only what is
//! certainly its own.
//!
//! It is made of the machine, the configured path and the name template. The path is taken as it is written: two paths
//! to one file make two sets of backups, which costs room; one path whose link is moved on with each release stays one
//! set. Whatever changes the digest leaves the earlier backups where they are.

use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Hexadecimal digits of a digest in a name: enough that two databases of one directory do not meet by chance.
pub(crate) const DIGITS: usize = 10;

/// The digest of one handler's backups.
pub(crate) fn digest(host: &str, database: &Path, template: &str) -> String {
    // Without doubled slashes and dots, which say nothing.
    let path: PathBuf = database.components().collect();
    let mut hash = Sha256::new();
    for part in [host.as_bytes(), path.as_os_str().as_bytes(), template.as_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let hex = hash.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    hex[..DIGITS].to_owned()
}

/// This machine, as far as it can be told from others: its id and its name. A cloned machine often keeps the id, and
/// containers of one image share it.
pub(crate) fn this_host() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    format!("{} {}", read("/etc/machine-id"), read("/proc/sys/kernel/hostname"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_machines_paths_and_templates_apart_and_stays_the_same() {
        let of = |host: &str, path: &str, template: &str| digest(host, Path::new(path), template);
        let one = of("a", "/shop/app.db", "{database}-{time}.db");
        // Pinned: with another value the plugin would lose track of every backup that exists.
        assert_eq!(one, "e21500acca");
        assert_eq!(of("a", "/shop//./app.db", "{database}-{time}.db"), one);
        for other in [
            of("b", "/shop/app.db", "{database}-{time}.db"),
            of("a", "/crm/app.db", "{database}-{time}.db"),
            of("a", "/shop/app.db", "app-{time}.db"),
            of("a/", "shop/app.db", "{database}-{time}.db"),
        ] {
            assert_ne!(other, one);
            assert_eq!(other.len(), DIGITS);
        }
    }
}
