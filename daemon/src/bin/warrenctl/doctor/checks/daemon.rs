//! The running daemon: it answers, consumes, runs what the files say, and its socket is for whom it should be.

use warren::config::Config;
use warren::control::client::ClientError;
use warren::model::status::{
    BrokerState, DaemonState, HandlerState, HandlerStatus, QueueState, QueueStatus, Status, Unsettled,
};

use super::super::facts::{DaemonFacts, FileFact};
use super::super::finding::{Area, Finding, Severity};
use crate::exit::Code;
use crate::output::span;

pub(super) fn check(daemon: &DaemonFacts, config: Option<&Config>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let place = daemon.socket.path.display().to_string();
    match &daemon.status {
        Ok(status) => findings.extend(answers(status, config)),
        Err(ClientError::NoDaemon { why, .. }) => findings.push(Finding::new(
            Severity::Warning,
            Area::Daemon,
            place,
            format!("no daemon answers: {why}"),
            "systemctl start warrend, or name its socket with --socket",
        )),
        Err(error @ (ClientError::Permission { .. } | ClientError::Forbidden { .. })) => findings.push(
            Finding::new(
                Severity::Note,
                Area::Daemon,
                place,
                error.to_string(),
                "what only a running daemon knows was not looked at",
            )
            .with_code(Code::NoPermission),
        ),
        Err(error) => findings.push(Finding::new(
            Severity::Error,
            Area::Daemon,
            place,
            error.to_string(),
            "journalctl -u warrend",
        )),
    }
    if daemon.status.is_ok()
        && let Some(config) = config
    {
        findings.extend(socket(&daemon.socket, config.daemon.socket_mode.bits()));
    }
    findings
}

fn answers(status: &Status, config: Option<&Config>) -> Vec<Finding> {
    let place = format!("pid {}", status.pid);
    let mut findings = Vec::new();
    let mut find = |severity, place: &str, what: String, remedy: &str| {
        findings.push(Finding::new(severity, Area::Daemon, place, what, remedy));
    };
    let own = env!("CARGO_PKG_VERSION");
    if status.version != own {
        let what = format!("warrend is {}, warrenctl is {own}", status.version);
        find(Severity::Warning, &place, what, "systemctl restart warrend");
    }
    let broker = &status.broker;
    let why = broker.last_error.as_deref().unwrap_or("no reason is known");
    match (status.state, status.ready) {
        (DaemonState::Running, true) => {}
        (DaemonState::Draining, _) => {
            find(Severity::Note, &place, "it is draining, and ends then".into(), "");
        }
        (state, _) => {
            let stuck = status.queues.iter().find(|queue| queue.state == QueueState::Stuck);
            let what = match stuck {
                Some(queue) => format!("it is {state} and not ready: queue {} is stuck", queue.name),
                None => format!("it is {state} and not ready; broker {}: {why}", broker.state),
            };
            find(Severity::Error, &place, what, "warrenctl status, journalctl -u warrend");
        }
    }
    if broker.state == BrokerState::Blocked {
        let what = "the broker takes no copies from it: retries and dead letters wait".to_owned();
        find(Severity::Warning, &place, what, "rabbitmq-diagnostics alarms, then make room");
    }
    if let Some(fault) = &status.machine_fault {
        let remedy = "raise LimitNOFILE=, TasksMax= or MemoryMax= of the unit, or make room; it is tried again by itself";
        find(Severity::Error, &place, fault.clone(), remedy);
    }
    if let Some(reload) = status.last_reload.as_ref().filter(|reload| !reload.ok) {
        let faults = reload.handlers.iter().filter_map(|row| row.error.as_deref());
        let why = reload.error.as_deref().into_iter().chain(faults).collect::<Vec<_>>().join("; ");
        find(
            Severity::Warning,
            &place,
            format!("the last reload failed: {why}"),
            "mend it, then warrenctl reload",
        );
    }
    if status.log_lines_lost > 0 {
        let what = format!("{} log lines were lost because the log was too slow", status.log_lines_lost);
        find(Severity::Note, &place, what, "");
    }
    let trouble = findings.len();
    findings.extend(status.handlers.iter().filter_map(handler));
    findings.extend(status.queues.iter().filter_map(queue));
    if let Some(config) = config {
        findings.extend(stale(status, config));
    }
    if trouble == 0 {
        let what =
            format!("warrend {} is running and ready, connected to {}", status.version, broker.address);
        findings.insert(0, Finding::ok(Area::Daemon, place, what));
    }
    findings
}

