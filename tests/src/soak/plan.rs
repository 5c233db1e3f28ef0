//! Which faults happen, in which order: decided by the seed alone.

use std::fmt;

/// What can be done to the broker, the network, the daemons and their plugin hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The node is killed with SIGKILL and started again.
    NodeKilled,
    /// `rabbitmqctl stop_app`, `start_app`.
    NodeStopped,
    /// SIGSTOP of the node, SIGCONT after a while.
    NodeFrozen,
    /// `rabbitmqctl close_all_connections`.
    ConnectionsClosed,
    /// The first daemon's connections are reset.
    ProxyCut,
    /// Nothing passes between the first daemon and the node for a while; everything stays open.
    ProxyStalled,
    /// A memory alarm for a while: nobody may publish.
    MemoryAlarm,
    /// The dead letters are taken out and their queue is deleted; the daemons stand still meanwhile.
    DeadQueueDeleted,
    /// The delay queues are deleted when they are empty; the daemons stand still meanwhile.
    DelayQueuesDeleted,
    /// A daemon is killed with SIGKILL and started again.
    DaemonKilled,
    /// A daemon drains on SIGTERM and is started again.
    DaemonDrained,
    /// SIGHUP, with a plugin of another version in the first daemon's directory.
    Reloaded,
    /// A plugin host is killed with SIGKILL.
    HostKilled,
    /// A plugin host is stopped with SIGSTOP and left so.
    HostFrozen,
    /// The second daemon drains and stays away, or comes back.
    SecondToggled,
}

/// One fault to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// What happens.
    pub kind: Kind,
    /// How long it lasts, where that is open.
    pub lasts_ms: u64,
    /// It happens to the second daemon, where there is a choice.
    pub second: bool,
    /// Pause before it.
    pub after_ms: u64,
    /// The next one follows whether or not the daemons have recovered from it.
    pub piles_up: bool,
}

/// The endless sequence of one seed. Every kind occurs once before any occurs again.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    random: fastrand::Rng,
    kinds: Vec<Kind>,
    round: Vec<Kind>,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 15] = [
        Self::NodeKilled,
        Self::NodeStopped,
        Self::NodeFrozen,
        Self::ConnectionsClosed,
        Self::ProxyCut,
        Self::ProxyStalled,
        Self::MemoryAlarm,
        Self::DeadQueueDeleted,
        Self::DelayQueuesDeleted,
        Self::DaemonKilled,
        Self::DaemonDrained,
        Self::Reloaded,
        Self::HostKilled,
        Self::HostFrozen,
        Self::SecondToggled,
    ];

    /// Those that are over within a second or two.
    pub const QUICK: [Self; 9] = [
        Self::ConnectionsClosed,
        Self::ProxyCut,
        Self::DeadQueueDeleted,
        Self::DaemonKilled,
        Self::DaemonDrained,
        Self::Reloaded,
        Self::HostKilled,
        Self::HostFrozen,
        Self::SecondToggled,
    ];

    /// Whether a task may run again because of it although its attempt did not fail: an unsettled delivery, an ack or
    /// a confirm was lost. A drain, a reload and a memory alarm have no right to that.
    pub fn loses_settlements(self) -> bool {
        match self {
            Self::NodeKilled
            | Self::NodeStopped
            | Self::NodeFrozen
            | Self::ConnectionsClosed
            | Self::ProxyCut
            | Self::ProxyStalled
            | Self::DeadQueueDeleted
            | Self::DelayQueuesDeleted
            | Self::DaemonKilled => true,
            Self::MemoryAlarm
            | Self::DaemonDrained
            | Self::Reloaded
            | Self::HostKilled
            | Self::HostFrozen
            | Self::SecondToggled => false,
        }
    }

    /// Whether it fails attempts, so that a task which had come to its end, but had not been reported, runs again as
    /// its next attempt.
    pub fn fails_attempts(self) -> bool {
        matches!(self, Self::HostKilled | Self::HostFrozen)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NodeKilled => "node killed",
            Self::NodeStopped => "node stopped",
            Self::NodeFrozen => "node frozen",
            Self::ConnectionsClosed => "connections closed",
            Self::ProxyCut => "proxy cut",
            Self::ProxyStalled => "proxy stalled",
            Self::MemoryAlarm => "memory alarm",
            Self::DeadQueueDeleted => "dead queue deleted",
            Self::DelayQueuesDeleted => "delay queues deleted",
            Self::DaemonKilled => "daemon killed",
            Self::DaemonDrained => "daemon drained",
            Self::Reloaded => "reloaded",
            Self::HostKilled => "host killed",
            Self::HostFrozen => "host frozen",
            Self::SecondToggled => "second daemon toggled",
        })
    }
}

impl Plan {
    /// The sequence of `seed` over these kinds.
    pub(super) fn new(seed: u64, kinds: &[Kind]) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), kinds: kinds.to_vec(), round: Vec::new() }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.round.is_empty() {
            self.round.clone_from(&self.kinds);
            self.random.shuffle(&mut self.round);
        }
        Some(Fault {
            kind: self.round.pop()?,
            lasts_ms: self.random.u64(1_000..7_000),
            second: self.random.bool(),
            after_ms: self.random.u64(200..3_000),
            piles_up: self.random.u8(0..4) == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_replays_its_sequence_and_another_one_has_another() {
        let sequence = |seed| Plan::new(seed, &Kind::ALL).take(50).collect::<Vec<_>>();
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
    }

    #[test]
    fn every_kind_occurs_before_any_occurs_again() {
        let kinds: BTreeSet<Kind> =
            Plan::new(1, &Kind::ALL).take(Kind::ALL.len()).map(|fault| fault.kind).collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
    }
}
