//! The ledger test: a producer publishes numbered tasks while a seeded sequence of faults runs; in the end every
//! confirmed task was done or is a dead letter, every queue is empty, and every duplicate has a fault to explain it.
//!
//! Two rounds of faults. In the second one the first daemon's process is left alone, so that its threads, descriptors
//! and memory can be compared before and after.

mod field;
mod inflict;
mod plan;
mod producer;
mod report;
mod verdict;
mod work;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::Footprint;
use crate::ledger::now;
use crate::wait;

use self::field::{Field, Usage};
use self::plan::{Fault, Plan};
use self::producer::Producer;
use self::verdict::{Evidence, Findings, Window};

pub use self::plan::Kind;
pub use self::report::Report;

/// For everything to come to its end once the faults are over: 20 attempts of a task with a second between them, and
/// a dead connection that is noticed late.
const SETTLE: Duration = Duration::from_secs(120);
/// Threads of a pool that have nothing to do end after ten seconds.
const POOL: Duration = Duration::from_secs(30);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Soak {
    /// Decides the faults and the tasks.
    pub seed: u64,
    /// How long faults go on, both rounds together.
    pub length: Duration,
    /// The kinds of faults.
    pub kinds: Vec<Kind>,
    /// Where logs and ledgers are kept, if they are.
    pub keep: Option<PathBuf>,
    /// Set from outside: no more faults, only the reckoning.
    pub enough: Arc<AtomicBool>,
}

/// Something that was done.
#[derive(Debug, Clone, Copy)]
struct Done {
    fault: Fault,
    window: Window,
    /// From its end until every daemon had started a task; `None` when the next fault came first.
    recovery: Option<Duration>,
    /// What the first daemon used afterwards.
    footprint: Footprint,
}

impl Soak {
    /// Runs it, printing each fault, and checks everything.
    ///
    /// # Panics
    /// When anything is wrong. The seed is printed then, too.
    pub fn run(&self) -> Report {
        let _seed = ReplayHint(self.seed);
        println!("seed {}, faults for {:?}", self.seed, self.length);
        let mut field = Field::lay("soak", self.keep.as_deref());
        field.places.iter_mut().for_each(field::Place::start);
        let producer = Producer::start(&field.node.uri(), field.queue(), self.seed);
        let begun = Instant::now();
        let mut log = Vec::new();

        let mut rounds = vec![self.round(1, &mut field, &mut log)];
        settle(&mut field, &producer);
        let before = settled_usage(&field, None);
        producer.resume();
        rounds.push(self.round(2, &mut field, &mut log));
        settle(&mut field, &producer);
        let after = settled_usage(&field, Some(&before));
        let lasted = begun.elapsed();

        if field.places[1].daemon.is_none() {
            field.places[1].start();
        }
        assert_one_consumer_each(&field, 2);
        field.take_dead();
        assert_queues_are_empty(&field);
        field.places.iter_mut().for_each(field::Place::drain);
        assert_one_consumer_each(&field, 0);
        assert_queues_are_empty(&field);

        let tasks = producer.tasks();
        let windows: Vec<Window> = log.iter().map(|done| done.window).collect();
        let entries = field.entries();
        let findings = verdict::weigh(Evidence {
            tasks: &tasks,
            entries: &entries,
            dead: &field.dead,
            windows: &windows,
            rounds: &rounds,
        });
        let report = Report::new(self.seed, lasted, &tasks, &log, findings, (before, after));
        println!("{report}");
        report.assert_clean();
        report
    }

    /// Faults in the order of the plan, for half of the time; at least one. From when to when.
    fn round(&self, round: u64, field: &mut Field, log: &mut Vec<Done>) -> (u64, u64) {
        let begun = now();
        let end = Instant::now() + self.length / 2;
        // A plan of its own: how far the first round came depends on the machine.
        for mut fault in Plan::new(self.seed.wrapping_add(round), &self.kinds) {
            // The second round leaves the first daemon's process alone.
            fault.second |= round == 2;
            std::thread::sleep(Duration::from_millis(fault.after_ms));
            log.push(suffer(field, fault));
            println!("{}", report::line(log.len(), &log[log.len() - 1]));
            if Instant::now() >= end || self.enough.load(Ordering::Relaxed) {
                break;
            }
        }
        (begun, now())
    }
}

fn suffer(field: &mut Field, fault: Fault) -> Done {
    let (from, begun) = (now(), Instant::now());
    let was_done = inflict::inflict(field, &fault);
    // Daemons that stood still for less than a heartbeat have lost nothing.
    let harmless = fault.kind == Kind::DeadQueueDeleted && begun.elapsed() < field::HEARTBEAT;
    let ended = Instant::now();
    let recovery = (!fault.piles_up && was_done).then(|| {
        field.wait_recovered();
        ended.elapsed()
    });
    let aftermath = match fault.kind {
        _ if harmless => Duration::ZERO,
        Kind::NodeFrozen | Kind::ProxyStalled | Kind::DeadQueueDeleted | Kind::DelayQueuesDeleted => {
            field::NOTICE
        }
        Kind::HostFrozen => field::TASK_LIMIT,
        _ => Duration::ZERO,
    };
    let to = now() + aftermath.as_micros() as u64;
    let window = Window { kind: fault.kind, from, to, harmless };
    Done { fault, window, recovery, footprint: field.footprint() }
}

/// No more tasks, and everything that was confirmed comes to its end; what does not is for the verdict to name.
fn settle(field: &mut Field, producer: &Producer) {
    producer.pause();
    wait::ask_within(SETTLE, || {
        field.take_dead();
        verdict::unfinished(&producer.tasks(), &field.entries(), &field.dead).is_empty().then_some(())
    });
    field.wait_idle();
}

/// What the idle first daemon uses, once that is what it was `before`, or threads that end by themselves have ended.
fn settled_usage(field: &Field, before: Option<&Usage>) -> Usage {
    let mut last = field.usage();
    let end = Instant::now() + POOL;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let next = field.usage();
        let is_back = before.is_none_or(|before| next.differences(before).is_empty());
        let is_steady = (&next.holdings.threads, &next.holdings.descriptors)
            == (&last.holdings.threads, &last.holdings.descriptors);
        if (is_back && is_steady) || Instant::now() >= end {
            return next;
        }
        last = next;
    }
}

fn assert_one_consumer_each(field: &Field, daemons: usize) {
    let mut consumers = Vec::new();
    // A consumer of a connection that was just closed is listed for a moment.
    for _ in 0..5 {
        consumers = field.consumers();
        if consumers.len() == daemons {
            return;
        }
    }
    panic!("{daemons} daemons and the consumers {consumers:?}");
}

fn assert_queues_are_empty(field: &Field) {
    let left = field.left_over();
    assert!(left.is_empty(), "left over: {left:?}");
}

/// Says how to see a failure again.
struct ReplayHint(u64);

impl Drop for ReplayHint {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the same faults again: SOAK_SEED={}", self.0);
        }
    }
}