fn handler(handler: &HandlerStatus) -> Option<Finding> {
    let why = handler.held.as_ref().or(handler.last_error.as_ref()).map_or("", String::as_str);
    let find = |severity, remedy: &str| {
        let what = format!("it is {}: {why}", handler.state);
        Some(Finding::new(severity, Area::Daemon, format!("handler {}", handler.name), what, remedy))
    };
    match handler.state {
        HandlerState::Active => None,
        HandlerState::Paused => find(Severity::Note, "warrenctl handler resume NAME"),
        HandlerState::Failing => {
            find(Severity::Error, "mend it, then warrenctl reload; its tasks are parked meanwhile")
        }
        HandlerState::Suspended | HandlerState::Resting => {
            find(Severity::Warning, "warrenctl handlers says until when")
        }
    }
}

fn queue(queue: &QueueStatus) -> Option<Finding> {
    let find = |severity, what: String, remedy: &str| {
        Some(Finding::new(severity, Area::Daemon, format!("queue {}", queue.name), what, remedy))
    };
    let fault = queue.deduplication.as_ref().and_then(|memory| memory.fault.as_ref());
    let unsettled = queue.unsettled.as_ref();
    match (queue.state, fault) {
        (QueueState::Quarantined, _) => find(
            Severity::Error,
            queue.held.clone().unwrap_or_else(|| "what it delivers ends the connection".into()),
            "remove the message that cannot be read, then warrenctl reload",
        ),
        (QueueState::Stuck, _) if let Some(Unsettled { tasks, why }) = unsettled => find(
            Severity::Error,
            format!("it takes no tasks: none of the {tasks} that it may hold can be settled: {why}"),
            "as the reason says; what cannot be settled stays in the queue when warrend stops",
        ),
        (_, None) if let Some(Unsettled { tasks, why }) = unsettled => find(
            Severity::Warning,
            format!("{tasks} of its tasks cannot be settled: {why}"),
            "as the reason says; they take places from other tasks meanwhile",
        ),
        (_, None) if let Some(delays) = &queue.delays => find(
            Severity::Warning,
            delays.clone(),
            "rabbitmqctl list_policies; set the policy again with a pattern such as '^QUEUE$'",
        ),
        (QueueState::Away, _) => {
            find(Severity::Error, "it is not consumed".into(), "warrenctl status says why")
        }
        (QueueState::Paused, _) => find(Severity::Note, "it is paused".into(), "warrenctl queue resume NAME"),
        (_, Some(fault)) => find(
            Severity::Warning,
            format!("finished tasks are remembered in memory only: {fault}"),
            "make room in daemon.state_dir, or make it writable",
        ),
        _ => None,
    }
}

/// What the files say and the daemon does not do yet.
fn stale(status: &Status, config: &Config) -> Option<Finding> {
    let running = |name: &str| status.queues.iter().find(|queue| queue.name == name);
    let mut differs: Vec<String> = Vec::new();
    for queue in &config.queues {
        match running(&queue.name) {
            None => differs.push(format!("queue {} is not consumed", queue.name)),
            Some(now) if (now.prefetch, now.workers) != (queue.prefetch, queue.workers) => {
                differs.push(format!(
                    "queue {} runs with {} × {} instead of {} × {}",
                    queue.name, now.prefetch, now.workers, queue.prefetch, queue.workers
                ));
            }
            Some(_) => {}
        }
    }
    for handler in &config.handlers {
        let now = status.handlers.iter().find(|now| *now.name == *handler.name);
        let limit = handler.limits.timeout.filter(|limit| {
            now.is_some_and(|now| {
                now.state != HandlerState::Failing && u128::from(now.timeout_ms) != limit.as_millis()
            })
        });
        match (now, limit) {
            (None, _) => differs.push(format!("handler {} is not there", handler.name)),
            (_, Some(limit)) => {
                differs.push(format!("handler {} has another timeout than {}", handler.name, span(limit)));
            }
            _ => {}
        }
    }
    (!differs.is_empty()).then(|| {
        let what = format!("the files say something else: {}", differs.join(", "));
        Finding::new(Severity::Note, Area::Daemon, format!("pid {}", status.pid), what, "warrenctl reload")
    })
}

fn socket(file: &FileFact, wanted: u32) -> Option<Finding> {
    let stat = file.stat.as_ref().ok()?;
    let bits = stat.mode & 0o777;
    (bits & !wanted != 0).then(|| {
        let path = file.path.display().to_string();
        let what = format!("its mode is {}, wider than daemon.socket_mode ({wanted:03o})", stat.octal());
        Finding::new(Severity::Warning, Area::Daemon, &path, what, format!("chmod {wanted:03o} {path}"))
    })
}

#[cfg(test)]
mod tests {
    use warren::model::status::{BrokerStatus, ReloadReply};

    use super::super::super::facts::Stat;
    use super::*;

