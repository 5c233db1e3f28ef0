//! Start-time fair queueing of run time between flows: each flow has a virtual start, the run time that it was charged
//! divided by its weight. Of the flows that wait the one with the least virtual start is served next.
//!
//! A start is charged with the run time that is expected. What the task is known to have run replaces that, at each tick
//! and at its end. A flow that had nothing waiting begins where the others are, as far as they are known to have run: it saves
//! no credit, and an expectation that was too long holds nobody up. A flow that cannot be served for a reason of its own
//! (its own limit, hosts that do not start) does not fall behind meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

/// The least that a start costs: a worker is busy with a task for longer than the task runs.
const LEAST: Duration = Duration::from_micros(20);

/// How late the report of a task may be, beside the time for which the daemon itself was held up. A task without a report is
/// not known to have run in that time: a flow that begins now does not wait for one that has ended.
const REPORT_DELAY: Duration = Duration::from_millis(100);

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

/// What a flow is charged for one task that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::core) struct RunCharge {
    /// What the task is expected to run, or has run if that is more.
    total: Duration,
    /// What it had run when it was looked at last, if it ran then.
    seen: Duration,
    /// What it is known to have run.
    used: Duration,
}

impl RunCharge {
    /// Of a task that starts.
    pub(in crate::engine::core) fn expected(run_time: Duration) -> Self {
        Self { total: run_time.max(LEAST), seen: Duration::ZERO, used: Duration::ZERO }
    }

    /// Of the same task, when it has run so long and is not reported.
    pub(in crate::engine::core) fn running(self, so_far: Duration) -> Self {
        let used = self.seen.saturating_sub(REPORT_DELAY);
        Self { total: self.total.max(so_far), seen: so_far, used }
    }

    /// Of a task that has ended.
    pub(super) fn ended(run_time: Duration) -> Self {
        let run_time = run_time.max(LEAST);
        Self { total: run_time, seen: run_time, used: run_time }
    }

    fn outstanding(self) -> u64 {
        nanos(self.total.saturating_sub(self.used))
    }
}

/// What a flow has had.
#[derive(Debug, Clone)]
struct Account {
    /// Of what its tasks are known to have run.
    used: Virtual,
    /// What its running tasks are charged beyond that, in nanoseconds of run time.
    outstanding: u64,
    /// Where it began when something of it waited last.
    floor: Virtual,
    /// When it was served last, or began, counted in starts and beginnings; 0: never.
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
    /// Flows of which something waits or runs, but for limited ones, by what they are known to have run.
    active: BTreeSet<(Virtual, FlowIndex)>,
    /// Where a flow begins that had nothing waiting. It never decreases.
    now: Virtual,
    /// The most that a flow is known to have run.
    most: Virtual,
    count: u64,
}

impl Account {
    fn new() -> Self {
        Self {
            used: 0,
            outstanding: 0,
            floor: 0,
            served: 0,
            weight: 1,
            waits: false,
            running: 0,
            limited: false,
        }
    }

    fn start(&self) -> Virtual {
        self.used.saturating_add(self.outstanding / u64::from(self.weight))
    }

    /// The flow does not start before `now`, also when its running tasks end sooner than expected.
    fn begin_at(&mut self, now: Virtual) {
        self.floor = now;
        self.keep_floor();
    }

    fn keep_floor(&mut self) {
        self.used += self.floor.saturating_sub(self.start());
    }

    fn position(&self, flow: FlowIndex) -> FlowPosition {
        FlowPosition { start: self.start(), served: self.served, flow }
    }

    fn is_active(&self) -> bool {
        self.waits || self.running > 0
    }

    /// It is to be reckoned with: it is active, and not for a reason of its own behind others.
    fn counts(&self) -> bool {
        self.is_active() && !self.limited
    }

    /// Run time as this flow pays for it.
    fn price(&self, run_time: Duration) -> Virtual {
        nanos(run_time) / u64::from(self.weight)
    }
}

impl Shares {
    /// From now on the flow gets so many shares.
    pub(super) fn set_weight(&mut self, flow: FlowIndex, weight: u16) {
        self.account(flow);
        self.change(flow, |account| account.weight = weight.max(1));
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
        self.accounts.get(flow).is_none_or(|account| !account.is_active() && account.start() <= self.now)
    }

    /// Something of a flow waits now. A flow that had nothing waiting begins where the others are.
    pub(super) fn wait(&mut self, flow: FlowIndex) {
        if self.account(flow).waits {
            return;
        }
        self.count += 1;
        let (now, came) = (self.now, self.count);
        self.change(flow, |account| {
            if account.start() < now || account.served == 0 {
                account.served = came;
            }
            account.begin_at(now);
            account.waits = true;
        });
    }

