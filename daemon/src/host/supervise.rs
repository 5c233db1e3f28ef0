//! The daemon side of one host: a queue of frames to it, and one local task that reads what comes back,
//! watches the process and its time limits, and reports its end. Nothing here blocks.

mod agreed;
mod ending;
mod link;
mod listen;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::sync::Notify;

use self::agreed::Agreed;
use self::link::{HostLink, register};
use super::budget::LogBudgets;
use super::death;
use super::frame::{self, Buffer, ControlMessage, Init, MAX_FROM_HOST};
use super::output::OutputStream;
use super::ring;
use super::stage::HostStage;
use super::write_buffer::WriteBuffer;
use super::{Exit, HostEvent, HostEvents, HostId, HostSpec, HostTask, Seq, Spawner};
use crate::config::Bounds;
use crate::model::TaskError;

/// Bytes read from a host at once.
const REPORT_CHUNK: usize = 16 << 10;
/// How long a host may live on with its socket closed: a process closes its descriptors first and is dead
/// next.
const EOF_GRACE: Duration = Duration::from_secs(1);
/// The pause before what the machine was short of is asked for again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// How old a look at a host's memory may be: reading it costs more than a small task.
const RSS_EVERY: Duration = Duration::from_secs(1);

/// One plugin host. Dropping it kills the process; no event comes after that.
pub struct Host(Rc<SupervisedHost>);

struct SupervisedHost {
    id: HostId,
    events: HostEvents,
    grace: Duration,
    create_timeout: Duration,
    bounds: Bounds,
    /// Frames that the socket has not taken yet.
    out: RefCell<WriteBuffer>,
    input: RefCell<Buffer>,
    /// `None` before the process is there, and after its end.
    link: RefCell<Option<Rc<HostLink>>>,
    stdout: RefCell<OutputStream>,
    stderr: RefCell<OutputStream>,
    logs: RefCell<LogBudgets>,
    agreed: RefCell<Agreed>,
    quitting: Cell<bool>,
    killed: Cell<bool>,
    dropped: Cell<bool>,
    /// The last look at its memory.
    rss: Cell<Option<(Instant, u64)>>,
    early_cancels: RefCell<Vec<ControlMessage>>,
    create_error: RefCell<Option<TaskError>>,
    /// It could not set itself up: the plugin has nothing to do with it.
    unusable: Cell<bool>,
    /// Why this side killed it, when it did so on its own account.
    verdict: RefCell<Option<String>>,
    /// The last task that printed that there was no memory to be had.
    short_of_memory: Cell<Option<Seq>>,
    /// Something that the time limits depend on has changed.
    changed: Notify,
    /// The socket did not take all of `out`.
    blocked: Notify,
}

impl Host {
    /// Starts a host; returns at once. Must be called inside a `LocalSet` of a current-thread runtime. Tasks
    /// may be sent right away. Every way it can end, a failed start included, is reported as
    /// [`HostEvent::Exited`].
    pub fn start(id: HostId, spec: &HostSpec, spawner: &Spawner, events: HostEvents) -> Self {
        let mut out = WriteBuffer::default();
        let init = Init {
            parent: std::process::id(),
            handler: spec.handler.to_string(),
            settings_json: spec.settings_json.to_string(),
            create_timeout: spec.create_timeout,
            grace: spec.grace,
            memory: if spawner.controllers().memory { 0 } else { spec.bounds.memory },
            cpu_time: spec.bounds.cpu_time,
            max_files: spec.bounds.max_files,
            output: spec.output,
        };
        init.put(out.end());
        let inner = Rc::new(SupervisedHost {
            id,
            events,
            grace: spec.grace,
            create_timeout: spec.create_timeout,
            bounds: spec.bounds,
            out: RefCell::new(out),
            input: RefCell::new(Buffer::new(REPORT_CHUNK, MAX_FROM_HOST)),
            link: RefCell::default(),
            stdout: RefCell::new(OutputStream::new(false, spec.output)),
            stderr: RefCell::new(OutputStream::new(true, spec.output)),
            logs: RefCell::new(LogBudgets::new(spec.output.most_that_arrives(), Instant::now())),
            agreed: RefCell::default(),
            quitting: Cell::new(false),
            killed: Cell::new(false),
            dropped: Cell::new(false),
            rss: Cell::new(None),
            early_cancels: RefCell::default(),
            create_error: RefCell::default(),
            unusable: Cell::new(false),
            verdict: RefCell::default(),
            short_of_memory: Cell::default(),
            changed: Notify::new(),
            blocked: Notify::new(),
        });
        tokio::task::spawn_local(live(Rc::clone(&inner), spec.clone(), spawner.clone()));
        Self(inner)
    }

