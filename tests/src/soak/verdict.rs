//! What the ledger, the dead letters and the faults say about each other. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::plan::Kind;
use super::work::{Task, Work};
use crate::ledger::Entry;

/// When a fault could have an effect, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// What it was.
    pub kind: Kind,
    /// From its beginning.
    pub from: u64,
    /// Until everything had recovered from it.
    pub to: u64,
    /// It was over before anything could time out: it explains nothing.
    pub harmless: bool,
}

/// Everything that is known when it is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'a> {
    /// What was published.
    pub tasks: &'a [Task],
    /// What ran, in the order of time.
    pub entries: &'a [Entry],
    /// The ids of all dead letters, as often as there were letters.
    pub dead: &'a [String],
    /// What was done to it.
    pub windows: &'a [Window],
    /// From when to when tasks were published and faults done.
    pub rounds: &'a [(u64, u64)],
}

/// What it comes to.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Tasks that the broker confirmed and that ended neither done nor dead; follow-ups included.
    pub lost: Vec<String>,
    /// Dead letters of tasks that had no reason to die.
    pub wrongly_dead: Vec<String>,
    /// Ids in the ledger that nobody published.
    pub unknown: Vec<String>,
    /// Executions beyond the first, by the fault that explains them.
    pub duplicates: BTreeMap<Kind, usize>,
    /// Executions beyond the first that no fault explains.
    pub unexplained: Vec<String>,
    /// Executions.
    pub executions: usize,
    /// Of them, those that the handler was told were redelivered.
    pub redelivered: usize,
    /// Tasks and follow-ups that were done.
    pub done: usize,
    /// Tasks that are dead letters.
    pub dead: usize,
    /// Dead letters beyond the first of a task.
    pub dead_again: usize,
    /// The longest time without a start, and the fault in it.
    pub longest_gap: Option<Gap>,
}

/// A time without a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// How long.
    pub micros: u64,
    /// What was going on.
    pub during: Option<Kind>,
}

impl Findings {
    /// Whether nothing is wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.lost.is_empty()
            && self.wrongly_dead.is_empty()
            && self.unknown.is_empty()
            && self.unexplained.is_empty()
    }

    /// Duplicates of any fault.
    pub(super) fn duplicates(&self) -> usize {
        self.duplicates.values().sum()
    }
}

/// Confirmed tasks, and their follow-ups, that have not come to their end yet: the id and the task it belongs to.
pub(super) fn unfinished<'a>(
    tasks: &'a [Task],
    entries: &[Entry],
    dead: &[String],
) -> Vec<(String, &'a Task)> {
    let done: BTreeSet<&str> = done(entries).collect();
    let dead: BTreeSet<&str> = dead.iter().map(String::as_str).collect();
    let mut unfinished = Vec::new();
    for task in tasks.iter().filter(|task| task.confirmed) {
        if dead.contains(&*task.id) {
            continue; // whether rightly is another question
        }
        let open = task.to_be_done().into_iter().filter(|id| !done.contains(&**id));
        let letter = (task.work == Work::Reject).then(|| task.id.clone());
        unfinished.extend(open.chain(letter).map(|id| (id, task)));
    }
    unfinished
}

/// Weighs everything.
pub(super) fn weigh(evidence: Evidence<'_>) -> Findings {
    let published: HashMap<&str, &Task> = evidence.tasks.iter().map(|task| (&*task.id, task)).collect();
    let known = |id: &str| published.contains_key(root(id));
    let dead: BTreeSet<&String> = evidence.dead.iter().collect();
    let may_die = |id: &str| published.get(id).is_some_and(|task| task.work == Work::Reject);
    let starts = || evidence.entries.iter().filter(|entry| entry.what == "start");
    let mut findings = Findings {
        lost: lost(evidence),
        wrongly_dead: dead.iter().filter(|id| !may_die(id)).map(|id| (*id).clone()).collect(),
        unknown: starts().filter(|entry| !known(&entry.id)).map(|entry| entry.id.clone()).collect(),
        executions: starts().count(),
        redelivered: starts().filter(|entry| entry.redelivered).count(),
        done: done(evidence.entries).collect::<BTreeSet<_>>().len(),
        dead: dead.len(),
        dead_again: evidence.dead.len() - dead.len(),
        longest_gap: longest_gap(&evidence),
        ..Findings::default()
    };
    let published_at = |id: &str| published.get(root(id)).map(|task| task.at);
    for duplicate in duplicates(evidence.entries, published_at) {
        match duplicate.explained_by(evidence.windows) {
            Some(kind) => *findings.duplicates.entry(kind).or_default() += 1,
            None => findings.unexplained.push(duplicate.to_string()),
        }
    }
    findings
}

