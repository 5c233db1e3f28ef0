//! `warrend` as a service manager runs it: started, notified by, signalled, ended.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use warren::control::client::Client;

use crate::holdings::Holdings;
use crate::wait::{self, BOUND, Lines};
use crate::{Home, artefacts};

/// A running daemon. Dropping it kills it, and prints its log when the test failed.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: std::path::PathBuf,
    log: Arc<Lines>,
    notified: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

/// What the daemon's process uses.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// Resident set in KiB.
    pub rss_kib: u64,
    /// Open file descriptors.
    pub fds: usize,
    /// Mappings.
    pub maps: usize,
    /// Threads.
    pub threads: usize,
}

impl Daemon {
    /// Starts the daemon in `home` and waits until it is ready.
    pub fn start(home: &Home) -> Self {
        let daemon = Self::spawn(home, &[]);
        daemon.wait_notified(0, "READY=1");
        daemon
    }

    /// Starts the daemon with further environment variables and waits for nothing.
    pub fn spawn(home: &Home, environment: &[(&str, &str)]) -> Self {
        Self::spawn_by(&[], home, environment)
    }

    /// Starts the daemon by way of a command that ends by executing what is appended to it.
    pub fn spawn_by(launcher: &[&str], home: &Home, environment: &[(&str, &str)]) -> Self {
        let notify = home.path("notify");
        let _ = fs::remove_file(&notify);
        let manager = UnixDatagram::bind(&notify).expect("a notify socket");
        // Dies with the thread that runs the test, however that ends.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(launcher)
            .arg(artefacts::program("warrend"))
            .arg("--config")
            .arg(home.config())
            .env("NOTIFY_SOCKET", &notify)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv is there (util-linux)");
        let (log, notified) = (Arc::<Lines>::default(), Arc::<Lines>::default());
        let stderr = child.stderr.take().expect("piped");
        let readers = vec![
            std::thread::spawn({
                let (log, notified) = (log.clone(), notified.clone());
                move || {
                    let lines = BufReader::new(stderr).lines();
                    lines.map_while(Result::ok).for_each(|line| log.push(line));
                    log.end();
                    notified.end();
                }
            }),
            std::thread::spawn({
                let notified = notified.clone();
                move || read_notifications(&manager, &notified)
            }),
        ];
        Self { child, socket: home.socket(), log, notified, readers }
    }

    /// The log. Lines have numbers, for waiting from a point on.
    pub fn log(&self) -> &Lines {
        &self.log
    }

    /// The log, for a thread that outlives the borrow.
    pub fn log_lines(&self) -> Arc<Lines> {
        self.log.clone()
    }

    /// What the service manager was told, one assignment per line.
    pub fn notified(&self) -> &Lines {
        &self.notified
    }

    /// Waits for a log line, number `from` or later, that contains all of `parts`.
    pub fn wait_log(&self, from: usize, parts: &[&str]) -> String {
        let found = self.log.wait(from, |line| parts.iter().all(|part| line.contains(part)));
        found.unwrap_or_else(|| panic!("no line in the log with {parts:?}")).1
    }

    /// Waits for a notification, number `from` or later; gives its number.
    pub fn wait_notified(&self, from: usize, assignment: &str) -> usize {
        let found = self.notified.wait(from, |line| line.starts_with(assignment));
        found.unwrap_or_else(|| panic!("the service manager was not told {assignment}")).0
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the daemon is there");
    }

    /// SIGHUP; waits until the reload is over, and gives what it did (`last_reload` of the status).
    pub fn reload(&self) -> Value {
        let from = self.notified.next();
        self.signal(Signal::HUP);
        let begun = self.wait_notified(from, "RELOADING=1");
        self.wait_notified(begun, "READY=1");
        self.status()["last_reload"].clone()
    }

    /// What `warrenctl status --json` says, without a process of its own: it is asked for again and again.
    ///
    /// # Panics
    /// When the daemon does not answer.
    pub fn status(&self) -> Value {
        let status = Client::new(&self.socket).status().unwrap_or_else(|error| panic!("the status: {error}"));
        serde_json::to_value(status).expect("JSON")
    }

