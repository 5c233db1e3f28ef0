//! Starts host processes, all from one thread that lives as long as any of them: a host asks the kernel to be
//! killed when its parent ends, and the kernel means the *thread* that forked it.
//!
//! The same thread kills what a dead host leaves behind. As it is the only one that forks, it alone knows at
//! every moment which children of the daemon are hosts; every other one is such a stray.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use tokio::sync::oneshot;

use super::cgroup::{Controllers, Group, Groups, SWEEP_WITHIN};
use super::death::{Death, reap};
use super::{descendants, ring};
use crate::config::Bounds;
use crate::plugin::Snapshot;

/// What `argv[0]` of a host begins with; its handler's name follows. `ps` shows it, and `run_if_host` goes by
/// it.
pub(super) const ARGV0_PREFIX: &str = "warren-host: ";
/// The word that carries a host's descriptors.
pub(super) const HELLO: &[u8; 8] = b"warrenFD";
/// What a host inherits of the environment. Nothing of systemd's, nothing of ours, no credentials.
const ENVIRONMENT: [&str; 8] =
    ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Makes this process adopt what the descendants of its hosts leave behind when they end. From then on every
/// child that a [`Spawner`] did not start is killed after a host's death: call it where nothing else starts
/// processes.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// The handle of the spawning thread, which ends with the last handle and the last host.
#[derive(Debug, Clone)]
pub struct Spawner {
    requests: mpsc::Sender<SpawnRequest>,
    controllers: Controllers,
}

/// A started host process, as the daemon holds it.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) process: Process,
    pub(super) socket: OwnedFd,
    pub(super) control: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) ring: OwnedFd,
}

/// Numbers the hosts of one spawner.
type Ticket = u64;

/// The duty to reap a host. Dropped without that, it has the spawning thread kill and reap it.
#[derive(Debug)]
pub(super) struct Process {
    ticket: Ticket,
    pid: Pid,
    /// `None` once reaped.
    pidfd: Option<OwnedFd>,
    requests: mpsc::Sender<SpawnRequest>,
}

#[derive(Debug)]
enum SpawnRequest {
    Start {
        handler: Arc<str>,
        plugin: Arc<Snapshot>,
        bounds: Bounds,
        requests: mpsc::Sender<SpawnRequest>,
        reply: oneshot::Sender<io::Result<Spawned>>,
    },
    /// The host was reaped; `sweep`: it may have left processes behind. Answered when they are dead: whether the
    /// kernel killed one for the group's memory.
    Reaped { ticket: Ticket, sweep: bool, reply: oneshot::Sender<bool> },
    /// Nobody waits for this host any more: kill and reap it.
    Abandoned { ticket: Ticket, pid: Pid, pidfd: OwnedFd },
}

impl Spawner {
    /// Starts the thread. Hosts run this process's own executable, even when its file has been replaced
    /// since.
    pub fn start() -> io::Result<Self> {
        Self::new(PathBuf::from("/proc/self/exe"), None)
    }

    /// As [`start`](Self::start), each host in a group of its own.
    pub fn with_groups(groups: Groups) -> io::Result<Self> {
        Self::new(PathBuf::from("/proc/self/exe"), Some(groups))
    }

    /// As [`start`](Self::start), with another executable whose `main` begins with
    /// [`run_if_host`](super::run_if_host): for tests, whose own `main` does not.
    pub fn with_executable(executable: PathBuf) -> io::Result<Self> {
        Self::new(executable, None)
    }

    fn new(executable: PathBuf, groups: Option<Groups>) -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel();
        let controllers = groups.as_ref().map(Groups::controllers).unwrap_or_default();
        std::thread::Builder::new().name("spawner".into()).spawn(move || {
            SpawnerThread { executable, groups, hosts: HashMap::new(), last: 0 }.run(&inbox);
        })?;
        Ok(Self { requests, controllers })
    }

    /// What the hosts' groups bound.
    pub fn controllers(&self) -> Controllers {
        self.controllers
    }

    pub(super) async fn spawn(
        &self,
        handler: Arc<str>,
        plugin: Arc<Snapshot>,
        bounds: Bounds,
    ) -> io::Result<Spawned> {
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.clone();
        let _ = self.requests.send(SpawnRequest::Start { handler, plugin, bounds, requests, reply });
        answer.await.unwrap_or_else(|_| Err(io::Error::other("the spawning thread has ended")))
    }
}

