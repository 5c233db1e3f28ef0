//! Control requests: the main loop answers each without waiting; what the engine knows, the engine answers.

use tokio::sync::oneshot;

use crate::control::server::Request;
use crate::engine::{EngineCommand, EngineStatus};
use crate::model::status::{DaemonState, Status};

use super::MainLoop;

impl MainLoop {
    pub(super) fn on_request(&mut self, request: Request) {
        match request {
            Request::Reload(reply) => self.request_reload(Some(reply)),
            Request::Ready(reply) => {
                let health = self.health.borrow();
                let _ = reply.send(if health.ready { Ok(()) } else { Err(health.unready.clone()) });
            }
            Request::Active(reply) => self.engine.send(EngineCommand::Active(reply)),
            Request::SetPaused { what, paused, reply } => {
                self.engine.send(EngineCommand::SetPaused(what, paused, reply));
            }
            Request::Cancel { task, reply } => self.engine.send(EngineCommand::Cancel(task, reply)),
            Request::Route { text, queue, message_type, reply } => {
                self.engine.send(EngineCommand::Route { text, queue, message_type, reply });
            }
            Request::Status(reply) => {
                let mine = self.own_status();
                self.ask_engine(move |engine| {
                    let _ = reply.send(Status {
                        broker: engine.broker,
                        queues: engine.queues,
                        handlers: engine.handlers,
                        last_errors: engine.last_errors,
                        machine_fault: engine.machine_fault,
                        ..mine
                    });
                });
            }
            Request::Handlers(reply) => self.ask_engine(move |engine| {
                let _ = reply.send(engine.handlers);
            }),
        }
    }

    fn ask_engine(&self, then: impl FnOnce(EngineStatus) + 'static) {
        let (reply, answer) = oneshot::channel();
        self.engine.send(EngineCommand::Status(reply));
        tokio::task::spawn_local(async move {
            if let Ok(status) = answer.await {
                then(status);
            }
        });
    }

    fn own_status(&self) -> Status {
        let state = match (self.draining, self.ready_given) {
            (true, _) => DaemonState::Draining,
            (false, true) => DaemonState::Running,
            (false, false) => DaemonState::Starting,
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ms: self.started_ms,
            state,
            ready: self.health.borrow().ready,
            reloads: self.reloads.counts,
            log_lines_lost: self.telemetry.lost_lines(),
            last_reload: self.reloads.last.clone(),
            ..Status::default()
        }
    }
}
