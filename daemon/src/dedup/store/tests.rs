//! The thread with real files.

use super::*;

const WINDOW: Duration = Duration::from_secs(3600);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("it answers") })
}

fn store_in(directory: PathBuf) -> Store {
    Store { directory, thread: None }
}

fn load(store: &mut Store, queue: &str) -> Vec<Segment> {
    let answer =
        store.carry_out(StoreOrder::Load { queue: queue.into(), window: WINDOW }).expect("an answer");
    let mut found = block_on(answer).unwrap();
    found.sort_by_key(|segment| segment.number);
    found
}

fn record(store: &mut Store, queue: &str, segment: u64, fingerprint: u128) {
    store.carry_out(StoreOrder::Record { queue: queue.into(), segment, fingerprint, at: UnixMs::now().0 });
}

fn fingerprints(found: &[Segment]) -> Vec<(u64, usize)> {
    found.iter().map(|segment| (segment.number, segment.fingerprints.len())).collect()
}

#[test]
fn what_was_recorded_is_loaded_by_the_next_daemon_queue_by_queue() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/by the way");
    let mut store = store_in(path.clone());
    for fingerprint in 0..1000 {
        record(&mut store, "task_queue", 1 + u64::from(fingerprint >= 600), fingerprint);
        record(&mut store, "other/queue", 1, fingerprint);
    }
    block_on(store.close());
    let mut store = store_in(path);
    assert_eq!(fingerprints(&load(&mut store, "task_queue")), [(1, 600), (2, 400)]);
    assert_eq!(fingerprints(&load(&mut store, "other/queue")), [(1, 1000)]);
    assert_eq!(fingerprints(&load(&mut store, "other_queue")), []);
    store.carry_out(StoreOrder::Forget { queue: "task_queue".into(), oldest: 2 });
    assert_eq!(fingerprints(&load(&mut store, "task_queue")), [(2, 400)]);
    record(&mut store, "task_queue", 2, 5000);
    assert_eq!(fingerprints(&load(&mut store, "task_queue")), [(2, 401)]);
    block_on(store.close());
}

#[test]
fn a_damaged_end_is_cut_off_and_the_file_continued() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("{}.3", stem("q")));
    let mut store = store_in(directory.path().to_owned());
    record(&mut store, "q", 3, 1);
    block_on(store.close());
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend([0; 48]);
    fs::write(&path, bytes).unwrap();
    let mut store = store_in(directory.path().to_owned());
    assert_eq!(fingerprints(&load(&mut store, "q")), [(3, 1)]);
    record(&mut store, "q", 3, 2);
    block_on(store.close());
    let mut store = store_in(directory.path().to_owned());
    assert_eq!(fingerprints(&load(&mut store, "q")), [(3, 2)]);
    block_on(store.close());
}

#[test]
fn a_directory_that_cannot_be_used_is_a_fault_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let mut store = store_in(file.join("below"));
    assert_eq!(fingerprints(&load(&mut store, "q")), []);
    assert!(store.fault().is_some_and(|fault| fault.contains("file/below")));
    record(&mut store, "q", 1, 1);
    block_on(store.close());
}

#[test]
fn a_second_daemon_keeps_its_hands_off() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = store_in(directory.path().to_owned());
    record(&mut first, "q", 1, 1);
    assert_eq!(fingerprints(&load(&mut first, "q")), [(1, 1)]);
    let mut second = store_in(directory.path().to_owned());
    assert_eq!(fingerprints(&load(&mut second, "q")), []);
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
