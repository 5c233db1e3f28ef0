//! Files and environment → one validated [`Config`]. Everything is read and checked before anything is
//! reported, so that an operator sees every error at once.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::MAX_DEDUPLICATE;
use crate::model::queue_name::{dead_name, work_queue_of};
use crate::text;

use super::diagnostic::{ConfigErrors, Diagnostic, Place, Problems};
use super::reader::{TableReader, as_table};
use super::tree::{self, Node, Table};
use super::{
    Config, Daemon, Environment, Log, LogTarget, MAX_FILE_BYTES, Plugins, Queue, QueueType, SocketMode,
    broker, handlers, keys, overrides,
};

/// AMQP names are at most 255 bytes; this leaves room for `.retry.<ms>` and `.dead`.
const MAX_QUEUE_NAME: usize = 230;
/// One channel each; RabbitMQ's default bound is 2047 channels a connection.
const MAX_QUEUES: usize = 1000;
/// What `sockaddr_un` holds.
const MAX_SOCKET_PATH: usize = 107;

/// A configuration that can be used, and what is doubtful about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// To be logged; nothing in them keeps Warren from working.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// Where the configuration is when no `--config` says otherwise.
    pub fn default_path() -> &'static Path {
        Path::new("/etc/warren/warren.toml")
    }

    /// Reads `path`, then `conf.d/*.toml` beside it in name order, then the `WARREN_…` variables of
    /// `environment`; later ones win, key by key. Also uses `CREDENTIALS_DIRECTORY` and `RUNTIME_DIRECTORY`.
    ///
    /// # Errors
    /// Every fault of every file at once. No credential is in any of them.
    pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, ConfigErrors> {
        let mut problems = Problems::default();
        let mut files = vec![path.to_owned()];
        files.extend(drop_ins(path, &mut problems));
        let mut tree = Table::new();
        for file in &files {
            match read_text(file) {
                Ok(text) => tree::merge(&mut tree, tree::parse(file, &text, &mut problems)),
                Err((at, why, remedy)) => problems.error(&at, "", why, remedy),
            }
        }
        // What a file that could not be read would have said is not held against the others.
        let complete = problems.is_empty();
        let overrides = overrides::read(environment, &tree, &mut problems);
        tree::merge(&mut tree, overrides);
        let config = validate(&tree, environment, files.clone(), complete, &mut problems);
        problems.finish(&files).map(|warnings| Loaded { config, warnings })
    }

    /// Where [`Config::load`] would have the control socket, as far as can be said: what cannot be read or is
    /// wrong is passed over. For whoever must find the daemon while its configuration is being edited, or may not
    /// read all of it.
    pub fn socket(path: &Path, environment: &Environment) -> PathBuf {
        let mut passed_over = Problems::default();
        let mut tree = Table::new();
        for file in std::iter::once(path.to_owned()).chain(drop_ins(path, &mut passed_over)) {
            if let Ok(text) = read_text(&file) {
                tree::merge(&mut tree, tree::parse(&file, &text, &mut passed_over));
            }
        }
        let overrides = overrides::read(environment, &tree, &mut passed_over);
        tree::merge(&mut tree, overrides);
        daemon(&tree, environment, &mut passed_over).socket
    }
}

/// `conf.d/*.toml` beside the file, in name order. Names that begin with a dot are editors' own.
fn drop_ins(path: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new("")).join("conf.d");
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&directory)? {
            let name = entry?.file_name();
            let name = Path::new(&name);
            let hidden = name.as_os_str().as_encoded_bytes().starts_with(b".");
            if !hidden && name.extension().is_some_and(|e| e == "toml") {
                files.push(directory.join(name));
            }
        }
        files.sort();
        Ok(files)
    };
    list().unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            let remedy = "make it a directory that warrend's user may read, or remove it";
            problems.error(&Place::file(&directory), "", format!("cannot read: {error}"), remedy);
        }
        Vec::new()
    })
}

fn read_text(file: &Path) -> Result<String, (Place, String, &'static str)> {
    let bytes = match text::read_bounded(file, MAX_FILE_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            return Err((Place::file(file), "is over 4 MiB".to_owned(), "split it, or name the right file"));
        }
        Err(error) => {
            let remedy = "name a file that warrend's user may read (--config FILE)";
            return Err((Place::file(file), format!("cannot read: {error}"), remedy));
        }
    };
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|b| *b == b'\n').count();
        let place = Place::File { path: file.into(), line, column: 0 };
        (place, "is not UTF-8".to_owned(), "save the file as UTF-8 text")
    })
}