    /// Queues a task; nothing is written before [`flush`](Self::flush). Tasks are numbered from 1, without gaps.
    pub fn send(&mut self, task: &HostTask<'_>) {
        self.0.agreed.borrow_mut().give(task.seq);
        frame::put_task(self.0.out.borrow_mut().end(), task);
    }

    /// Writes what the socket takes; what it does not take follows by itself.
    pub fn flush(&mut self) {
        self.0.flush();
    }

    /// Asks the handler to stop `seq`, if that is the task that runs; one that waits in the host reports
    /// [`Outcome::Cancelled`](crate::model::Outcome::Cancelled) without being started; for one that ended it is too
    /// late.
    pub fn cancel(&mut self, seq: Seq) {
        self.0.cancel(ControlMessage { seq, started_too: true });
    }

    /// Takes back `seq` if it still waits in the host: [`HostEvent::Withdrawn`] follows, also while another task
    /// runs. One that runs already is left alone.
    pub fn recall(&mut self, seq: Seq) {
        self.0.cancel(ControlMessage { seq, started_too: false });
    }

    /// Has the host finish what was sent, free the handler and end. It is killed when it has not done so
    /// within `grace` of its last report. No task may be sent after this.
    pub fn quit(&mut self) {
        if !self.0.quitting.replace(true) {
            frame::put_quit(self.0.out.borrow_mut().end());
            self.0.flush();
            self.0.changed.notify_one();
        }
    }

    /// Kills the process group at once, and after that whatever else it had started.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// The process, once started and until it is reaped.
    pub fn pid(&self) -> Option<u32> {
        let link = self.0.link()?;
        let process = link.process.borrow();
        process.as_ref().map(|process| process.pid().as_raw_nonzero().get() as u32)
    }

