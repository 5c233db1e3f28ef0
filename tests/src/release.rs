//! Which RabbitMQ the private nodes run: the installed one, or that of another release, which `scripts/brokers` puts
//! into a directory tree. `WARREN_TEST_BROKER` names the tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The environment variable that names the tree.
const VARIABLE: &str = "WARREN_TEST_BROKER";
/// Where a node of a tree sees its own directory.
const INSIDE: &str = "/mnt";
/// Below the root of either.
const LIBRARY: &str = "usr/lib/rabbitmq/lib";

/// Makes the tree `$1` the root, with the machine's `/proc` and `/dev` in it and the directory `$2` at [`INSIDE`]. The
/// mounts are in a mount namespace of the process's own: nobody else sees them, and they go with it.
const ENTER: &str = r#"
set -e
mount --rbind /proc "$1/proc"
mount --rbind /dev "$1/dev"
mount --bind "$2" "$1/mnt"
tree=$1
shift 2
exec chroot "$tree" "$@"
"#;

/// RabbitMQ's programs.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    /// The tree; none: the installed RabbitMQ.
    tree: Option<PathBuf>,
    /// The directory of the server's scripts, as they see it themselves.
    scripts: PathBuf,
}

impl Release {
    /// As the environment says.
    pub(crate) fn chosen() -> Result<Self> {
        let Some(tree) = std::env::var_os(VARIABLE).filter(|tree| !tree.is_empty()).map(PathBuf::from) else {
            let scripts = server_scripts(Path::new("/")).context(
                "RabbitMQ is not installed; run `make setup`, or: apt-get install rabbitmq-server",
            )?;
            return Ok(Self { tree: None, scripts });
        };
        ensure!(tree.is_absolute(), "{VARIABLE}={}: give an absolute path", tree.display());
        let scripts = server_scripts(&tree).with_context(|| {
            format!("{VARIABLE}={}: no RabbitMQ there; scripts/brokers makes one", tree.display())
        })?;
        Ok(Self { tree: Some(tree), scripts })
    }

    /// Major and minor version, from the name of the server's directory: `rabbitmq_server-4.0.5`.
    pub(crate) fn version(&self) -> Option<(u32, u32)> {
        let directory = self.scripts.parent()?.file_name()?.to_str()?;
        let mut parts = directory.rsplit_once('-')?.1.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    }

    /// The path under which the programs see `directory`.
    pub(crate) fn inside(&self, directory: &Path) -> PathBuf {
        if self.tree.is_some() { PathBuf::from(INSIDE) } else { directory.to_owned() }
    }

    /// The path of a server script, as the programs see it.
    pub(crate) fn script(&self, name: &str) -> String {
        self.scripts.join(name).display().to_string()
    }

    /// What stands before a program and its arguments, so that it sees `directory` at [`Release::inside`]. The process
    /// stays the one that was started: nothing here forks.
    pub(crate) fn enter(&self, directory: &Path) -> Vec<String> {
        let Some(tree) = &self.tree else { return Vec::new() };
        let mut words = vec!["unshare", "--mount"];
        if !rustix::process::geteuid().is_root() {
            words.push("--map-root-user");
        }
        words.extend(["sh", "-c", ENTER, "enter"]);
        let paths = [tree.display().to_string(), directory.display().to_string()];
        words.into_iter().map(str::to_owned).chain(paths).collect()
    }

    /// A program, ready to be given arguments and an environment.
    pub(crate) fn command(&self, directory: &Path, program: &str) -> Command {
        let mut words = self.enter(directory);
        words.push(program.to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }
}

/// Debian's wrapper in /usr/sbin insists on root or the rabbitmq user; the scripts it calls do not.
fn server_scripts(root: &Path) -> Result<PathBuf> {
    let library = root.join(LIBRARY);
    let entries = fs::read_dir(&library).with_context(|| library.display().to_string())?;
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| library.join(name).join("sbin/rabbitmq-server").exists())
        .max()
        .map(|name| Path::new("/").join(LIBRARY).join(name).join("sbin"))
        .with_context(|| format!("{}: no server", library.display()))
}