fn validate(
    tree: &Table,
    environment: &Environment,
    files: Vec<PathBuf>,
    complete: bool,
    problems: &mut Problems,
) -> Config {
    let root = Node { place: Place::file(&files[0]), value: tree::Value::Table(tree.clone()) };
    TableReader::open(Some(&root), "", keys::TOP, problems);
    let broker = broker::read(tree, environment, problems);
    let queues = queues(tree, &root.place, complete, problems);
    let drafts = handlers::read(tree, problems);
    handlers::cross_check(&drafts, complete.then_some(&queues), problems);
    handlers::warn_of_consumer_timeout(&drafts, &queues, broker.consumer_timeout, problems);
    let daemon = daemon(tree, environment, problems);
    handlers::warn_of_memory(&drafts, daemon.max_task_bytes, problems);
    Config {
        files,
        broker,
        queues,
        plugins: plugins(tree, problems),
        handlers: drafts.into_iter().map(|draft| draft.handler).collect(),
        daemon,
        log: log(tree, problems),
    }
}

fn queues(tree: &Table, whole: &Place, complete: bool, problems: &mut Problems) -> Vec<Queue> {
    let node = tree.get("queues");
    let tables = node.and_then(|node| as_table(node, "queues", problems));
    let count = tables.map_or(0, Table::len);
    if count > MAX_QUEUES || (count == 0 && complete) {
        let place = node.map_or(whole, |node| &node.place);
        let message = if count == 0 { "no queue is configured" } else { "more than 1000 queues" };
        problems.error(place, "queues", message, "add a table such as [queues.task_queue], at most 1000");
    }
    let named: Vec<&str> = tables.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    for (name, node) in tables.into_iter().flatten() {
        check_owner(name, node, &named, problems);
    }
    tables.into_iter().flatten().map(|(name, node)| queue(name, node, problems)).collect()
}

/// A consumer of a delay queue would take each task before its time. Dead letters may be consumed as tasks, but hardly by
/// mistake.
fn check_owner(name: &str, node: &Node, named: &[&str], problems: &mut Problems) {
    let Some(owner) = work_queue_of(name) else { return };
    let path = format!("queues.{name}");
    if name != dead_name(owner) {
        let message =
            format!("is the name of a delay queue of {owner:?}: its tasks would run before their time");
        problems.error(&node.place, &path, message, format!("configure {owner:?}, or another name"));
    } else if named.contains(&owner) {
        let message = format!("has the dead letters of {owner:?}, and they are run as tasks");
        let remedy = "leave it to `warrenctl dead`, unless that is what is wanted";
        problems.warning(&node.place, &path, message, remedy);
    }
}

fn queue(name: &str, node: &Node, problems: &mut Problems) -> Queue {
    const TYPES: [(&str, QueueType); 2] = [("classic", QueueType::Classic), ("quorum", QueueType::Quorum)];
    let path = format!("queues.{name}");
    let fault = match name {
        "" => Some("the queue's name is empty"),
        _ if name.chars().any(char::is_control) => Some("the queue's name has a control character in it"),
        _ if name.starts_with("amq.") => Some("names that begin with amq. belong to the broker"),
        _ if name.len() > MAX_QUEUE_NAME => Some("the queue's name is longer than 230 bytes"),
        _ => None,
    };
    if let Some(fault) = fault {
        problems.error(&node.place, &path, fault, "name the queue as the broker does");
    }
    let mut table = TableReader::open(Some(node), &path, keys::QUEUE, problems);
    let mut count = |key: &str, default: u16| table.integer(key, 1..=65_535).unwrap_or(default);
    let (prefetch, workers) = (count("prefetch", 1), count("workers", 4));
    let window = u32::from(prefetch) * u32::from(workers);
    if window > 65_535 {
        let message = format!("prefetch × workers is {window}; AMQP allows 65535 unacknowledged deliveries");
        table.error(&node.place, "prefetch", message, "lower prefetch or workers");
    }
    Queue {
        name: name.into(),
        prefetch,
        workers,
        queue_type: table.choice("type", &TYPES),
        delay_type: table.choice("delay_type", &TYPES),
        dead_type: table.choice("dead_type", &TYPES),
        deduplicate: table.duration("deduplicate", Duration::ZERO..=MAX_DEDUPLICATE).unwrap_or_default(),
    }
}

