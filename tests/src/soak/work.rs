//! The tasks: numbered, of every kind that the ledger fixture knows, decided by the seed.

use std::fmt;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing.
    Ok,
    /// Waits so many milliseconds.
    Slow(u64),
    /// Retries before this attempt.
    Until(u32),
    /// Is rejected.
    Reject,
    /// Kills its host at its first attempt.
    Crash,
    /// Publishes so many follow-ups.
    Emit(u32),
}

/// One task that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// Its `message_id`.
    pub id: String,
    /// When its publishing began, in microseconds since 1970.
    pub at: u64,
    /// What it does.
    pub work: Work,
    /// The broker has confirmed it. If not it may be there or not.
    pub confirmed: bool,
}

impl Work {
    /// Draws one.
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(0..100) {
            0..65 => Self::Ok,
            65..78 => Self::Slow(random.u64(20..300)),
            78..80 => Self::Slow(random.u64(500..1_500)),
            80..88 => Self::Until(random.u32(2..4)),
            88..92 => Self::Reject,
            92..94 => Self::Crash,
            _ => Self::Emit(random.u32(1..3)),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("Ledger ok"),
            Self::Slow(ms) => write!(f, "Ledger slow {ms}"),
            Self::Until(attempt) => write!(f, "Ledger until {attempt}"),
            Self::Reject => f.write_str("Ledger reject"),
            Self::Crash => f.write_str("Ledger crash"),
            Self::Emit(count) => write!(f, "Ledger emit {count}"),
        }
    }
}

impl Task {
    /// The ids that have to be done when this task has come to its end: its own and its follow-ups'. A rejected one
    /// has to be a dead letter instead.
    pub(super) fn to_be_done(&self) -> Vec<String> {
        match self.work {
            Work::Reject => Vec::new(),
            Work::Emit(count) => {
                let follow_ups = (1..=count).map(|n| format!("{}/{n}", self.id));
                follow_ups.chain([self.id.clone()]).collect()
            }
            _ => vec![self.id.clone()],
        }
    }
}
