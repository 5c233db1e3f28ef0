//! A host on its own, without the engine: for trying out a plugin before it is swapped in, and for `warrenctl
//! plugin`.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::{Exit, Host, HostEvent, HostId, HostSpec, HostStage, HostTask, Report, Spawner};
use crate::model::TaskError;

/// Lines of a host's output that a failed probe quotes: a crash often says why on standard error.
const QUOTED_LINES: usize = 5;

/// The first pause before a host is probed again that the machine had nothing to start with; doubled each time.
const FIRST_SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// Starts a host, waits until its handler is created and has it end. The error is the plugin's own when it
/// gave one; else its code is `timeout`, `crash`, `load`, `abi`, `spawn` or `host`. What the machine is short of for the
/// last two is waited for, as long as the plugin's own part may take. Runs on a current-thread runtime, inside a
/// `LocalSet` or not.
pub async fn probe(spec: &HostSpec, spawner: &Spawner) -> Result<(), TaskError> {
    let until = Instant::now() + spec.create_timeout;
    let mut pause = FIRST_SHORTAGE_PAUSE;
    loop {
        let exit = try_once(spec, spawner).await;
        let short = exit.as_ref().is_some_and(|exit| exit.stage == HostStage::Spawning);
        if !short || Instant::now() + pause >= until {
            return exit.and_then(|exit| exit.create_error).map_or(Ok(()), Err);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// How the host of one try ended.
async fn try_once(spec: &HostSpec, spawner: &Spawner) -> Option<Exit> {
    let mut printed: Vec<String> = Vec::new();
    let mut exit = LocalSet::new()
        .run_until(async {
            let (mut host, mut events) = start(spec, spawner);
            while let Some(event) = events.recv().await {
                match event {
                    HostEvent::Ready => host.quit(),
                    HostEvent::Exited(exit) => return Some(exit),
                    HostEvent::Output { line, stderr: true, .. } => {
                        if printed.len() == QUOTED_LINES {
                            printed.remove(0);
                        }
                        printed.push(line);
                    }
                    _ => {}
                }
            }
            None
        })
        .await?;
    if let Some(error) =
        exit.create_error.as_mut().filter(|error| error.code == "crash" && !printed.is_empty())
    {
        error.message = format!("{}; it printed: {}", error.message, printed.join(" | "));
    }
    Some(exit)
}

/// Runs one task in a host of its own and has that end. `on_event` gets everything but the report and the
/// exit. A handler that does not stop within `grace` of the task's time limit is killed. `Err`: the host
/// ended without a report. Dropping the future kills the host. Runs on a current-thread runtime, inside a
/// `LocalSet` or not.
pub async fn run_one(
    spec: &HostSpec,
    spawner: &Spawner,
    task: &HostTask<'_>,
    mut on_event: impl FnMut(HostEvent),
) -> Result<Report, Box<Exit>> {
    let run = async {
        let (mut host, mut events) = start(spec, spawner);
        host.send(task);
        host.quit();
        let limit = if task.timeout.is_zero() { FOREVER } else { task.timeout.saturating_add(spec.grace) };
        let mut report = None;
        // Counted from Ready, which is when the task starts.
        let mut kill = std::pin::pin!(tokio::time::sleep(FOREVER));
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = &mut kill => {
                    host.kill();
                    kill.as_mut().reset(tokio::time::Instant::now() + FOREVER);
                    continue;
                }
            };
            match event {
                Some(HostEvent::Ready) => {
                    kill.as_mut().reset(tokio::time::Instant::now() + limit.min(FOREVER));
                    on_event(HostEvent::Ready);
                }
                Some(HostEvent::Report(ended)) => report = Some(*ended),
                Some(HostEvent::Exited(exit)) => return report.ok_or_else(|| Box::new(exit)),
                Some(event) => on_event(event),
                None => unreachable!("a host's last event is its exit"),
            }
        }
    };
    LocalSet::new().run_until(run).await
}

/// Longer than any task runs.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

fn start(spec: &HostSpec, spawner: &Spawner) -> (Host, mpsc::UnboundedReceiver<HostEvent>) {
    // Unbounded, but for one host with one task, whose output, logs and progress are bounded each.
    let (sender, events) = mpsc::unbounded_channel();
    let events_to = Rc::new(move |_, event| drop(sender.send(event)));
    (Host::start(HostId(0), spec, spawner, events_to), events)
}
