//! The test bed: hosts of the real daemon executable, with a C plugin compiled from the header.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::mpsc;
use warren::config::Bounds;
use warren::host::{Exit, Host, HostEvent, HostId, HostSpec, HostTask, OutputBounds, Report, Seq, Spawner};
use warren::plugin::Snapshot;

/// Longer than anything here takes on a loaded machine; only a failing test waits this long.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// Compiles the plugin once per test process.
static TORTURE: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Arc::new(Snapshot::take(&torture_in(dir.path())).expect("the plugin passes inspection"))
});

/// Compiles the plugin into this directory.
pub(crate) fn torture_in(directory: &Path) -> PathBuf {
    let library = directory.join("torture.so");
    compile(&root().join("daemon/tests/host/torture.c"), &library);
    library
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn compile(source: &Path, library: &Path) {
    let status = Command::new("cc")
        .args(["-std=gnu99", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"])
        .arg("-I")
        .arg(root().join("plugin-api/include"))
        .arg(source)
        .arg("-o")
        .arg(library)
        .status()
        .expect("cc is installed");
    assert!(status.success(), "cc failed on {}", source.display());
}

/// A handler of the torture plugin with these settings.
pub(crate) fn spec(settings: &str) -> HostSpec {
    HostSpec {
        handler: "torture".into(),
        plugin: Arc::clone(&TORTURE),
        settings_json: settings.into(),
        create_timeout: BOUND,
        grace: BOUND,
        output: OutputBounds { bytes: 4096, lines: 100 },
        bounds: Bounds::default(),
    }
}

/// Runs a test on a runtime like the data path's.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::time::timeout(2 * BOUND, test).await.expect("the test is not stuck")
    })
}

/// As [`run`], for what brings a `LocalSet` of its own.
pub(crate) fn run_bare<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(2 * BOUND, test).await.expect("the test is not stuck") })
}

/// A spawner of the daemon's executable.
pub(crate) fn spawner() -> Spawner {
    Spawner::with_executable(env!("CARGO_BIN_EXE_warrend").into()).expect("a spawner")
}

/// A host and its events.
pub(crate) struct Watched {
    pub(crate) host: Host,
    events: mpsc::UnboundedReceiver<HostEvent>,
    sent: Seq,
}

impl Watched {
    /// Starts a host with default settings.
    pub(crate) fn start(spawner: &Spawner) -> Self {
        Self::with(spawner, &spec("{}"))
    }

    pub(crate) fn with(spawner: &Spawner, spec: &HostSpec) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let host = Host::start(HostId(7), spec, spawner, Rc::new(move |_, event| drop(sender.send(event))));
        Self { host, events, sent: 0 }
    }

    /// Sends a task with this argument; returns its number.
    pub(crate) fn send(&mut self, argument: &str) -> Seq {
        self.send_task(&HostTask { argument, ..task() })
    }

    pub(crate) fn send_task(&mut self, task: &HostTask<'_>) -> Seq {
        self.sent += 1;
        self.host.send(&HostTask { seq: self.sent, ..*task });
        self.host.flush();
        self.sent
    }

    /// The next event, whatever it is.
    pub(crate) async fn next(&mut self) -> HostEvent {
        let event = tokio::time::timeout(BOUND, self.events.recv()).await;
        event.expect("an event within the bound").expect("a host's last event is its exit")
    }

    /// Skips to the next report.
    pub(crate) async fn report(&mut self) -> Report {
        loop {
            match self.next().await {
                HostEvent::Report(report) => return *report,
                HostEvent::Exited(exit) => panic!("no report, but {exit:?}"),
                _ => {}
            }
        }
    }

    /// Skips to the first task that comes back unstarted; no report may come before it.
    pub(crate) async fn withdrawn(&mut self) -> Seq {
        loop {
            match self.next().await {
                HostEvent::Withdrawn { seq } => return seq,
                other @ (HostEvent::Report(_) | HostEvent::Exited(_)) => {
                    panic!("not withdrawn, but {other:?}")
                }
                _ => {}
            }
        }
    }

    /// Skips to the end, and checks that nothing follows it.
    pub(crate) async fn exit(&mut self) -> Exit {
        loop {
            if let HostEvent::Exited(exit) = self.next().await {
                assert!(self.events.try_recv().is_err(), "the exit is the last event");
                return exit;
            }
        }
    }

    /// Skips to the first progress: the task runs.
    pub(crate) async fn running(&mut self) {
        while !matches!(self.next().await, HostEvent::Progress { .. }) {}
    }

    /// Sends one task and waits for its report.
    pub(crate) async fn run(&mut self, argument: &str) -> Report {
        let seq = self.send(argument);
        let report = self.report().await;
        assert_eq!(report.seq, seq);
        report
    }
}

/// A task without anything special.
pub(crate) fn task<'a>() -> HostTask<'a> {
    HostTask {
        seq: 1,
        attempt: 1,
        redelivered: false,
        id_generated: false,
        id: "t-1",
        queue: "tasks",
        prefix: "Torture",
        argument: "done",
        content_type: "",
        headers: &[],
        body: b"Torture",
        timeout: BOUND,
        wants_result: true,
    }
}

/// The error code of a report.
pub(crate) fn code(report: &Report) -> &str {
    report.error.as_ref().map_or("", |error| &error.code)
}

/// Whether a process with this command name and ancestor is there: the children that a handler left behind
/// keep the host's name.
pub(crate) fn group_is_empty(pid: u32) -> bool {
    let session_or_group = |stat: &str| {
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or(vec![], |(_, rest)| rest.split_whitespace().collect());
        fields.get(2).is_some_and(|group| *group == pid.to_string())
    };
    let entries = std::fs::read_dir("/proc").expect("/proc");
    !entries.flatten().any(|entry| {
        std::fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| session_or_group(&stat))
    })
}