fn plugins(tree: &Table, problems: &mut Problems) -> Plugins {
    let mut table = TableReader::open(tree.get("plugins"), "plugins", keys::PLUGINS, problems);
    let default = Plugins::default();
    if let (Some(_), Some(dirs)) = (table.node("dir"), table.node("dirs")) {
        table.error(&dirs.place, "dirs", "dir is stated as well", "keep one of dir and dirs");
    }
    let dir = table.path("dir").map(|(path, _)| vec![path]);
    let dirs = table.texts("dirs", "a list of directories");
    if let (Some([]), Some(node)) = (dirs.as_deref(), table.node("dirs")) {
        table.error(&node.place, "dirs", "is an empty list", "name at least one directory");
    }
    for (text, place) in dirs.iter().flatten() {
        if text.is_empty() || text.contains('\0') {
            table.error(place, "dirs", "names a directory that is not a path", "write a path");
        }
    }
    let dirs =
        dirs.map(|dirs| dirs.iter().map(|(text, place)| super::reader::absolute(text, place)).collect());
    let timeouts = Duration::from_millis(10)..=Duration::from_secs(3600);
    Plugins {
        dirs: dir.or(dirs).unwrap_or(default.dirs),
        probe_timeout: table.duration("probe_timeout", timeouts).unwrap_or(default.probe_timeout),
        max_idle_hosts: table.integer("max_idle_hosts", 1..=65_535).unwrap_or(default.max_idle_hosts),
    }
}

fn daemon(tree: &Table, environment: &Environment, problems: &mut Problems) -> Daemon {
    const MODES: [(&str, SocketMode); 3] =
        [("0600", SocketMode::User), ("0660", SocketMode::Group), ("0666", SocketMode::Everybody)];
    let mut table = TableReader::open(tree.get("daemon"), "daemon", keys::DAEMON, problems);
    let default = Daemon::new(environment);
    let day = Duration::from_secs(24 * 3600);
    let socket = table.path("socket");
    if let Some((path, place)) = &socket
        && path.as_os_str().len() > MAX_SOCKET_PATH
    {
        table.error(
            place,
            "socket",
            "is longer than the 107 bytes a socket's path may have",
            "name a shorter path",
        );
    }
    Daemon {
        socket: socket.map_or(default.socket, |(path, _)| path),
        socket_mode: table.choice("socket_mode", &MODES).unwrap_or(default.socket_mode),
        monitor: monitor(&mut table),
        max_task_bytes: table.size("max_task_bytes", 1..=128 << 20).unwrap_or(default.max_task_bytes),
        drain_timeout: table.duration("drain_timeout", Duration::ZERO..=day).unwrap_or(default.drain_timeout),
        start_wait: table.duration("start_wait", Duration::ZERO..=day).unwrap_or(default.start_wait),
        require_broker: table.boolean("require_broker").unwrap_or(default.require_broker),
        state_dir: table.path("state_dir").map_or(default.state_dir, |(path, _)| path),
    }
}

/// What is served there is nobody's secret, but it has no login: it stays on this machine.
fn monitor(table: &mut TableReader) -> Option<SocketAddr> {
    let (text, node) = table.text("monitor", "a loopback address and a port, such as \"127.0.0.1:9464\"")?;
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback());
    if address.is_none() {
        let message = format!("{text:?} is not a loopback address with a port");
        let remedy =
            "write e.g. \"127.0.0.1:9464\" or \"[::1]:9464\"; a proxy can offer it to other machines";
        table.error(&node.place, "monitor", message, remedy);
    }
    address
}

fn log(tree: &Table, problems: &mut Problems) -> Log {
    const TARGETS: [(&str, LogTarget); 3] =
        [("auto", LogTarget::Auto), ("journald", LogTarget::Journald), ("stderr", LogTarget::Stderr)];
    let mut table = TableReader::open(tree.get("log"), "log", keys::LOG, problems);
    let default = Log::default();
    let target = table.choice("target", &TARGETS).unwrap_or(default.target);
    let level =
        table.text("level", "a level as text").map(|(text, node)| (text.to_owned(), node.place.clone()));
    if let Some((level, place)) = &level
        && let Err(message) = super::log_level::check_level(level)
    {
        let remedy =
            "write error, warn, info, debug, trace or off, and for single modules e.g. \"info,lapin=debug\"";
        table.error(place, "level", message, remedy);
    }
    Log { level: level.map_or(default.level, |(level, _)| level), target }
}
