//! A machine of a test's own: a real systemd in a throw-away box (`scripts/systemd-box`), with Warren installed in it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::artefacts;

/// A machine that is up. Dropping it removes it; so does the end of this process, however it ends.
#[derive(Debug)]
pub struct Machine {
    keeper: Child,
    pid: String,
}

/// What a machine is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Nothing: it has a loopback interface of its own, and all ports are free.
    Own,
    /// It shares this machine's, so that [`crate::Node`] and [`crate::Proxy`] are in reach.
    Shared,
}

impl Machine {
    /// Boots a machine on which Warren is installed: not configured, not enabled, not started.
    ///
    /// # Panics
    /// When it does not come up; without root for instance.
    pub fn start(network: Network) -> Self {
        let machine = Self::boot(if network == Network::Shared { &["--share-network"] } else { &[] });
        machine.install();
        machine.write("/etc/warren/warren.toml", "[queues.task_queue]\n");
        machine
    }

    /// Boots a minimal Debian with RabbitMQ and without Warren or anything else, in a network of its own.
    ///
    /// # Panics
    /// When it does not come up, or cannot be made.
    pub fn clean() -> Self {
        Self::boot(&["--root", artefacts::clean_tree().to_str().expect("a path that is text")])
    }

    fn boot(options: &[&str]) -> Self {
        let mut command = Command::new(systemd_box());
        command.arg("keep").args(options);
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("systemd-box");
        let mut pid = String::new();
        let stdout = keeper.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut pid).expect("a line");
        let machine = Self { keeper, pid: pid.trim().to_owned() };
        assert!(!machine.pid.is_empty(), "the box does not come up; it said why above");
        machine
    }

    /// Runs a command as root.
    pub fn run(&self, command: &[&str]) -> Output {
        let output = Command::new(systemd_box())
            .arg("exec")
            .arg(&self.pid)
            .args(command)
            .stdin(Stdio::null())
            .output()
            .expect("systemd-box");
        assert!(!output.stderr.starts_with(b"systemd-box:"), "{}", text(&output.stderr));
        output
    }

    /// Runs a command that has to succeed; gives its standard output.
    pub fn ok(&self, command: &[&str]) -> String {
        let output = self.run(command);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
        stdout
    }

    /// A path of the machine as this process finds it.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(&self.pid).join("root").join(path.trim_start_matches('/'))
    }

    /// Writes a file, with the directories to it. Like a shell's redirection, it keeps owner and mode of one that is
    /// there.
    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("create");
        fs::write(&path, contents).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// A file's text; `None` if there is none.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    /// Puts a plugin of the workspace into the plugins directory, renamed into place, as `NAME.so`.
    pub fn install_plugin(&self, name: &str, bytes: &[u8]) {
        let path = format!("/usr/lib/warren/plugins/{name}.so");
        let partial = format!("/usr/lib/warren/plugins/.{name}.partial");
        self.write(&partial, bytes);
        self.ok(&["chmod", "0644", &partial]);
        fs::rename(self.path(&partial), self.path(&path)).expect("rename");
    }

    /// `dpkg` with these options and a package file, without anybody to answer its questions.
    pub fn dpkg(&self, options: &[&str], package: &Path) {
        self.write("/run/package.deb", fs::read(package).expect("a package"));
        let dpkg = ["env", "DEBIAN_FRONTEND=noninteractive", "dpkg"];
        self.ok(&[&dpkg, options, &["/run/package.deb"]].concat());
        self.ok(&["rm", "/run/package.deb"]);
    }

    /// Entries of the journal that match, as `journalctl -o json` shows them.
    pub fn journal(&self, matches: &[&str]) -> Vec<Value> {
        // What is logged is in the journal, but perhaps not in its files yet.
        self.ok(&["journalctl", "--sync"]);
        let output = self.ok(&[&["journalctl", "--quiet", "--all", "--output=json"], matches].concat());
        output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Runs something in the machine's network: sockets that it opens are there, as are those of threads and processes
    /// that it starts.
    pub fn on_its_network<T: Send>(&self, something: impl FnOnce() -> T + Send) -> T {
        use std::os::fd::AsFd;
        let namespace = fs::File::open(Path::new("/proc").join(&self.pid).join("ns/net")).expect("the box");
        std::thread::scope(|scope| {
            let there = scope.spawn(move || {
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("root may");
                something()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What the workspace has built, as `make install` and the README have it.
    fn install(&self) {
        let built = artefacts::program("warrend");
        let assign = |name: &str, path: &Path| format!("{name}={}", path.display());
        let output = Command::new("make")
            .args(["--no-print-directory", "place", "PREFIX=/usr"])
            .arg(assign("DESTDIR", &self.path("")))
            .arg(assign("TARGET", built.parent().expect("a directory")))
            .current_dir(artefacts::root())
            .output()
            .expect("make");
        assert!(output.status.success(), "make place: {}", text(&output.stderr));
        self.ok(&["systemd-sysusers"]);
        self.ok(&["systemd-tmpfiles", "--create"]);
        self.ok(&["systemctl", "daemon-reload"]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.run(&["journalctl", "--quiet", "--output=short-precise", "--lines=200"]);
            eprintln!("--- the machine's journal, its last lines\n{}", text(&log.stdout));
        }
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The script that makes boxes.
pub fn systemd_box() -> PathBuf {
    artefacts::root().join("scripts/systemd-box")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
