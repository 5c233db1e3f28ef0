//! Start-time fair queueing of run time between flows: each flow has a virtual start, the run time that it was charged
//! divided by its weight. Of the flows that wait the one with the least virtual start is served next.
//!
//! A start is charged with the run time that is expected, and corrected as soon as the real one is known. A flow that was
//! idle begins where the others are: it saves no credit. A flow that cannot be served for a reason of its own (its own
//! limit, hosts that do not start) does not fall behind meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

/// The least that a start costs, in nanoseconds: a worker is busy with a task for longer than the task runs.
const LEAST: u64 = 20_000;

/// Virtual time in nanoseconds of a flow of weight 1.
pub(super) type Virtual = u64;

/// A flow: index of its account.
pub(super) type FlowIndex = usize;

/// The position of a flow among others. Of equal ones the flow that was served least recently is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlowPosition {
    pub(super) start: Virtual,
    served: u64,
    pub(super) flow: FlowIndex,
}

/// What a flow has had.
#[derive(Debug, Clone)]
struct Account {
    start: Virtual,
    /// Which start of the queue was its last.
    served: u64,
    weight: u16,
    /// Something of it waits.
    waits: bool,
    /// Tasks of it that were started and have not ended.
    running: usize,
    /// It waits and could not be served for a reason of its own.
    limited: bool,
}

/// The accounts of all flows that share something.
#[derive(Debug, Default, Clone)]
pub(super) struct Shares {
    accounts: Vec<Account>,
    waiting: BTreeSet<FlowPosition>,
    running: BTreeSet<FlowPosition>,
    /// Where a flow begins that was idle: the virtual start of whoever was served last, or of the first of all that are here.
    now: Virtual,
    starts: u64,
}

impl Account {
    fn new() -> Self {
        Self { start: 0, served: 0, weight: 1, waits: false, running: 0, limited: false }
    }

    fn position(&self, flow: FlowIndex) -> FlowPosition {
        FlowPosition { start: self.start, served: self.served, flow }
    }

    fn is_active(&self) -> bool {
        self.waits || self.running > 0
    }

    /// Run time as this flow pays for it.
    fn price(&self, run_time: Duration) -> Virtual {
        let nanos = u64::try_from(run_time.as_nanos()).unwrap_or(u64::MAX).max(LEAST);
        (nanos / u64::from(self.weight)).max(1)
    }
}

impl Shares {
    /// From now on the flow gets so many shares.
    pub(super) fn set_weight(&mut self, flow: FlowIndex, weight: u16) {
        self.account(flow).weight = weight.max(1);
    }

    /// Whether anything was noted of a flow.
    pub(super) fn has(&self, flow: FlowIndex) -> bool {
        flow < self.accounts.len()
    }

    /// Whether something of a flow waits or runs.
    pub(super) fn is_active(&self, flow: FlowIndex) -> bool {
        self.accounts.get(flow).is_some_and(Account::is_active)
    }

    /// Whether a flow would begin where the others are, if something of it came now.
    pub(super) fn is_settled(&self, flow: FlowIndex) -> bool {
        self.accounts.get(flow).is_none_or(|account| !account.is_active() && account.start <= self.now)
    }

    /// Something of a flow waits now.
    pub(super) fn wait(&mut self, flow: FlowIndex) {
        self.account(flow);
        self.activate(flow);
        self.change(flow, |account| account.waits = true);
    }

    /// Nothing of a flow waits any more.
    pub(super) fn stop_waiting(&mut self, flow: FlowIndex) {
        if self.accounts.get(flow).is_some_and(|account| account.waits) {
            self.change(flow, |account| (account.waits, account.limited) = (false, false));
            self.deactivate(flow);
        }
    }

    /// A task of the flow is started, and expected to take so long.
    pub(super) fn start(&mut self, flow: FlowIndex, expected: Duration) {
        self.starts += 1;
        let (now, served) = (self.now, self.starts);
        let mut start = 0;
        self.change(flow, |account| {
            if std::mem::take(&mut account.limited) {
                account.start = account.start.max(now);
            }
            start = account.start;
            account.start = start.saturating_add(account.price(expected));
            account.served = served;
            account.running += 1;
        });
        self.now = self.now.max(start);
    }

