//! The thread with real files.

use super::*;

const WINDOW: Duration = Duration::from_secs(3600);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("it answers") })
}

fn load(store: &Store, queue: &str) -> Vec<Generation> {
    let (reply, answer) = oneshot::channel();
    store.send(Order::Load { queue: queue.into(), window: WINDOW, reply });
    let mut found = block_on(answer).unwrap();
    found.sort_by_key(|generation| generation.number);
    found
}

fn record(store: &Store, queue: &str, generation: u64, print: u128) {
    store.send(Order::Record { queue: queue.into(), generation, print, at: now_ms() });
}

fn prints(found: &[Generation]) -> Vec<(u64, usize)> {
    found.iter().map(|generation| (generation.number, generation.prints.len())).collect()
}

#[test]
fn what_was_recorded_is_loaded_by_the_next_daemon_queue_by_queue() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/by the way");
    let store = Store::start(path.clone()).unwrap();
    for print in 0..1000 {
        record(&store, "task_queue", 1 + u64::from(print >= 600), print);
        record(&store, "other/queue", 1, print);
    }
    block_on(store.close());
    let store = Store::start(path).unwrap();
    assert_eq!(prints(&load(&store, "task_queue")), [(1, 600), (2, 400)]);
    assert_eq!(prints(&load(&store, "other/queue")), [(1, 1000)]);
    assert_eq!(prints(&load(&store, "other_queue")), []);
    store.send(Order::Forget { queue: "task_queue".into(), oldest: 2 });
    assert_eq!(prints(&load(&store, "task_queue")), [(2, 400)]);
    record(&store, "task_queue", 2, 5000);
    assert_eq!(prints(&load(&store, "task_queue")), [(2, 401)]);
    block_on(store.close());
}

#[test]
fn a_damaged_end_is_cut_off_and_the_file_continued() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("{}.3", stem("q")));
    let store = Store::start(directory.path().to_owned()).unwrap();
    record(&store, "q", 3, 1);
    block_on(store.close());
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend([0; 48]);
    fs::write(&path, bytes).unwrap();
    let store = Store::start(directory.path().to_owned()).unwrap();
    assert_eq!(prints(&load(&store, "q")), [(3, 1)]);
    record(&store, "q", 3, 2);
    block_on(store.close());
    let store = Store::start(directory.path().to_owned()).unwrap();
    assert_eq!(prints(&load(&store, "q")), [(3, 2)]);
    block_on(store.close());
}

#[test]
fn a_directory_that_cannot_be_used_is_a_fault_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let store = Store::start(file.join("below")).unwrap();
    assert_eq!(prints(&load(&store, "q")), []);
    assert!(store.fault().is_some_and(|fault| fault.contains("file/below")));
    record(&store, "q", 1, 1);
    block_on(store.close());
}

#[test]
fn a_second_daemon_keeps_its_hands_off() {
    let directory = tempfile::tempdir().unwrap();
    let first = Store::start(directory.path().to_owned()).unwrap();
    record(&first, "q", 1, 1);
    assert_eq!(prints(&load(&first, "q")), [(1, 1)]);
    let second = Store::start(directory.path().to_owned()).unwrap();
    assert_eq!(prints(&load(&second, "q")), []);
    assert!(second.fault().is_some_and(|fault| fault.contains("another warrend")));
    assert_eq!(first.fault(), None);
    block_on(second.close());
    block_on(first.close());
}

#[test]
fn names_of_files_are_plain_short_and_different() {
    let long = "q".repeat(230);
    let stems = ["a/b", "a_b", "../x", &long, &format!("{long}r")].map(stem);
    for stem in &stems {
        assert!(stem.len() < 100 && !stem.contains(['/', '.']), "{stem}");
    }
    assert_eq!(stems.iter().collect::<std::collections::HashSet<_>>().len(), stems.len());
}
