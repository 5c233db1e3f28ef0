//! What the core wants done. The driver performs actions in their order and decides nothing.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::keys::EntryKey;
use crate::broker::hops::Wait;
use crate::broker::{ConsumerId, Delivery};
use crate::config::{self, Config};
use crate::dedup;
use crate::engine::Health;
use crate::host::{HostId, Seq};
use crate::model::{DeadReason, FollowUp, TaskError, TaskId, TaskResult};
use crate::registry::Generation;

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Acknowledge a delivery.
    Ack {
        /// The subscription it came by.
        consumer: ConsumerId,
        /// Its tag there.
        tag: u64,
    },
    /// Give a delivery back to its queue.
    Requeue {
        /// The subscription it came by.
        consumer: ConsumerId,
        /// Its tag there.
        tag: u64,
    },
    /// Consume exactly these queues, from the broker that this configuration names.
    Consume { config: Arc<Config>, queues: Vec<config::Queue> },
    /// Bound the memory for larger bodies.
    SetMaxTaskBytes(u64),
    /// Try again at once what is quarantined.
    RetryQuarantined,
    /// Cancel every consumer; [`Event::ConsumersStopped`](super::Event::ConsumersStopped) follows.
    StopConsuming,
    /// Start a plugin host.
    StartHost {
        /// Under this id.
        host: HostId,
        /// Of this generation.
        generation: Arc<Generation>,
        /// How long loading the plugin and `create` may take.
        create_timeout: Duration,
    },
    /// Write a task to a host: [`Core::with_task`](super::Core::with_task) has it.
    SendTask {
        host: HostId,
        /// The task's number there.
        seq: Seq,
        entry: EntryKey,
    },
    /// Ask a host to stop a task.
    CancelTask {
        host: HostId,
        /// The task's number there.
        seq: Seq,
    },
    /// Ask a host for a task back that it has not started.
    RecallTask {
        host: HostId,
        /// The task's number there.
        seq: Seq,
    },
    /// Have a host finish what it has and end.
    QuitHost(HostId),
    /// Kill a host.
    KillHost(HostId),
    /// Publish something for a task.
    Publish(Box<Copy>),
    /// Hand an order to the store of finished tasks.
    Dedup(dedup::StoreOrder),
    /// Show the health of the engine.
    Show(Health),
    /// The drain has ended; no event is wanted any more.
    Drained,
}

/// What is published for a task before it is acknowledged.
#[derive(Debug)]
pub(crate) struct Copy {
    /// Names the publication in [`Event::Copy`](super::Event::Copy).
    pub(crate) entry: EntryKey,
    /// The original.
    pub(crate) delivery: Rc<Delivery>,
    /// The queue it came from.
    pub(crate) queue: Arc<config::Queue>,
    /// The handler, when one is known.
    pub(crate) handler: Option<Arc<str>>,
    /// The task's id.
    pub(crate) id: TaskId,
    /// The attempt that ended, or that it would have been.
    pub(crate) attempt: u32,
    /// How often its start was cut short, as the original says.
    pub(crate) redeliveries: u32,
    /// What it is.
    pub(crate) kind: CopyKind,
}

/// The kinds of publications.
#[derive(Debug)]
pub(crate) enum CopyKind {
    /// The task again.
    Again(Again),
    /// The task, to its next wait: it is not due yet.
    Onward(Wait),
    /// A dead letter, and the reply to whoever waits for the task's end.
    Dead {
        reason: DeadReason,
        /// What went wrong.
        error: TaskError,
    },
    /// The follow-ups of a task that is done, in order, and at the end the reply.
    FollowUps {
        /// The follow-ups.
        follow_ups: Vec<FollowUp>,
        /// What the reply says.
        result: Option<TaskResult>,
    },
}

/// How the copy of a task that is to run again differs from its original.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Again {
    /// How long it stays away.
    pub(crate) delay: Duration,
    /// The attempt that it will be.
    pub(crate) attempt: u32,
    /// How often its start was cut short.
    pub(crate) redeliveries: u32,
    /// What failed; `None`: what failed before stays on record.
    pub(crate) failure: Option<TaskError>,
}
