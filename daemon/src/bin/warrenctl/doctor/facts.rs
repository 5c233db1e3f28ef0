//! What the checks examine. Gathered in `gather`, made up by the tests.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use warren::broker::survey::{Address, Survey};
use warren::config::{ConfigErrors, Loaded};
use warren::control::client::ClientError;
use warren::model::status::Status;
use warren::plugin::Manifest;

/// The user that the daemon runs as, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) name: String,
    pub(super) user: u32,
    pub(super) groups: Vec<u32>,
}

/// A file or directory.
#[derive(Debug, Clone)]
pub(super) struct FileFact {
    pub(super) path: PathBuf,
    pub(super) stat: Result<Stat, String>,
}

/// Who owns it and who may do what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stat {
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
}

impl Stat {
    /// Whether a user may, where `bits` is 4 for reading, 2 for writing, 1 for entering.
    pub(super) fn allows(self, who: &Who, bits: u32) -> bool {
        let shift = if who.user == self.user {
            6
        } else if who.groups.contains(&self.group) {
            3
        } else {
            0
        };
        who.user == 0 || self.mode >> shift & bits == bits
    }

    /// The permission bits as `chmod` takes them.
    pub(super) fn octal(self) -> String {
        format!("{:03o}", self.mode & 0o7777)
    }
}

/// What a file of the configuration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// TOML, with something in it that looks like a secret, or without.
    Config { has_secret: bool },
    /// The broker's URIs.
    Uris,
    /// The private key of the client certificate.
    Key,
}

/// The plugins directories and what is in them.
#[derive(Debug, Default)]
pub(super) struct PluginDirectories {
    pub(super) directories: Vec<FileFact>,
    /// Why nothing can be said of the plugins.
    pub(super) fault: Option<String>,
    pub(super) plugins: Vec<PluginFact>,
}

impl PluginDirectories {
    /// What the good ones of the plugins say of themselves.
    pub(super) fn manifests(&self) -> Vec<&Manifest> {
        self.plugins.iter().filter_map(|plugin| plugin.manifest.as_ref().ok()).collect()
    }
}

/// One file `*.so`.
#[derive(Debug)]
pub(super) struct PluginFact {
    pub(super) file: FileFact,
    pub(super) manifest: Result<Manifest, PluginRefusal>,
}

/// Why a file is no plugin.
#[derive(Debug)]
pub(super) struct PluginRefusal {
    pub(super) why: String,
    /// It is only that this user, neither root nor the one who asks, owns it.
    pub(super) owner: Option<u32>,
}

#[derive(Debug)]
pub(super) struct BrokerFacts {
    pub(super) addresses: Vec<Address>,
    /// What was learned there; `None`: nobody answered. An error: it stopped to answer.
    pub(super) survey: Option<Result<Survey, String>>,
}

/// The running daemon.
#[derive(Debug)]
pub(super) struct DaemonFacts {
    pub(super) socket: FileFact,
    pub(super) status: Result<Status, ClientError>,
    /// Its unit, or the one that would start it, where systemd runs and knows it.
    pub(super) unit: Option<Unit>,
    /// Of its process.
    pub(super) limits: Option<ProcessLimits>,
}

/// What systemd says of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) user: String,
    pub(super) kind: String,
    pub(super) notify_access: String,
    pub(super) kill_mode: String,
    /// `None`: without end.
    pub(super) timeout_stop: Option<Duration>,
}

/// Soft limits of a process; `None`: unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProcessLimits {
    pub(super) files: Option<u64>,
    pub(super) processes: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct MachineFacts {
    pub(super) now: SystemTime,
    /// When `warrenctl` was built or installed, and files of the configuration changed: all of it is in the past.
    pub(super) past: Vec<(PathBuf, SystemTime)>,
    pub(super) clock: Clock,
    pub(super) state_dir: Option<Result<Space, String>>,
    /// Bytes that the daemon may have: the machine's, or the bound of its cgroup.
    pub(super) memory: Option<u64>,
}

/// Whether somebody keeps the clock right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// systemd-timesyncd did.
    Synchronized,
    /// It runs and has not yet.
    NotYet,
    /// chrony or ntpd runs.
    Another,
    /// No sign of any.
    Nobody,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes that the daemon's user may still write.
    pub(super) free: u64,
    pub(super) size: u64,
    /// Files that it may still make; `None`: not counted there.
    pub(super) files: Option<u64>,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) config_file: PathBuf,
    pub(super) config: Result<Loaded, ConfigErrors>,
    pub(super) files: Vec<(Role, FileFact)>,
    pub(super) who: Who,
    pub(super) plugin_dirs: Option<PluginDirectories>,
    pub(super) broker: Option<BrokerFacts>,
    pub(super) daemon: DaemonFacts,
    pub(super) machine: MachineFacts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_looked_at_as_the_kernel_does() {
        let who = Who { name: "warren".into(), user: 7, groups: vec![8, 9] };
        let table = [
            (0o400, 7, 1, 4, true),
            // An owner whose bits are clear may not, whatever the others may.
            (0o077, 7, 1, 4, false),
            (0o040, 1, 9, 4, true),
            (0o004, 1, 9, 4, false),
            (0o004, 1, 1, 4, true),
            (0o750, 1, 8, 5, true),
            (0o740, 1, 8, 5, false),
        ];
        for (mode, user, group, bits, allowed) in table {
            let stat = Stat { mode, user, group };
            assert_eq!(stat.allows(&who, bits), allowed, "{mode:o} {user} {group}");
        }
        let root = Who { user: 0, ..who };
        assert!(Stat { mode: 0, user: 7, group: 7 }.allows(&root, 4));
    }
}
