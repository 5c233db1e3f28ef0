//! Random choices that are found by what they are for, and not by when they are asked: a choice stays the same when another
//! part of the plan is left out, so that a failing plan can be made smaller.

use std::time::Duration;

use super::fault::Fault;

/// What a choice is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum For {
    Setup,
    Plan,
    Core,
    Fault(Fault),
    Latency,
    Tick,
    HostStart,
    Outcome,
    RunTime,
    Wish,
    Publish,
    Confirm,
    Pause,
    Lost,
    Reload,
    Store,
    Restart,
}

impl For {
    fn code(self) -> u64 {
        match self {
            Self::Setup => 1,
            Self::Plan => 2,
            Self::Core => 3,
            Self::Latency => 4,
            Self::Tick => 6,
            Self::HostStart => 7,
            Self::Outcome => 8,
            Self::RunTime => 9,
            Self::Wish => 10,
            Self::Publish => 11,
            Self::Confirm => 12,
            Self::Pause => 13,
            Self::Lost => 14,
            Self::Reload => 15,
            Self::Store => 16,
            Self::Restart => 17,
            Self::Fault(fault) => 100 + fault as u64,
        }
    }
}

/// The choices of one seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choices(pub(super) u64);

impl Choices {
    /// Any number.
    pub(super) fn number(self, what: For, a: u64, b: u64) -> u64 {
        let mut n = mix(self.0 ^ 0x9e37_79b9_7f4a_7c15);
        for part in [what.code(), a, b] {
            n = mix(n ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93));
        }
        n
    }

    /// A number below `end`.
    pub(super) fn below(self, end: u64, what: For, a: u64, b: u64) -> u64 {
        self.number(what, a, b) % end.max(1)
    }

    /// True so often in a thousand.
    pub(super) fn chance(self, permille: u16, what: For, a: u64, b: u64) -> bool {
        self.below(1000, what, a, b) < u64::from(permille)
    }

    /// A span from `from` to `to`.
    pub(super) fn span(self, from: Duration, to: Duration, what: For, a: u64, b: u64) -> Duration {
        let micros = (to.saturating_sub(from)).as_micros() as u64;
        from + Duration::from_micros(self.below(micros + 1, what, a, b))
    }

    /// A generator of its own, for what is made in one go.
    pub(super) fn generator(self, what: For) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.number(what, 0, 0))
    }
}

/// The finalizer of splitmix64.
fn mix(mut n: u64) -> u64 {
    n ^= n >> 30;
    n = n.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n ^= n >> 27;
    n = n.wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
