//! What a run of the simulator starts with: the queues, the handlers, and how often which fault is injected.

use std::sync::Arc;
use std::time::Duration;

use super::choice::{Choices, For};
use super::fault::Fault;
use crate::config::{self, Breaker, Limits, Rate, Retry, TaskKey};

/// Where a queue puts what comes back to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Where it was, as a classic queue does.
    Place,
    /// To the end, as a quorum queue does.
    End,
    /// To the front, as a quorum queue without a limit of deliveries does.
    Front,
}

/// One queue.
#[derive(Debug, Clone)]
pub(super) struct QueueSetup {
    pub(super) config: config::Queue,
    pub(super) order: Order,
}

/// One handler.
#[derive(Debug, Clone)]
pub(super) struct HandlerSetup {
    pub(super) name: Arc<str>,
    pub(super) limits: Limits,
    pub(super) timeout: Duration,
    /// What a run of it takes.
    pub(super) typical: Duration,
}

/// All of it.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) queues: Vec<QueueSetup>,
    pub(super) handlers: Vec<HandlerSetup>,
    /// In a thousand, for faults that belong to an event.
    pub(super) rates: [u16; Fault::ALL.len()],
    /// The kinds of faults there are; never empty.
    pub(super) faults: Vec<Fault>,
    /// All tasks come at once into a window that holds them, and nothing but the shares decides whose turn it is.
    pub(super) is_flood: bool,
    /// Some tasks have no id, want a reply, are delayed, expire or have no handler.
    pub(super) odd_tasks: bool,
    /// The longest way from one part to another.
    pub(super) latency: Duration,
    /// What happens within such a span is one turn of the daemon.
    pub(super) batch: Duration,
    pub(super) consumer_timeout: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) max_idle_hosts: u16,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The header that tasks with a key have.
pub(super) const KEY: &str = "tenant";

fn one<T: Clone>(of: &[T], random: &mut fastrand::Rng) -> T {
    of[random.usize(..of.len())].clone()
}

impl Setup {
    pub(super) fn of_seed(seed: u64) -> Self {
        let random = &mut Choices(seed).generator(For::Setup);
        let mut rates = [0; Fault::ALL.len()];
        let mut faults = Vec::new();
        for fault in Fault::ALL {
            if random.u8(..5) < 2 {
                faults.push(*fault);
                rates[*fault as usize] = one(&[5, 20, 80, 300], random);
            }
        }
        let is_flood = random.u8(..6) == 0;
        let (queues, handlers) = if is_flood { (1..2, 2..5) } else { (1..4, 1..5) };
        let mut queues: Vec<_> = (0..random.usize(queues)).map(|n| QueueSetup::random(n, random)).collect();
        let mut handlers: Vec<_> =
            (0..random.usize(handlers)).map(|n| HandlerSetup::random(n, random)).collect();
        if is_flood {
            for queue in &mut queues {
                queue.take_all(random);
            }
            for handler in &mut handlers {
                handler.lift_limits();
            }
            faults.retain(|fault| *fault != Fault::LateTurn);
            rates[Fault::LateTurn as usize] = 0;
        }
        if faults.is_empty() {
            faults.push(Fault::Failed);
        }
        Self {
            queues,
            handlers,
            rates,
            faults,
            is_flood,
            odd_tasks: random.u8(..3) == 0,
            latency: one(&[ms(0), Duration::from_micros(300), ms(3), ms(30)], random),
            batch: one(&[ms(0), Duration::from_micros(100), ms(2)], random),
            consumer_timeout: one(&[ms(0), ms(0), ms(0), ms(2_000)], random),
            drain_timeout: one(&[ms(0), ms(40), ms(400), ms(3_000)], random),
            max_idle_hosts: one(&[1, 2, 64], random),
        }
    }
}

impl QueueSetup {
    fn random(n: usize, random: &mut fastrand::Rng) -> Self {
        let mut config = config::Queue::new(&format!("q{n}"));
        config.prefetch = one(&[1, 2, 4, 16], random);
        config.workers = one(&[1, 2, 2, 3], random);
        config.deduplicate = one(&[ms(0), ms(0), ms(4_000), ms(600_000)], random);
        Self { config, order: one(&[Order::Place, Order::End, Order::Front], random) }
    }

    fn take_all(&mut self, random: &mut fastrand::Rng) {
        self.config.prefetch = one(&[64, 256], random);
        self.config.deduplicate = ms(0);
    }
}

impl HandlerSetup {
    pub(super) fn random(n: usize, random: &mut fastrand::Rng) -> Self {
        let typical = one(&[5, 40, 300, 3_000, 15_000, 60_000], random);
        Self {
            name: format!("h{n}").into(),
            limits: limits(random),
            timeout: one(&[ms(90), ms(200), ms(1_000)], random),
            typical: Duration::from_micros(typical),
        }
    }

    fn lift_limits(&mut self) {
        let limits = &mut self.limits;
        (limits.workers, limits.rate, limits.breaker, limits.exclusive_by) = (None, None, None, None);
    }
}

fn limits(random: &mut fastrand::Rng) -> Limits {
    let rate = Rate { tasks: one(&[5, 40, 300], random), unit: ms(1_000), burst: one(&[1, 1, 10], random) };
    let breaker = Breaker { rate: 0.5, window: ms(2_000), tasks: 4, rest: ms(500) };
    Limits {
        workers: one(&[None, None, Some(1), Some(2)], random),
        weight: one(&[1, 1, 3], random),
        fair_by: (random.u8(..4) == 0).then(|| TaskKey::Header(KEY.into())),
        exclusive_by: (random.u8(..4) == 0).then(|| TaskKey::Header(KEY.into())),
        rate: (random.u8(..5) == 0).then_some(rate),
        grace: one(&[ms(20), ms(100)], random),
        retry: Retry {
            attempts: one(&[1, 2, 3, 3, 5], random),
            delay: one(&[ms(0), ms(100), ms(700)], random),
            factor: 2.0,
            jitter: one(&[0.0, 0.5], random),
            ..Retry::default()
        },
        max_tasks: one(&[0, 0, 1, 3], random),
        idle_timeout: one(&[ms(100), ms(2_000), ms(60_000)], random),
        breaker: (random.u8(..4) == 0).then_some(breaker),
        ..Limits::default()
    }
}
