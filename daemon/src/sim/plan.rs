//! What happens in one run of the simulator: made from a seed, or a part of that, by which a failure is played again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::choice::{Choices, For};
use super::fault::{Fault, FaultSet};
use super::setup::Setup;

/// A run.
#[derive(Debug, Clone)]
pub(super) struct RunPlan {
    pub(super) seed: u64,
    pub(super) setup: Setup,
    /// In the order of their times. A task is named by the number of its operation.
    pub(super) operations: Vec<Operation>,
    /// Faults that are left out although the seed has them.
    pub(super) without: FaultSet,
}

/// Something that happens to the broker, to the machine, or by an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) number: usize,
    /// Since the start.
    pub(super) at: Duration,
    pub(super) what: What,
}

/// The kinds of operations. Queues and handlers by their place in the setup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Publish(TaskPlan),
    /// The task of this number again, equal in everything.
    PublishAgain(usize),
    LoseLink,
    LoseChannel(usize),
    LosePublishing,
    Block(Duration),
    /// Another consumer takes the first message of a queue, and gives it back or acknowledges it.
    TakeElsewhere {
        queue: usize,
        gives_back: bool,
    },
    KillDaemon,
    MachineShort(Duration),
    KillHost,
    Reload,
    PauseQueue(usize, Duration),
    PauseHandler(usize, Duration),
    Cancel(usize),
    /// And a second one so much later.
    Drain(Option<Duration>),
}

/// A task as its producer publishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskPlan {
    pub(super) queue: usize,
    /// `None`: no handler takes it.
    pub(super) handler: Option<usize>,
    /// The value of its key, in a header.
    pub(super) key: Option<u8>,
    pub(super) has_id: bool,
    pub(super) wants_reply: bool,
    /// Due so long after it was published.
    pub(super) delay: Option<Duration>,
    /// Expired so long after it was published.
    pub(super) deadline: Option<Duration>,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl RunPlan {
    pub(super) fn of_seed(seed: u64) -> Self {
        let setup = Setup::of_seed(seed);
        let mut random = Choices(seed).generator(For::Plan);
        let mut operations = Vec::new();
        let mut at = ms(0);
        let tasks = if random.u8(..4) == 0 { random.usize(1..6) } else { random.usize(20..260) };
        let mut burst = if setup.is_flood { tasks } else { 0 };
        for number in 0..tasks {
            if burst == 0 {
                at += ms(random.u64(0..1_500));
                burst = random.usize(1..20);
            }
            burst -= 1;
            at += Duration::from_micros(random.u64(0..if setup.is_flood { 50 } else { 3_000 }));
            let again = setup.faults.contains(&Fault::PublishedTwice) && number > 0 && random.u8(..6) == 0;
            let original = again.then(|| random.usize(..number));
            let what = match original
                .filter(|at| matches!(&operations[*at], Operation { what: What::Publish(_), .. }))
            {
                Some(original) => What::PublishAgain(original),
                None => What::Publish(TaskPlan::random(&setup, &mut random)),
            };
            operations.push(Operation { number, at, what });
        }
        let end = at + ms(random.u64(50..3_000));
        for _ in 0..random.usize(0..12) {
            let number = operations.len();
            let at = Duration::from_micros(random.u64(0..end.as_micros() as u64));
            if let Some(what) = disturbance(&setup, tasks, &mut random) {
                operations.push(Operation { number, at, what });
            }
        }
        operations.sort_by_key(|operation| (operation.at, operation.number));
        Self { seed, setup, operations, without: FaultSet::default() }
    }

    /// Whether a fault that belongs to an event happens to it.
    pub(super) fn has(&self, fault: Fault, a: u64, b: u64) -> bool {
        let rate = self.setup.rates[fault as usize];
        rate > 0 && !self.without.has(fault) && Choices(self.seed).chance(rate, For::Fault(fault), a, b)
    }

    /// When everything that disturbs is over.
    pub(super) fn end(&self) -> Duration {
        self.operations.last().map_or(ms(0), |last| last.at) + ms(1_000)
    }
}

impl TaskPlan {
    fn random(setup: &Setup, random: &mut fastrand::Rng) -> Self {
        let rare = |random: &mut fastrand::Rng| setup.odd_tasks && random.u8(..12) == 0;
        Self {
            queue: random.usize(..setup.queues.len()),
            handler: (!rare(random)).then(|| random.usize(..setup.handlers.len())),
            key: random.bool().then(|| random.u8(..3)),
            has_id: !rare(random),
            wants_reply: rare(random),
            delay: rare(random).then(|| ms(random.u64(1..4_000))),
            deadline: rare(random).then(|| ms(random.u64(1..1_000))),
        }
    }
}

fn disturbance(setup: &Setup, tasks: usize, random: &mut fastrand::Rng) -> Option<What> {
    let kind = setup.faults[random.usize(..setup.faults.len())];
    let queue = random.usize(..setup.queues.len());
    let handler = random.usize(..setup.handlers.len());
    Some(match kind {
        Fault::LinkLost => What::LoseLink,
        Fault::ChannelLost => What::LoseChannel(queue),
        Fault::PublishingLost => What::LosePublishing,
        Fault::Blocked => What::Block(ms(random.u64(1..3_000))),
        Fault::TakenElsewhere => What::TakeElsewhere { queue, gives_back: random.u8(..3) > 0 },
        Fault::DaemonKilled => What::KillDaemon,
        Fault::MachineShort => What::MachineShort(ms(random.u64(1..1_000))),
        Fault::DiedIdle => What::KillHost,
        Fault::Reload => What::Reload,
        Fault::Paused if random.bool() => What::PauseQueue(queue, ms(random.u64(1..2_000))),
        Fault::Paused => What::PauseHandler(handler, ms(random.u64(1..2_000))),
        Fault::Cancelled => What::Cancel(random.usize(..tasks)),
        Fault::Drain => What::Drain(random.bool().then(|| ms(random.u64(1..300)))),
        _ => return None,
    })
}

/// `seed`, or `seed:operations:without`, as a shrunk plan is printed: `17:0-3,9:a40`.
impl fmt::Display for RunPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers: Vec<usize> = self.operations.iter().map(|operation| operation.number).collect();
        numbers.sort_unstable();
        let ranges: Vec<String> = numbers
            .chunk_by(|a, b| a + 1 == *b)
            .map(|range| match range {
                [one] => one.to_string(),
                _ => format!("{}-{}", range[0], range[range.len() - 1]),
            })
            .collect();
        write!(f, "{}:{}:{:x}", self.seed, ranges.join(","), self.without.0)
    }
}

impl FromStr for RunPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not SEED or SEED:OPERATIONS:WITHOUT, as a failure is printed");
        let mut parts = text.split(':');
        let seed = parts.next().and_then(|seed| seed.parse().ok()).ok_or_else(wrong)?;
        let mut plan = Self::of_seed(seed);
        let (Some(operations), Some(without)) = (parts.next(), parts.next()) else { return Ok(plan) };
        let mut kept = Vec::new();
        for range in operations.split(',').filter(|range| !range.is_empty()) {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let (from, to): (usize, usize) = from.parse().ok().zip(to.parse().ok()).ok_or_else(wrong)?;
            kept.push(from..=to);
        }
        plan.operations.retain(|operation| kept.iter().any(|range| range.contains(&operation.number)));
        plan.without = FaultSet(u64::from_str_radix(without, 16).map_err(|_| wrong())?);
        Ok(plan)
    }
}