    fn status() -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: 7,
            state: DaemonState::Running,
            ready: true,
            broker: BrokerStatus { state: BrokerState::Connected, ..BrokerStatus::default() },
            ..Status::default()
        }
    }

    fn facts(status: Result<Status, ClientError>) -> DaemonFacts {
        let stat = Stat { mode: 0o666, user: 0, group: 0 };
        let socket = FileFact { path: "/run/warren/control.sock".into(), stat: Ok(stat) };
        DaemonFacts { socket, status, unit: None, limits: None }
    }

    fn failing(state: HandlerState) -> HandlerStatus {
        let last_error = Some("create failed".into());
        HandlerStatus { name: "h".into(), state, last_error, ..HandlerStatus::default() }
    }

    #[test]
    fn what_the_daemon_says_of_itself_is_checked() {
        use Severity::{Error, Note, Ok as Fine, Warning};
        let with = |change: &dyn Fn(&mut Status)| {
            let mut status = status();
            change(&mut status);
            Ok(status)
        };
        let refused =
            || ClientError::NoDaemon { path: "/s".into(), why: std::io::ErrorKind::NotFound.into() };
        let failed = ReloadReply { error: Some("no mount".into()), ..ReloadReply::default() };
        let away = QueueStatus { name: "q".into(), state: QueueState::Away, ..QueueStatus::default() };
        let unsettled = Some(Unsettled { tasks: 4, why: "too large for it".into() });
        let stuck =
            QueueStatus { name: "q".into(), state: QueueState::Stuck, unsettled, ..QueueStatus::default() };
        let partly = QueueStatus { state: QueueState::Consuming, ..stuck.clone() };
        let early =
            QueueStatus { delays: Some("`q.retry.250` is short".into()), unsettled: None, ..partly.clone() };
        let quarantined = QueueStatus {
            state: QueueState::Quarantined,
            held: Some("what it delivers ends the connection (cause)".into()),
            ..away.clone()
        };
        let table = [
            (
                with(&|s| (s.ready, s.queues) = (false, vec![stuck.clone()])),
                vec![
                    (Error, "queue q is stuck"),
                    (Error, "none of the 4 that it may hold can be settled: too large"),
                ],
            ),
            (
                with(&|s| s.queues = vec![partly.clone()]),
                vec![(Fine, ""), (Warning, "4 of its tasks cannot")],
            ),
            (with(&|s| s.queues = vec![early.clone()]), vec![(Fine, ""), (Warning, "q.retry.250")]),
            (with(&|_| ()), vec![(Fine, "running and ready")]),
            (Err(refused()), vec![(Warning, "no daemon answers")]),
            (Err(ClientError::Permission { path: "/s".into() }), vec![(Note, "no permission")]),
            (with(&|s| s.ready = false), vec![(Error, "not ready")]),
            (with(&|s| s.state = DaemonState::Draining), vec![(Note, "draining")]),
            (with(&|s| s.version = "0.0.1".into()), vec![(Warning, "warrend is 0.0.1")]),
            (with(&|s| s.broker.state = BrokerState::Blocked), vec![(Warning, "takes no copies")]),
            (with(&|s| s.last_reload = Some(failed.clone())), vec![(Warning, "reload failed: no mount")]),
            (with(&|s| s.machine_fault = Some("no host: EMFILE".into())), vec![(Error, "no host: EMFILE")]),
            (with(&|s| s.log_lines_lost = 5), vec![(Note, "5 log lines")]),
            (
                with(&|s| s.handlers = vec![failing(HandlerState::Failing)]),
                vec![(Fine, ""), (Error, "create failed")],
            ),
            (
                with(&|s| s.handlers = vec![failing(HandlerState::Suspended)]),
                vec![(Fine, ""), (Warning, "suspended")],
            ),
            (with(&|s| s.handlers = vec![failing(HandlerState::Paused)]), vec![(Fine, ""), (Note, "paused")]),
            (with(&|s| s.queues = vec![away.clone()]), vec![(Fine, ""), (Error, "not consumed")]),
            (
                with(&|s| s.queues = vec![quarantined.clone()]),
                vec![(Fine, ""), (Error, "ends the connection")],
            ),
        ];
        for (status, expected) in table {
            let findings = check(&facts(status), None);
            assert_eq!(findings.len(), expected.len(), "{findings:#?}");
            for (finding, (severity, part)) in findings.iter().zip(expected) {
                assert!(finding.severity == severity && finding.what.contains(part), "{part}: {finding:?}");
            }
        }
    }

    #[test]
    fn a_socket_that_is_open_to_more_than_configured_is_found() {
        let file = facts(Ok(status())).socket;
        assert!(socket(&file, 0o660).is_some_and(|finding| finding.remedy.starts_with("chmod 660 ")));
        assert_eq!(socket(&file, 0o666), None);
    }
}
