//! The data path: one event loop on one thread that takes deliveries, gives them to plugin hosts, settles them and watches
//! time limits. Nothing in it blocks.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `core` | decides everything: a state machine without clock, I/O and randomness of its own |
//! | `driver` | does it: owns the link to the broker, the hosts, the clock, the loop |

pub(crate) mod core;
mod driver;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::model::status::{
    ActiveTask, BrokerStatus, CancelReply, HandlerStatus, PauseReply, QueueStatus, RecentError, RouteReply,
};
use crate::registry::Registry;

pub use driver::run;

/// What the rest of the daemon asks of the engine.
#[derive(Debug)]
pub enum EngineCommand {
    /// Routes, handlers, limits and queues of a reload that succeeded.
    Swap(Arc<Config>, Registry, oneshot::Sender<()>),
    /// Finish what runs, give back the rest, close. A second one gives everything back now.
    Drain,
    /// Is the loop turning?
    Ping(oneshot::Sender<()>),
    /// For `warrenctl status`.
    Status(oneshot::Sender<EngineStatus>),
    /// For `warrenctl active`.
    Active(oneshot::Sender<Vec<ActiveTask>>),
    /// Pause a queue or handler (`true`), or let it go on; an error is a sentence for the operator.
    SetPaused(PauseTarget, bool, oneshot::Sender<Result<PauseReply, String>>),
    /// Cancel a task by its id; an error is a sentence for the operator.
    Cancel(String, oneshot::Sender<Result<CancelReply, String>>),
    /// For `warrenctl route`.
    Route {
        /// The task's text.
        text: Vec<u8>,
        /// As if it came from this queue; the first configured one when absent.
        queue: Option<String>,
        /// As if the AMQP `type` were set.
        message_type: Option<String>,
        /// Gets the answer.
        reply: oneshot::Sender<RouteReply>,
    },
}

/// What can be paused, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PauseTarget {
    /// A queue: its consumer is cancelled.
    Queue(String),
    /// A handler: its tasks are parked.
    Handler(String),
}

/// The engine's share of `status`.
#[derive(Debug, Default)]
pub struct EngineStatus {
    /// The broker link.
    pub broker: BrokerStatus,
    /// Every queue.
    pub queues: Vec<QueueStatus>,
    /// Every handler.
    pub handlers: Vec<HandlerStatus>,
    /// Newest first.
    pub last_errors: Vec<RecentError>,
    /// Why no plugin host can be started on this machine, if so.
    pub machine_fault: Option<String>,
}

/// What the engine shows without being asked; the newest value is all that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Every configured queue is consumed and takes tasks.
    pub ready: bool,
    /// Which one does not, in a few words for anybody.
    pub unready: String,
    /// One line for systemd's STATUS.
    pub line: String,
    /// The drain has ended; the engine is gone.
    pub ended: bool,
    /// Running tasks, for the drain's time extension.
    pub running: usize,
}

/// Sends commands to the engine from any thread.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    commands: mpsc::UnboundedSender<EngineCommand>,
}

impl EngineHandle {
    /// Hands over a command. A command to an engine that has ended is dropped, and with it its reply channel.
    pub fn send(&self, command: EngineCommand) {
        let _ = self.commands.send(command);
    }
}

/// A channel pair for [`run`].
pub fn channel() -> (EngineHandle, mpsc::UnboundedReceiver<EngineCommand>) {
    let (commands, receiver) = mpsc::unbounded_channel();
    (EngineHandle { commands }, receiver)
}