    /// The status of one handler.
    pub fn handler(&self, name: &str) -> Value {
        let status = self.status();
        let handlers = status["handlers"].as_array().expect("handlers");
        handlers.iter().find(|handler| handler["name"] == name).cloned().unwrap_or(Value::Null)
    }

    /// The counts of the daemon's queue.
    pub fn counts(&self) -> Value {
        self.status()["queues"][0]["counts"].clone()
    }

    /// Waits until the queue's count `name` (`done`, `dead`, …) is `count`.
    pub fn wait_count(&self, name: &str, count: u64) {
        wait::while_it_goes_on(&format!("{count} tasks {name}"), || {
            let counts = self.counts();
            if counts[name] == count { Ok(()) } else { Err(counts) }
        });
    }

    /// Any verb of `warrenctl` that answers JSON.
    ///
    /// # Panics
    /// When it fails or answers anything else.
    pub fn ask(&self, verb: &[&str]) -> Value {
        let output = self.warrenctl(verb);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "warrenctl {verb:?}: {}: {text}", output.status);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Any verb of `warrenctl`, with `--json` and this daemon's socket.
    pub fn warrenctl(&self, verb: &[&str]) -> Output {
        Command::new(artefacts::program("warrenctl"))
            .arg("--json")
            .arg("--socket")
            .arg(&self.socket)
            .args(verb)
            .output()
            .expect("warrenctl")
    }

    /// What the process uses now.
    pub fn footprint(&self) -> Footprint {
        let proc = Path::new("/proc").join(self.pid().to_string());
        let read = |name: &str| fs::read_to_string(proc.join(name)).expect("the daemon is there");
        Footprint {
            rss_kib: self.memory("VmRSS:"),
            fds: fs::read_dir(proc.join("fd")).expect("the daemon is there").count(),
            maps: read("maps").lines().count(),
            threads: fs::read_dir(proc.join("task")).expect("the daemon is there").count(),
        }
    }

    /// The largest resident set that the process ever had, in KiB.
    pub fn peak_rss_kib(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// What the process holds now, by name and kind.
    pub fn holdings(&self) -> Holdings {
        Holdings::of(self.pid())
    }

    /// Waits until the process holds what it held before, to the thread and descriptor: what is just being closed ends
    /// by itself, a leak does not.
    pub fn wait_holds(&self, before: &Holdings) {
        let mut differences = Vec::new();
        let back = wait::ask_within(BOUND, || {
            differences = self.holdings().differences(before);
            differences.is_empty().then_some(())
        });
        assert!(back.is_some(), "what the daemon holds is not what it held: {differences:?}");
    }

    /// A size in KiB from the process's status.
    fn memory(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("the daemon is there");
        let size = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        size.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// CPU time that the process has used.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the daemon is there");
        // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// SIGTERM; waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// SIGKILL, if it still runs; waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.wait_end();
    }

    /// Waits until the process ends by itself, and its log with it.
    pub fn wait_end(&mut self) -> ExitStatus {
        let end = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                for reader in self.readers.drain(..) {
                    reader.join().expect("a reader does not panic");
                }
                return status;
            }
            assert!(Instant::now() < end, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.log.since(0);
            eprintln!("--- the daemon's log, the last of {} lines", lines.len());
            lines.iter().rev().take(200).rev().for_each(|line| eprintln!("{line}"));
            eprintln!("--- notified: {:?}", self.notified.since(0));
        }
    }
}

/// Ends when the log does: the daemon is gone then.
fn read_notifications(manager: &UnixDatagram, notified: &Lines) {
    manager.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let mut buffer = [0; 4096];
    loop {
        match manager.recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                text.lines().for_each(|line| notified.push(line.to_owned()));
            }
            Err(_) if notified.ended() => return,
            Err(_) => {}
        }
    }
}