    /// What a flow was charged for is something else: `real` instead of `charged`.
    pub(super) fn correct(&mut self, flow: FlowIndex, charged: Duration, real: Duration) {
        self.change(flow, |account| {
            let (charged, real) = (account.price(charged), account.price(real));
            account.start = account.start.saturating_add(real).saturating_sub(charged);
        });
        // Nobody who begins now is before all who are here already.
        let least = |positions: &BTreeSet<FlowPosition>| {
            positions
                .iter()
                .find(|position| !self.accounts[position.flow].limited)
                .map(|position| position.start)
        };
        let least = [least(&self.waiting), least(&self.running)].into_iter().flatten().min();
        self.now = self.now.max(least.unwrap_or(0));
    }

    /// A task of the flow has ended.
    pub(super) fn end(&mut self, flow: FlowIndex) {
        self.change(flow, |account| account.running = account.running.saturating_sub(1));
        self.deactivate(flow);
    }

    /// The flow waits and cannot be served for a reason of its own: others go on, and it saves no credit meanwhile.
    pub(super) fn limited(&mut self, flow: FlowIndex) {
        self.account(flow).limited = true;
    }

    /// The flow is gone. Its index may be given to another.
    pub(super) fn forget(&mut self, flow: FlowIndex) {
        if flow < self.accounts.len() {
            self.change(flow, |account| *account = Account::new());
        }
    }

    /// The first flow that waits, of those that come after `position`.
    pub(super) fn next_waiting(&self, position: Option<FlowPosition>) -> Option<FlowPosition> {
        next_in(&self.waiting, position)
    }

    /// The first flow that waits and has running tasks, of those that come after `position`.
    pub(super) fn next_running(&self, mut position: Option<FlowPosition>) -> Option<FlowPosition> {
        loop {
            position = Some(next_in(&self.running, position)?);
            if position.is_some_and(|position| self.accounts[position.flow].waits) {
                return position;
            }
        }
    }

    /// Run time in the virtual time of a flow.
    pub(super) fn price(&self, flow: FlowIndex, run_time: Duration) -> Virtual {
        self.accounts.get(flow).map_or(0, |account| account.price(run_time))
    }

    /// The position of a flow that waits.
    pub(super) fn position_of(&self, flow: FlowIndex) -> FlowPosition {
        self.accounts[flow].position(flow)
    }

    fn account(&mut self, flow: FlowIndex) -> &mut Account {
        if self.accounts.len() <= flow {
            self.accounts.resize_with(flow + 1, Account::new);
        }
        &mut self.accounts[flow]
    }

    /// A flow that was idle begins where the others are.
    fn activate(&mut self, flow: FlowIndex) {
        if self.accounts[flow].is_active() {
            return;
        }
        let now = self.now;
        self.change(flow, |account| account.start = account.start.max(now));
    }

    /// What a flow had while nobody else was there is not held against it.
    fn deactivate(&mut self, flow: FlowIndex) {
        if !self.accounts[flow].is_active() && self.waiting.is_empty() && self.running.is_empty() {
            self.now = self.now.max(self.accounts[flow].start);
        }
    }

    /// Changes an account and keeps the lists in order.
    fn change(&mut self, flow: FlowIndex, change: impl FnOnce(&mut Account)) {
        let account = &mut self.accounts[flow];
        let (position, waited, ran) = (account.position(flow), account.waits, account.running > 0);
        change(account);
        let (new, waits, runs) = (account.position(flow), account.waits, account.running > 0);
        for (list, was, is) in [(&mut self.waiting, waited, waits), (&mut self.running, ran, runs)] {
            if was == is && position == new {
                continue;
            }
            if was {
                list.remove(&position);
            }
            if is {
                list.insert(new);
            }
        }
    }
}

fn next_in(positions: &BTreeSet<FlowPosition>, after: Option<FlowPosition>) -> Option<FlowPosition> {
    match after {
        None => positions.first().copied(),
        Some(after) => {
            let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
            positions.range(range).next().copied()
        }
    }
}
