//! What a process holds of the system, for tests that nothing leaks: its threads by name and its descriptors by kind.
//! Totals are not enough: one thread more hides behind another one that has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The runtime's threads for what may block. Each ends by itself, ten seconds after its last work.
const POOL: &str = "tokio-rt-worker";

/// What is held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// How many threads have each name, those of the pool apart.
    pub threads: BTreeMap<String, usize>,
    /// Threads of the pool.
    pub pool: usize,
    /// Open descriptors by what they are: `socket`, `pipe`, `memfd`, `anon_inode:[eventfd]`, a path.
    pub descriptors: BTreeMap<String, usize>,
}

impl Holdings {
    /// What this process holds now.
    ///
    /// # Panics
    /// When it is not there.
    pub fn of(pid: u32) -> Self {
        let process = Path::new("/proc").join(pid.to_string());
        let mut threads = count(&process.join("task"), |task| fs::read_to_string(task.join("comm")).ok());
        let pool = threads.remove(POOL).unwrap_or(0);
        let descriptors = count(&process.join("fd"), |descriptor| {
            fs::read_link(descriptor).ok().map(|target| kind(&target))
        });
        Self { threads, pool, descriptors }
    }

    /// Where this differs from what was held before, more or less; empty when it does not. Threads of the pool that
    /// were there before excuse none that are there now: they have to end.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut found = differences("threads", &self.threads, &before.threads);
        found.extend(differences("descriptors", &self.descriptors, &before.descriptors));
        if self.pool > 0 {
            found.push(format!("{} threads {POOL}", self.pool));
        }
        found
    }
}

fn differences(what: &str, now: &BTreeMap<String, usize>, before: &BTreeMap<String, usize>) -> Vec<String> {
    let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
    let count = |counts: &BTreeMap<String, usize>, name| counts.get(name).copied().unwrap_or(0);
    let pairs = names.into_iter().map(|name| (name, count(now, name), count(before, name)));
    let differ = pairs.filter(|(_, now, before)| now != before);
    differ.map(|(name, now, before)| format!("{now} {what} {name}, before {before}")).collect()
}

/// How often each name occurs among the entries of a directory; those that are gone meanwhile have none.
fn count(directory: &Path, name: impl Fn(PathBuf) -> Option<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("the process is there").flatten() {
        if let Some(name) = name(entry.path()) {
            *counts.entry(name.trim().to_owned()).or_default() += 1;
        }
    }
    counts
}

/// What a descriptor is, without what tells it from others of its kind.
fn kind(target: &Path) -> String {
    let target = target.display().to_string();
    let target = target.trim_start_matches('/');
    match target.split_once(':') {
        Some((kind @ ("socket" | "pipe" | "memfd"), _)) => kind.to_owned(),
        _ => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::wait;

    fn held(threads: &[(&str, usize)], pool: usize, sockets: usize) -> Holdings {
        let threads = threads.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Holdings { threads, pool, descriptors: BTreeMap::from([("socket".to_owned(), sockets)]) }
    }

    #[test]
    fn what_was_exchanged_for_something_else_is_named() {
        let before = held(&[("log", 1), ("old", 1)], 1, 3);
        assert!(held(&[("log", 1), ("old", 1)], 0, 3).differences(&before).is_empty());
        let found = held(&[("log", 1), ("new", 1)], 1, 2).differences(&before);
        let expected = [
            "1 threads new, before 0",
            "0 threads old, before 1",
            "2 descriptors socket, before 3",
            "1 threads tokio-rt-worker",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_process_holds_its_threads_and_files_by_name() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display().to_string();
        let ((started, running), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
        let thread = std::thread::Builder::new().name("held".to_owned()).spawn(move || {
            let _ = started.send(());
            ended.recv()
        });
        running.recv().expect("the thread has its name");
        let held = Holdings::of(std::process::id());
        drop(end);
        let _ = thread.expect("a thread").join();
        assert_eq!((held.threads["held"], held.descriptors[path.trim_start_matches('/')]), (1, 1));
        drop(file);
        // The kernel shows a thread for a moment after it was joined.
        wait::until("the thread is gone", || {
            let after = Holdings::of(std::process::id()).differences(&held);
            after.contains(&"0 threads held, before 1".to_owned()).then_some(())
        });
    }
}
