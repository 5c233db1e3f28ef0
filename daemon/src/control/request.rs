//! What the control socket asks of the daemon's main loop.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::PauseTarget;
use crate::model::status::{
    ActiveTask, CancelReply, HandlerStatus, PauseReply, ReloadReply, RouteReply, Status,
};

/// From accept to a complete head, and the same again for the body: clients are on this machine.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// One request. A dropped reply is answered as an error; a receiver
/// that is gone means that the client hung up.
#[derive(Debug)]
pub enum Request {
    /// `GET /v1/status`.
    Status(oneshot::Sender<Status>),
    /// `GET /v1/handlers`.
    Handlers(oneshot::Sender<Vec<HandlerStatus>>),
    /// `GET /v1/active`.
    Active(oneshot::Sender<Vec<ActiveTask>>),
    /// `POST /v1/reload`: answered when the reload has ended.
    Reload(oneshot::Sender<ReloadReply>),
    /// `POST /v1/route`.
    Route {
        /// The task's text.
        text: Vec<u8>,
        /// The queue it would come from.
        queue: Option<String>,
        /// The AMQP property `type` it would have.
        message_type: Option<String>,
        reply: oneshot::Sender<RouteReply>,
    },
    /// `POST /v1/pause` and `/v1/resume`; an error is a sentence for the operator.
    SetPaused {
        /// The queue or handler.
        what: PauseTarget,
        /// Pause it; else let it go on.
        paused: bool,
        reply: oneshot::Sender<Result<PauseReply, String>>,
    },
    /// `POST /v1/cancel`; an error is a sentence for the operator.
    Cancel {
        /// The task's id.
        task: String,
        reply: oneshot::Sender<Result<CancelReply, String>>,
    },
    /// `GET /readyz`: whether every configured queue is being consumed and takes tasks, else which one does not.
    Ready(oneshot::Sender<Result<(), String>>),
}
