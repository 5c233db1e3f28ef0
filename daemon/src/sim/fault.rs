//! The kinds of faults that the simulator injects, and how often each was.

use std::fmt;

macro_rules! faults {
    ($($name:ident $words:literal),* $(,)?) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Fault { $($name),* }

        impl Fault {
            /// Every kind there is.
            pub(super) const ALL: &'static [Fault] = &[$(Fault::$name),*];

            fn words(self) -> &'static str {
                match self { $(Fault::$name => $words),* }
            }
        }
    };
}

faults! {
    LinkLost "consuming connection lost",
    ChannelLost "single subscription lost",
    AckLost "settlement lost with its link",
    DeliveryLost "delivery lost with its link",
    PublishingLost "publishing connection lost",
    Blocked "publishing blocked",
    Refused "copy refused",
    ConfirmLost "copy taken and its confirm lost",
    ConfirmLate "confirm late",
    Unacceptable "copy never taken",
    FollowUpFailed "follow-up refused",
    DelayCutShort "delay queue gave back too early",
    TakenElsewhere "message taken by another consumer",
    PublishedTwice "task published twice",
    DaemonKilled "daemon killed",
    RecordLost "record of a finished task lost with the daemon",
    MachineShort "no process can be started",
    CreateFailed "create failed",
    SlowStart "slow start",
    DiedIdle "host died idle",
    DiedReading "host died before a start",
    DiedRunning "host died under a task",
    DiedReporting "host died before a report",
    Faulted "fault returned",
    Failed "task failed",
    CancelIgnored "cancel ignored",
    TimedOut "time limit reached",
    RecallLate "recall too late",
    SlowQuit "host slow to quit",
    Reload "reload",
    Paused "paused",
    Cancelled "task cancelled",
    Drain "drain",
    SecondDrain "second drain",
    LateTurn "turn late",
}

/// How often each kind of fault was injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Faults([u64; Fault::ALL.len()]);

impl Default for Faults {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, others) in self.0.iter_mut().zip(other.0) {
            *mine += others;
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in Fault::ALL {
            writeln!(f, "  {:>12} {}", self.0[*fault as usize], fault.words())?;
        }
        Ok(())
    }
}

/// A set of kinds of faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FaultSet(pub(super) u64);

impl FaultSet {
    pub(super) fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u64) != 0
    }

    pub(super) fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u64)
    }
}