/// What did not come to its end, with the last that the ledger knows of it.
fn lost(evidence: Evidence<'_>) -> Vec<String> {
    let unfinished = unfinished(evidence.tasks, evidence.entries, evidence.dead);
    let last = |id: &str| {
        let entry = evidence.entries.iter().rev().find(|entry| entry.id == id);
        entry.map_or_else(
            || "never started".to_owned(),
            |entry| format!("{} of attempt {} at {}", entry.what, entry.attempt, entry.at),
        )
    };
    unfinished.into_iter().map(|(id, task)| format!("{id} ({}): {}", task.work, last(&id))).collect()
}

/// An execution that one delivery of each attempt would not have needed.
struct Duplicate<'a> {
    entry: &'a Entry,
    /// When the task it belongs to was published. Not when it was first started: a copy whose confirm was lost is made
    /// again, and both may wait in the queue until the fault is over.
    since: u64,
    /// The same attempt ran before; otherwise the task was done before.
    same_attempt: bool,
}

impl Duplicate<'_> {
    /// The newest fault in the task's life before this execution that can have caused it.
    fn explained_by(&self, windows: &[Window]) -> Option<Kind> {
        let can = |kind: Kind| kind.loses_settlements() || (!self.same_attempt && kind.fails_attempts());
        let explains = |window: &&Window| {
            window.from <= self.entry.at && window.to >= self.since && !window.harmless && can(window.kind)
        };
        windows.iter().rev().find(explains).map(|window| window.kind)
    }
}

impl std::fmt::Display for Duplicate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Entry { id, attempt, at, pid, .. } = self.entry;
        let why = if self.same_attempt { "ran before" } else { "was done before" };
        write!(
            f,
            "{id} attempt {attempt} at {at} in host {pid} {why}; its task was published at {}",
            self.since
        )
    }
}

fn duplicates(entries: &[Entry], published_at: impl Fn(&str) -> Option<u64>) -> Vec<Duplicate<'_>> {
    let (mut ran, mut done) = (BTreeSet::new(), BTreeSet::new());
    let mut duplicates = Vec::new();
    for entry in entries {
        // What nobody published is named elsewhere.
        let since = published_at(&entry.id).unwrap_or(entry.at);
        match &*entry.what {
            "start" => {
                let same_attempt = !ran.insert((&entry.id, entry.attempt));
                if same_attempt || done.contains(&entry.id) {
                    duplicates.push(Duplicate { entry, since, same_attempt });
                }
            }
            "done" => {
                done.insert(&entry.id);
            }
            _ => {}
        }
    }
    duplicates
}