    /// Resident memory, file mappings included. Read from `/proc` at most once a second, so that it may be
    /// asked after every task.
    pub fn rss_bytes(&self) -> Option<u64> {
        let now = Instant::now();
        if let Some((at, rss)) = self.0.rss.get()
            && now < at + RSS_EVERY
        {
            return Some(rss);
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let rss = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
        self.0.rss.set(Some((now, rss)));
        Some(rss)
    }

    /// The highest task started and the highest ended, as of now: they differ while one runs. For watching
    /// time limits of tasks that were queued; one system call.
    pub fn counters(&self) -> Option<(Seq, Seq)> {
        ring::counters(&self.0.link()?.ring).ok()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.0.dropped.set(true);
        self.0.kill();
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("id", &self.0.id).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

/// The life of a host, from its start to its last event.
async fn live(inner: Rc<SupervisedHost>, spec: HostSpec, spawner: Spawner) {
    let link = match spawner.spawn(spec.handler, spec.plugin, spec.bounds).await.and_then(HostLink::new) {
        Ok(link) => Rc::new(link),
        Err(error) => {
            let message = format!("the host process cannot be started: {error}");
            let create_error =
                Some(TaskError { code: "spawn".into(), message: message.clone(), retry_after: None });
            inner.emit(HostEvent::Exited(Exit {
                stage: HostStage::Spawning,
                orderly: false,
                why: message,
                create_error,
                started: 0,
                done_unreported: Vec::new(),
                ended: 0,
                over: None,
            }));
            return;
        }
    };
    *inner.link.borrow_mut() = Some(Rc::clone(&link));
    if inner.killed.get() {
        link.kill();
    }
    for message in inner.early_cancels.take() {
        link.cancel(message);
    }
    inner.flush();
    tokio::select! {
        biased;
        () = inner.read_frames(&link) => {
            // The socket is closed: either the process is ending, or it never will, and its status can tell.
            if tokio::time::timeout(EOF_GRACE, link.pidfd.readable()).await.is_err() {
                inner.condemn("killed: it had closed its socket".into());
            }
        }
        _ = link.pidfd.readable() => {}
        () = inner.read_output(&link, &link.stdout, &inner.stdout) => {}
        () = inner.read_output(&link, &link.stderr, &inner.stderr) => {}
        () = inner.watch_limits() => {}
        () = inner.write_rest(&link) => {}
    }
    let _ = link.pidfd.readable().await;
    inner.report_exit(&link).await;
}

impl SupervisedHost {
    fn link(&self) -> Option<Rc<HostLink>> {
        self.link.borrow().clone()
    }

    fn emit(&self, event: HostEvent) {
        if let HostEvent::Output { seq, stderr: true, line } = &event
            && self.bounds.memory > 0
            && death::is_out_of_memory(line)
        {
            self.short_of_memory.set(Some(*seq));
        }
        if !self.dropped.get() {
            (self.events)(self.id, event);
        }
    }

    fn cancel(&self, message: ControlMessage) {
        let mut agreed = self.agreed.borrow_mut();
        if message.seq <= agreed.reported() {
            return;
        }
        if !message.started_too {
            agreed.recall(message.seq);
        }
        drop(agreed);
        match self.link() {
            Some(link) => link.cancel(message),
            None => self.early_cancels.borrow_mut().push(message),
        }
    }

    fn kill(&self) {
        self.killed.set(true);
        if let Some(link) = self.link() {
            link.kill();
        }
    }

    /// Kills the host because of what this side saw.
    fn condemn(&self, why: String) {
        self.verdict.borrow_mut().get_or_insert(why);
        self.kill();
    }

    fn flush(&self) {
        if self.out.borrow().is_empty() {
            return;
        }
        let Some(link) = self.link() else { return };
        if self.write(&link) {
            self.blocked.notify_one();
        }
    }

    /// Writes once; `true`: something is left.
    fn write(&self, link: &HostLink) -> bool {
        let mut out = self.out.borrow_mut();
        if out.is_empty() {
            return false;
        }
        match rustix::net::send(&link.socket, out.rest(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(n) => out.wrote(n, 4 * REPORT_CHUNK),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The host is dead or dying: its end is on the way, and the tasks are accounted for there.
            Err(_) => out.clear(4 * REPORT_CHUNK),
        }
        !out.is_empty()
    }

    /// Writes what the socket did not take at once. Never returns.
    async fn write_rest(&self, link: &HostLink) {
        loop {
            self.blocked.notified().await;
            let socket = loop {
                let clone = link.socket.get_ref().try_clone();
                match clone.and_then(|socket| register(socket, Interest::WRITABLE)) {
                    Ok(socket) => break socket,
                    // The machine is short of descriptors, and the host waits for the rest of its task.
                    Err(_) => tokio::time::sleep(SHORTAGE_PAUSE).await,
                }
            };
            while self.write(link) {
                if let Ok(mut guard) = socket.writable().await
                    && self.write(link)
                {
                    guard.clear_ready();
                }
            }
        }
    }

    /// Kills a host that takes too long to be created or to end. Never returns.
    async fn watch_limits(&self) {
        loop {
            let (ready, idle) = {
                let agreed = self.agreed.borrow();
                (agreed.is_ready(), agreed.reported() == agreed.sent())
            };
            let (limit, why) = if !ready {
                (self.create_timeout, "loading the plugin and `create` took")
            } else if self.quitting.get() && idle {
                (self.grace, "killed: ending took")
            } else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep(limit) => {
                    let why = format!("{why} longer than {limit:?}");
                    if !ready {
                        let error = TaskError { code: "timeout".into(), message: why.clone(), retry_after: None };
                        self.create_error.borrow_mut().get_or_insert(error);
                    }
                    self.condemn(why);
                    std::future::pending::<()>().await;
                }
                () = self.changed.notified() => {}
            }
        }
    }
}