    /// Nothing of a flow waits any more.
    pub(super) fn stop_waiting(&mut self, flow: FlowIndex) {
        if self.accounts.get(flow).is_some_and(|account| account.waits) {
            self.change(flow, |account| (account.waits, account.limited) = (false, false));
            self.deactivate(flow);
        }
    }

    /// A task of the flow is started.
    pub(super) fn start(&mut self, flow: FlowIndex, charge: RunCharge) {
        self.count += 1;
        let served = self.count;
        self.contend(flow);
        self.reach(first_start(&self.waiting, &self.accounts), |account| account.waits);
        self.change(flow, |account| {
            account.outstanding = account.outstanding.saturating_add(charge.outstanding());
            account.served = served;
            account.running += 1;
        });
    }

    /// More is known of what a task of the flow runs.
    pub(super) fn correct(&mut self, flow: FlowIndex, was: RunCharge, is: RunCharge) {
        self.change(flow, |account| {
            let (before, after) = (account.price(was.used), account.price(is.used));
            account.used = account.used.saturating_add(after).saturating_sub(before);
            let outstanding = account.outstanding.saturating_add(is.outstanding());
            account.outstanding = outstanding.saturating_sub(was.outstanding());
            account.keep_floor();
        });
        let starts = [&self.waiting, &self.running].map(|list| first_start(list, &self.accounts));
        let least = if self.waiting.is_empty() { None } else { starts.into_iter().flatten().min() };
        self.reach(least, |_| true);
    }

    /// A task of the flow has ended.
    pub(super) fn end(&mut self, flow: FlowIndex) {
        self.change(flow, |account| {
            account.running = account.running.saturating_sub(1);
            if account.running == 0 {
                account.outstanding = 0;
            }
        });
        self.deactivate(flow);
    }

    /// The flow waits and cannot be served for a reason of its own: others go on, and it saves no credit meanwhile.
    pub(super) fn limited(&mut self, flow: FlowIndex) {
        if !self.account(flow).limited {
            self.change(flow, |account| account.limited = true);
        }
    }

    /// Whether the flow waits and could not be served for a reason of its own.
    pub(super) fn is_limited(&self, flow: FlowIndex) -> bool {
        self.accounts.get(flow).is_some_and(|account| account.limited)
    }

    /// The flow waits for nothing but a worker.
    pub(super) fn contend(&mut self, flow: FlowIndex) {
        let now = self.now;
        if self.accounts[flow].limited {
            self.change(flow, |account| {
                account.limited = false;
                account.begin_at(now);
            });
        }
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

    /// What flows had while nobody waited is not held against them.
    fn deactivate(&mut self, flow: FlowIndex) {
        if !self.accounts[flow].is_active() && self.waiting.is_empty() && self.running.is_empty() {
            self.now = self.now.max(self.most);
        }
    }

    /// A flow that begins now is not before those that are here: not before the least start of them, as far as one of those
    /// that count is known to have run so much.
    fn reach(&mut self, least_start: Option<Virtual>, counts: impl Fn(&Account) -> bool) {
        let mut used = self.active.iter().rev();
        let most = used.find(|(_, flow)| counts(&self.accounts[*flow])).map_or(0, |(used, _)| *used);
        self.now = self.now.max(least_start.map_or(most, |start| start.min(most)));
    }

    /// Changes an account and keeps the lists in order.
    fn change(&mut self, flow: FlowIndex, change: impl FnOnce(&mut Account)) {
        let account = &mut self.accounts[flow];
        let (before, position) = (account.clone(), account.position(flow));
        change(account);
        let new = account.position(flow);
        let lists = [
            (&mut self.waiting, before.waits, account.waits),
            (&mut self.running, before.running > 0, account.running > 0),
        ];
        for (list, was, is) in lists {
            relist(list, was.then_some(position), is.then_some(new));
        }
        let used = |account: &Account| account.counts().then_some((account.used, flow));
        relist(&mut self.active, used(&before), used(account));
        if account.is_active() {
            self.most = self.most.max(account.used);
        }
    }
}

/// Where something was in a list, and is from now on.
fn relist<T: Ord>(list: &mut BTreeSet<T>, was: Option<T>, is: Option<T>) {
    if was != is {
        was.map(|was| list.remove(&was));
        list.extend(is);
    }
}

/// The least start of those that are not limited.
fn first_start(list: &BTreeSet<FlowPosition>, accounts: &[Account]) -> Option<Virtual> {
    list.iter().find(|position| !accounts[position.flow].limited).map(|position| position.start)
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

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