/// Between two starts of one round.
fn longest_gap(evidence: &Evidence<'_>) -> Option<Gap> {
    let starts = |(from, to): &(u64, u64)| {
        let times = evidence.entries.iter().filter(|entry| entry.what == "start").map(|entry| entry.at);
        times.filter(|at| (from..=to).contains(&at)).collect::<Vec<u64>>()
    };
    let gaps = evidence
        .rounds
        .iter()
        .flat_map(|round| starts(round).windows(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>());
    let (from, to) = gaps.max_by_key(|(from, to)| to - from)?;
    let overlap = |window: &&Window| window.to.min(to).saturating_sub(window.from.max(from));
    let during = evidence.windows.iter().filter(|window| overlap(window) > 0).max_by_key(overlap);
    Some(Gap { micros: to - from, during: during.map(|window| window.kind) })
}

fn done(entries: &[Entry]) -> impl Iterator<Item = &str> {
    entries.iter().filter(|entry| entry.what == "done").map(|entry| &*entry.id)
}

/// The task that a follow-up, `ID/N`, belongs to.
fn root(id: &str) -> &str {
    id.split_once('/').map_or(id, |(root, _)| root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, what: &str, id: &str, attempt: u32) -> Entry {
        Entry {
            at,
            what: what.to_owned(),
            id: id.to_owned(),
            attempt,
            redelivered: false,
            pid: 1,
            version: 1,
        }
    }

    fn task(id: &str, work: Work) -> Task {
        Task { id: id.to_owned(), at: 10, work, confirmed: true }
    }

    fn weighed(tasks: &[Task], entries: &[Entry], dead: &[&str], windows: &[Window]) -> Findings {
        let dead: Vec<String> = dead.iter().map(|id| (*id).to_owned()).collect();
        weigh(Evidence { tasks, entries, dead: &dead, windows, rounds: &[(0, 50), (60, 200)] })
    }

    #[test]
    fn what_was_done_or_rejected_is_clean() {
        let tasks = [task("a", Work::Ok), task("b", Work::Reject), task("c", Work::Emit(1))];
        let entries = [
            entry(1, "start", "a", 1),
            entry(2, "done", "a", 1),
            entry(3, "start", "c", 1),
            entry(4, "done", "c", 1),
            entry(5, "start", "c/1", 1),
            entry(6, "done", "c/1", 1),
        ];
        let findings = weighed(&tasks, &entries, &["b"], &[]);
        assert!(findings.is_clean(), "{findings:?}");
        assert_eq!((findings.executions, findings.done, findings.dead), (3, 3, 1));
    }

    #[test]
    fn a_confirmed_task_that_did_not_end_is_lost_and_an_unconfirmed_one_is_not() {
        let unsure = Task { confirmed: false, ..task("b", Work::Ok) };
        let tasks = [task("a", Work::Ok), unsure, task("c", Work::Reject), task("d", Work::Emit(2))];
        let entries = [entry(1, "start", "a", 1), entry(2, "done", "d", 1), entry(3, "done", "d/2", 1)];
        let lost = [
            "a (Ledger ok): start of attempt 1 at 1",
            "c (Ledger reject): never started",
            "d/1 (Ledger emit 2): never started",
        ];
        assert_eq!(weighed(&tasks, &entries, &[], &[]).lost, lost);
    }

    #[test]
    fn a_dead_letter_of_a_task_that_should_have_been_done_is_named() {
        let findings = weighed(&[task("a", Work::Ok)], &[], &["a"], &[]);
        assert_eq!((findings.wrongly_dead, findings.lost), (vec!["a".to_owned()], vec![]));
    }

    #[test]
    fn what_nobody_published_is_named() {
        assert_eq!(weighed(&[], &[entry(1, "start", "x", 1)], &[], &[]).unknown, ["x"]);
    }

    #[test]
    fn a_duplicate_is_explained_by_a_fault_between_publishing_and_the_second_execution() {
        let tasks = [task("a", Work::Ok)];
        let twice = [entry(10, "start", "a", 1), entry(11, "done", "a", 1), entry(30, "start", "a", 1)];
        let window = |kind, from, to| Window { kind, from, to, harmless: false };
        for (windows, explained) in [
            (vec![], false),
            (vec![window(Kind::NodeKilled, 12, 20)], true),
            (vec![window(Kind::NodeKilled, 5, 10)], true),
            (vec![window(Kind::NodeKilled, 5, 9)], false),
            (vec![window(Kind::NodeKilled, 31, 40)], false),
            (vec![window(Kind::Reloaded, 12, 20)], false),
            (vec![window(Kind::HostKilled, 12, 20)], false),
            (vec![Window { harmless: true, ..window(Kind::DeadQueueDeleted, 12, 20) }], false),
        ] {
            let findings = weighed(&tasks, &twice, &[], &windows);
            assert_eq!(findings.duplicates(), usize::from(explained), "{windows:?}");
            assert_eq!(findings.unexplained.len(), usize::from(!explained), "{windows:?}");
        }
    }

    #[test]
    fn a_fault_before_the_first_start_explains_a_second_copy_of_what_was_published_before_it() {
        let twice = [entry(10, "start", "a", 1), entry(11, "done", "a", 1), entry(12, "start", "a", 1)];
        let window = Window { kind: Kind::ConnectionsClosed, from: 5, to: 9, harmless: false };
        for (at, explained) in [(4, 1), (8, 1), (10, 0)] {
            let task = Task { at, ..task("a", Work::Ok) };
            let findings = weighed(&[task], &twice, &[], &[window]);
            assert_eq!(
                (findings.duplicates(), findings.unexplained.len()),
                (explained, 1 - explained),
                "{at}"
            );
        }
    }

    #[test]
    fn a_task_that_ran_again_after_it_was_done_may_have_lost_its_host() {
        let tasks = [task("a", Work::Ok)];
        let again = [entry(10, "start", "a", 1), entry(11, "done", "a", 1), entry(30, "start", "a", 2)];
        let window = Window { kind: Kind::HostKilled, from: 11, to: 20, harmless: false };
        assert_eq!(weighed(&tasks, &again, &[], &[window]).duplicates[&Kind::HostKilled], 1);
        assert_eq!(weighed(&tasks, &again, &[], &[]).unexplained.len(), 1);
    }

    #[test]
    fn another_attempt_of_a_task_that_was_not_done_is_no_duplicate() {
        let entries = [entry(1, "start", "a", 1), entry(2, "retry", "a", 1), entry(3, "start", "a", 2)];
        let findings = weighed(&[task("a", Work::Until(2))], &entries, &[], &[]);
        assert_eq!((findings.duplicates(), findings.unexplained.len()), (0, 0));
    }

    #[test]
    fn the_longest_gap_is_within_a_round_and_names_the_fault_that_fills_it() {
        let start = |at| entry(at, "start", "a", 1);
        // Between 40 and 100 lies the end of the first round.
        let entries = [start(10), start(40), start(100), start(120), start(170)];
        let window = |kind, from, to| Window { kind, from, to, harmless: false };
        let windows = [window(Kind::HostFrozen, 110, 122), window(Kind::NodeFrozen, 121, 169)];
        let gap = weighed(&[], &entries, &[], &windows).longest_gap;
        assert_eq!(gap, Some(Gap { micros: 50, during: Some(Kind::NodeFrozen) }));
    }
}