impl Process {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Another descriptor of the process, to wait for its end.
    pub(super) fn pidfd(&self) -> io::Result<OwnedFd> {
        match &self.pidfd {
            Some(pidfd) => pidfd.try_clone(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// SIGKILL to the whole group; nothing once reaped, when the pid may be another's.
    pub(super) fn kill(&self) {
        if self.pidfd.is_some() {
            kill_group(self.pid);
        }
    }

    /// Once it is dead: kills what is left of its group, reaps it and has its strays killed. Returns how it
    /// ended.
    pub(super) async fn reap(mut self, asked_to_end: bool) -> Death {
        let unknown = |why: &str| Death { why: why.to_owned(), ..Death::default() };
        let Some(pidfd) = self.pidfd.take() else { return unknown("reaped before") };
        kill_group(self.pid);
        let Some(death) = reap(pidfd.as_fd()) else {
            self.pidfd = Some(pidfd);
            return unknown("not dead yet");
        };
        let (reply, answer) = oneshot::channel();
        let sweep = !(asked_to_end && death.success);
        let _ = self.requests.send(SpawnRequest::Reaped { ticket: self.ticket, sweep, reply });
        Death { out_of_memory: answer.await.unwrap_or(false), ..death }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            kill_group(self.pid);
            let _ = self.requests.send(SpawnRequest::Abandoned { ticket: self.ticket, pid: self.pid, pidfd });
        }
    }
}

/// Kills a host's whole group, and the host should it have left that. Only while it is not reaped: the pid
/// could be another's afterwards.
fn kill_group(pid: Pid) {
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

struct SpawnerThread {
    executable: PathBuf,
    groups: Option<Groups>,
    /// Hosts that are not reaped. Not by pid: one may be reused before the old host's end is reported here.
    hosts: HashMap<Ticket, Child>,
    last: Ticket,
}

struct Child {
    pid: Pid,
    group: Option<Group>,
}

impl SpawnerThread {
    fn run(mut self, inbox: &mpsc::Receiver<SpawnRequest>) {
        while let Ok(request) = inbox.recv() {
            match request {
                SpawnRequest::Start { handler, plugin, bounds, requests, reply } => {
                    // When nobody waits for it any more, dropping it abandons it.
                    let _ = reply.send(self.start(&handler, &plugin, &bounds, requests));
                }
                SpawnRequest::Reaped { ticket, sweep, reply } => {
                    let _ = reply.send(self.forget(ticket, sweep));
                }
                SpawnRequest::Abandoned { ticket, pid, pidfd } => self.abandoned(ticket, pid, &pidfd),
            }
        }
    }

    fn start(
        &mut self,
        handler: &str,
        plugin: &Snapshot,
        bounds: &Bounds,
        requests: mpsc::Sender<SpawnRequest>,
    ) -> io::Result<Spawned> {
        let pair = |kind| {
            rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)
        };
        let (socket, child_socket) = pair(SocketType::STREAM)?;
        let (control, child_control) = pair(SocketType::SEQPACKET)?;
        let ring = ring::create()?;
        send_descriptors(&socket, [plugin.memfd.as_fd(), ring.as_fd(), child_control.as_fd()])?;
        let mut command = Command::new(&self.executable);
        command
            .arg0(format!("{ARGV0_PREFIX}{handler}"))
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|&key| Some((key, std::env::var_os(key)?))))
            .process_group(0)
            .stdin(Stdio::from(child_socket))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.last += 1;
        let ticket = self.last;
        let group = self.groups.as_ref().map(|groups| groups.create(ticket, handler, bounds)).transpose()?;
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                clear(group);
                return Err(error);
            }
        };
        let pid = Pid::from_child(&child);
        // It waits for its first frame, which the daemon sends after this: nothing is loaded outside the group.
        let admitted = group.as_ref().map_or(Ok(()), |group| group.admit(pid));
        self.hosts.insert(ticket, Child { pid, group });
        let pidfd = admitted.and_then(|()| Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?));
        let process = match pidfd {
            Ok(pidfd) => Process { ticket, pid, pidfd: Some(pidfd), requests },
            Err(error) => {
                kill_group(pid);
                let _ = child.wait();
                self.forget(ticket, false);
                return Err(error);
            }
        };
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both were asked for as pipes");
        };
        Ok(Spawned { process, socket, control, stdout: stdout.into(), stderr: stderr.into(), ring })
    }

    fn abandoned(&mut self, ticket: Ticket, pid: Pid, pidfd: &OwnedFd) {
        kill_group(pid);
        // SIGKILL is not refused: this waits for the kernel alone, and within a bound should the process hang
        // in it.
        if wait_dead(pidfd, Instant::now() + SWEEP_WITHIN) && reap(pidfd.as_fd()).is_some() {
            self.forget(ticket, true);
        }
    }

    /// A host is reaped: kills and removes what there is left of it. Whether the kernel killed something of it for
    /// the group's memory.
    fn forget(&mut self, ticket: Ticket, sweep: bool) -> bool {
        let group = self.hosts.remove(&ticket).and_then(|child| child.group);
        let out_of_memory = clear(group);
        if sweep {
            self.sweep();
        }
        out_of_memory
    }

    /// Kills every child that is no host. Their own children become ours in turn, hence the rounds.
    fn sweep(&self) {
        if !matches!(rustix::process::child_subreaper(), Ok(Some(_))) {
            return;
        }
        let until = Instant::now() + SWEEP_WITHIN;
        loop {
            let mut strays = descendants::children_of(rustix::process::getpid());
            strays.retain(|pid| !self.hosts.values().any(|host| host.pid == *pid));
            if strays.is_empty() {
                return;
            }
            for &pid in &strays {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            for &pid in &strays {
                // A child of ours that only this thread reaps: the pid cannot have become another's.
                if let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                    wait_dead(&pidfd, until);
                }
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
            if Instant::now() >= until {
                tracing::warn!(
                    left = strays.len(),
                    "processes that handlers left behind do not die of SIGKILL"
                );
                return;
            }
        }
    }
}

fn clear(group: Option<Group>) -> bool {
    group.is_some_and(|group| group.clear(Instant::now() + SWEEP_WITHIN))
}

/// Waits until the process is dead (and not reaped), or `until`.
fn wait_dead(pidfd: &OwnedFd, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(timeout) = left.try_into() else { return false };
        match rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other == Ok(1),
        }
    }
}

fn send_descriptors(socket: &OwnedFd, fds: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(socket, &[IoSlice::new(HELLO)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
