//! A directory of one daemon's own: configuration, plugins, control socket, record of what ran.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{artefacts, wait};

/// The directory, gone when this is dropped. The daemon in it consumes one queue.
#[derive(Debug)]
pub struct Home {
    directory: TempDir,
    uris: Vec<String>,
    queue: String,
}

/// What stands in the configuration beside what every test needs: the keys of each table, as TOML.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keys<'a> {
    /// Further keys of `[broker]`.
    pub broker: &'a str,
    /// Keys of the queue.
    pub queue: &'a str,
    /// Further keys of `[daemon]`.
    pub daemon: &'a str,
    /// Further keys of `[plugins]`.
    pub plugins: &'a str,
    /// Further tables.
    pub rest: &'a str,
}

/// One line of the record that the scenario fixtures write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `start` or `end`.
    pub what: String,
    /// The task's id.
    pub id: String,
    /// The attempt.
    pub attempt: u32,
    /// The version of the plugin that ran it.
    pub version: u32,
}

impl Home {
    /// For a daemon that consumes `queue` of the broker at `uri`; no plugin is installed yet.
    pub fn new(uri: &str, queue: &str) -> Self {
        Self::with_uris(&[uri.to_owned()], queue)
    }

    /// As [`Home::new`], for a broker with several addresses.
    pub fn with_uris(uris: &[String], queue: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("warren-home-").tempdir().expect("a directory");
        fs::create_dir(directory.path().join("plugins")).expect("a directory");
        let home = Self { directory, uris: uris.to_owned(), queue: queue.to_owned() };
        home.configure(Keys::default());
        home
    }

    /// Writes the configuration anew.
    pub fn configure(&self, keys: Keys<'_>) {
        let text = format!(
            "[broker]\nuris = {:?}\n{}\n[queues.{}]\n{}\n[plugins]\ndir = \"{}\"\n{}\n[daemon]\nsocket = \"{}\"\n{}\n\
             [log]\ntarget = \"stderr\"\nlevel = \"info,task=debug\"\n{}\n",
            self.uris,
            keys.broker,
            self.queue,
            keys.queue,
            self.plugins().display(),
            keys.plugins,
            self.socket().display(),
            keys.daemon,
            keys.rest
        );
        self.write_config(&text);
    }

    /// Writes the configuration file as it is given, sense or not.
    pub fn write_config(&self, text: &str) {
        fs::write(self.config(), text).expect("write");
    }

    /// A `[handlers.NAME]` of the scenario fixture `plugin` that records what it runs, with further keys.
    pub fn scenario(&self, name: &str, plugin: &str, keys: &str) -> String {
        let mut table = format!("[handlers.{name}]\nplugin = \"{plugin}\"\ngrace = \"300ms\"\n{keys}\n");
        let record = self.path("record");
        writeln!(table, "[handlers.{name}.settings]\nrecord = \"{}\"", record.display()).expect("a String");
        table
    }

    /// Installs a plugin of the workspace, shipped or fixture, under the file name `NAME.so`.
    pub fn install(&self, name: &str) -> PathBuf {
        let bytes = fs::read(artefacts::plugin(name)).expect("read");
        self.install_bytes(name, &bytes)
    }

    /// Installs bytes as the plugin file `NAME.so`: a new file, renamed into place.
    pub fn install_bytes(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.plugins().join(format!("{name}.so"));
        let partial = path.with_extension("partial");
        fs::write(&partial, bytes).expect("write");
        // Whatever the umask: a file that others may write is refused.
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o644)).expect("mode");
        fs::rename(&partial, &path).expect("rename");
        path
    }

    /// Compiles and installs `tests/fixtures/c/SOURCE` as `NAME.so`.
    pub fn install_c(&self, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
        let path = self.plugins().join(format!("{name}.so"));
        artefacts::compile_c(source, arguments, &path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
        path
    }

    /// What the scenario fixtures ran so far, in order.
    pub fn record(&self) -> Vec<Run> {
        let text = fs::read_to_string(self.path("record")).unwrap_or_default();
        text.lines().map(parse_run).collect()
    }

    /// Waits until the record says that task `id` has started (`start`) or ended (`end`) `times` times.
    pub fn wait_run(&self, what: &str, id: &str, times: usize) -> Vec<Run> {
        wait::until(&format!("{what} of {id}, {times} times"), || {
            let runs: Vec<Run> =
                self.record().into_iter().filter(|run| run.what == what && run.id == id).collect();
            (runs.len() >= times).then_some(runs)
        })
    }

    /// Waits until the record has `count` ends, of any tasks.
    pub fn wait_ends(&self, count: usize) -> Vec<Run> {
        wait::until(&format!("{count} ended tasks"), || {
            let runs: Vec<Run> = self.record().into_iter().filter(|run| run.what == "end").collect();
            (runs.len() >= count).then_some(runs)
        })
    }

    /// Lets tasks go on that hold for the file `name`.
    pub fn release(&self, name: &str) {
        fs::write(self.path(name), "").expect("write");
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("warren.toml")
    }

    /// The plugins directory.
    pub fn plugins(&self) -> PathBuf {
        self.path("plugins")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    /// The queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Where its dead letters go.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.queue)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

fn parse_run(line: &str) -> Run {
    let words: Vec<&str> = line.split(' ').collect();
    let [what, id, attempt, version] = words[..] else { panic!("a line of the record: {line:?}") };
    Run {
        what: what.to_owned(),
        id: id.to_owned(),
        attempt: attempt.parse().expect("attempt"),
        version: version.parse().expect("version"),
    }
}
