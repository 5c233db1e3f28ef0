//! `deduplicate`: a task that is done is not run again, whoever lost its acknowledgement, and whatever the disk does.

use std::fs;
use std::path::PathBuf;

use lapin::BasicProperties;
use rustix::process::Signal;
use serde_json::Value;
use warren_tests::ledger::{self, Entry};
use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

/// A home with the ledger fixture, its queue with these keys and a state directory beside the configuration.
fn stage(name: &str, queue: &str) -> (Home, Broker) {
    let home = Home::new(&Node::shared().uri(), name);
    home.install("fixture-ledger");
    configure(&home, queue);
    (home, Broker::connect(&Node::shared().uri()))
}

fn configure(home: &Home, queue: &str) {
    let retry = "retry = { attempts = 2, delay = \"250ms\", jitter = 0.0 }";
    let rest = home.scenario("ledger", "ledger", retry);
    let daemon = format!("state_dir = \"{}\"", home.path("state").display());
    home.configure(Keys { queue, daemon: &daemon, rest: &rest, ..Keys::default() });
}

fn starts(home: &Home, id: &str) -> Vec<Entry> {
    let entries = ledger::read(&home.path("record"));
    entries.into_iter().filter(|entry| entry.what == "start" && entry.id == id).collect()
}

/// The files of the queue's memory, and how long they are together.
fn files(home: &Home) -> (Vec<PathBuf>, u64) {
    let Ok(entries) = fs::read_dir(home.path("state/done")) else { return (Vec::new(), 0) };
    let paths = entries.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with("lock"));
    let paths: Vec<PathBuf> = paths.collect();
    let length = paths.iter().filter_map(|path| fs::metadata(path).ok()).map(|data| data.len()).sum();
    (paths, length)
}

/// Waits until so many tasks are on disk, each in a record of 24 bytes behind the 16 that a file begins with.
fn wait_recorded(home: &Home, tasks: u64) {
    wait::until(&format!("{tasks} tasks on disk"), || (files(home).1 == 16 + 24 * tasks).then_some(()));
}

fn memory(daemon: &Daemon) -> Value {
    daemon.status()["queues"][0]["deduplication"].clone()
}

#[test]
fn a_task_that_comes_again_when_it_is_done_is_acknowledged_without_a_run() {
    let (home, broker) = stage("dedup_again", "deduplicate = \"1h\"");
    let mut daemon = Daemon::start(&home);
    for (id, text) in [("a", "Ledger ok"), ("a", "Ledger ok"), ("a", "Ledger other"), ("b", "Ledger ok")] {
        broker.publish(home.queue(), id, text);
    }
    broker.publish(home.queue(), "", "Ledger ok");
    broker.publish(home.queue(), "", "Ledger ok");
    daemon.wait_count("deduplicated", 1);
    daemon.wait_count("done", 5);
    daemon.wait_log(0, &["INFO", "task_id=a", "done before"]);
    assert_eq!(starts(&home, "a").len(), 2, "one of each text");
    assert_eq!(starts(&home, "b").len(), 1);
    assert_eq!(memory(&daemon)["tasks"], 3, "those with an id of their producer's");
    assert!(daemon.terminate().success());
    assert_eq!(broker.depth(home.queue()), Some(0));
    wait_recorded(&home, 3);
}

/// Clients that count their requests from 1.
#[test]
fn requests_with_the_same_id_of_senders_that_each_wait_for_an_answer_both_run() {
    let (home, broker) = stage("dedup_requests", "deduplicate = \"1h\"");
    let daemon = Daemon::start(&home);
    for who in ["alice", "carol"] {
        let replies = format!("dedup_requests.{who}");
        broker.declare(&replies, &[]);
        let properties =
            BasicProperties::default().with_message_id("1".into()).with_reply_to(replies.as_str().into());
        broker.publish_with(home.queue(), properties.clone(), b"Ledger ok");
        broker.publish_with(home.queue(), properties, b"Ledger ok");
        assert_eq!(broker.take(&replies).header("x-warren-task").as_deref(), Some("1"));
    }
    daemon.wait_count("done", 2);
    daemon.wait_count("deduplicated", 2);
    assert_eq!(starts(&home, "1").len(), 2);
}

#[test]
fn without_the_key_it_is_run_again() {
    let (home, broker) = stage("dedup_off", "");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "a", "Ledger ok");
    broker.publish(home.queue(), "a", "Ledger ok");
    daemon.wait_count("done", 2);
    assert_eq!(memory(&daemon), Value::Null);
    assert!(!home.path("state").exists());
}

/// The daemon stands still between the record and the acknowledgement, and is killed there.
#[test]
fn a_daemon_that_is_killed_before_the_acknowledgement_does_not_run_the_task_again() {
    for (name, text, tasks) in
        [("plain", "Ledger ok", &["t"][..]), ("follow_ups", "Ledger emit 2", &["t", "t/1", "t/2"])]
    {
        let (home, broker) = stage(&format!("dedup_killed_{name}"), "deduplicate = \"1h\"\nworkers = 1");
        let gate = home.path("gate");
        fs::write(&gate, "").expect("write");
        let failpoints = format!("settle::before-ack=return(hold {})", gate.display());
        let mut daemon = Daemon::spawn(&home, &[("FAILPOINTS", &failpoints)]);
        daemon.wait_notified(0, "READY=1");
        broker.publish(home.queue(), "t", text);
        wait::until("the daemon stands still", || home.path("gate.held").exists().then_some(()));
        wait_recorded(&home, 1);
        daemon.kill();
        fs::remove_file(&gate).expect("remove");

        let mut daemon = Daemon::start(&home);
        daemon.wait_count("deduplicated", 1);
        wait::until("everything is settled", || (broker.family_depth(home.queue()) == 0).then_some(()));
        assert!(daemon.terminate().success());
        assert_eq!(broker.family_depth(home.queue()), 0);
        for id in tasks {
            assert_eq!(starts(&home, id).len(), 1, "{name}: {id}");
        }
    }
}

/// Until all its follow-ups are confirmed a task is not done: it runs again, and what was published twice runs once.
#[test]
fn a_task_is_not_done_before_its_follow_ups_are() {
    let (home, broker) = stage("dedup_follow_ups", "deduplicate = \"1h\"\nworkers = 1");
    let mut daemon = Daemon::spawn(&home, &[("FAILPOINTS", "settle::after-copy=1*off->1*return(kill)")]);
    daemon.wait_notified(0, "READY=1");
    broker.publish(home.queue(), "t", "Ledger emit 2");
    daemon.wait_end();
    let daemon = Daemon::start(&home);
    daemon.wait_count("done", 3);
    daemon.wait_count("deduplicated", 2);
    assert_eq!(starts(&home, "t").len(), 2);
    assert_eq!((starts(&home, "t/1").len(), starts(&home, "t/2").len()), (1, 1));
}

#[test]
fn a_duplicate_of_a_running_task_waits_for_its_end() {
    let (home, broker) = stage("dedup_duplicate", "deduplicate = \"1h\"\nworkers = 4");
    let mut daemon = Daemon::start(&home);
    for _ in 0..3 {
        broker.publish(home.queue(), "t", "Ledger hold gate");
    }
    broker.publish(home.queue(), "u", "Ledger ok");
    daemon.wait_count("done", 1);
    // The quick one may be done before the host of the first has started.
    wait::until("one runs, two wait", || {
        let queue = daemon.status()["queues"][0].clone();
        (queue["running"] == 1 && queue["waiting"] == 2).then_some(())
    });
    home.release("gate");
    daemon.wait_count("deduplicated", 2);
    assert_eq!(starts(&home, "t").len(), 1);

    // Duplicates that wait are given back with everything else.
    for _ in 0..2 {
        broker.publish(home.queue(), "v", "Ledger hold second");
    }
    wait::until("one runs, one waits", || {
        let queue = daemon.status()["queues"][0].clone();
        (queue["running"] == 1 && queue["waiting"] == 1).then_some(())
    });
    daemon.signal(Signal::TERM);
    broker.wait_depth(home.queue(), 1);
    home.release("second");
    assert!(daemon.wait_end().success());
    assert_eq!(broker.depth(home.queue()), Some(1));
}

#[test]
fn a_task_is_cancelled_with_its_duplicates() {
    let (home, broker) = stage("dedup_cancelled", "deduplicate = \"1h\"\nworkers = 4");
    let daemon = Daemon::start(&home);
    for _ in 0..3 {
        broker.publish(home.queue(), "t", "Ledger hold gate");
    }
    wait::until("one runs, two wait", || {
        let queue = daemon.status()["queues"][0].clone();
        (queue["running"] == 1 && queue["waiting"] == 2).then_some(())
    });
    let reply = daemon.ask(&["cancel", "t"]);
    assert_eq!(reply["cancelled"].as_array().map(Vec::len), Some(3), "{reply}");
    daemon.wait_count("dead", 3);
    home.release("gate");
    broker.publish(home.queue(), "t", "Ledger hold gate");
    daemon.wait_count("done", 1);
    assert_eq!(starts(&home, "t").len(), 2, "what was cancelled was not done");
}

#[test]
fn a_duplicate_of_a_task_that_failed_is_run_and_then_the_retry_is_not() {
    let (home, broker) = stage("dedup_retry", "deduplicate = \"1h\"\nworkers = 4");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "t", "Ledger until 2");
    broker.publish(home.queue(), "t", "Ledger until 2");
    daemon.wait_count("done", 1);
    daemon.wait_count("deduplicated", 1);
    let attempts: Vec<u32> = starts(&home, "t").iter().map(|entry| entry.attempt).collect();
    assert_eq!(attempts, [1, 1, 2]);
}

#[test]
fn after_the_window_it_is_run_again() {
    let (home, broker) = stage("dedup_window", "deduplicate = \"1s\"");
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "t", "Ledger ok");
    daemon.wait_count("done", 1);
    wait::until("the second run", || {
        broker.publish(home.queue(), "t", "Ledger ok");
        (starts(&home, "t").len() == 2).then_some(())
    });
    let runs = starts(&home, "t");
    let apart = runs[1].at - runs[0].at;
    assert!(apart >= 1_000_000, "{apart} µs");
}

#[test]
fn a_restart_remembers_and_a_damaged_file_costs_only_its_end() {
    let (home, broker) = stage("dedup_restart", "deduplicate = \"1h\"");
    let mut daemon = Daemon::start(&home);
    broker.publish_all(home.queue(), "t", (0..20).map(|_| "Ledger ok".to_owned()));
    daemon.wait_count("done", 20);
    assert!(daemon.terminate().success());
    assert_eq!(files(&home).1, 16 + 24 * 20, "all of it is written when the daemon has ended");
    let path = files(&home).0.remove(0);
    let mut bytes = fs::read(&path).expect("read");
    bytes.truncate(16 + 24 * 10 + 7);
    fs::write(&path, bytes).expect("write");

    let mut daemon = Daemon::start(&home);
    daemon.wait_log(0, &["WARN", "cannot be read", "bytes=7"]);
    broker.publish_all(home.queue(), "t", (0..20).map(|_| "Ledger ok".to_owned()));
    daemon.wait_count("deduplicated", 10);
    daemon.wait_count("done", 10);
    assert!(daemon.terminate().success());
    wait_recorded(&home, 20);
}

#[test]
fn a_reload_turns_it_on_and_off() {
    let (home, broker) = stage("dedup_reload", "");
    let daemon = Daemon::start(&home);
    configure(&home, "deduplicate = \"1h\"");
    assert_eq!(daemon.reload()["ok"], true);
    broker.publish(home.queue(), "t", "Ledger ok");
    broker.publish(home.queue(), "t", "Ledger ok");
    daemon.wait_count("deduplicated", 1);
    configure(&home, "");
    assert_eq!(daemon.reload()["ok"], true);
    broker.publish(home.queue(), "t", "Ledger ok");
    daemon.wait_count("done", 2);
    configure(&home, "deduplicate = \"1h\"");
    assert_eq!(daemon.reload()["ok"], true);
    broker.publish(home.queue(), "t", "Ledger ok");
    daemon.wait_count("deduplicated", 2);
}

/// Has the daemon in a mount namespace of its own, where `mount` makes a file system at its state directory.
fn on_its_own_disk(name: &str, prepare: &str, error: &str, repair: Option<&str>) {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not tested: only root can mount a small file system");
    }
    let (home, broker) = stage(name, "deduplicate = \"1h\"");
    let state = home.path("state");
    fs::create_dir(&state).expect("mkdir");
    let script = format!("mount -t tmpfs -o size=64k none \"$0\" && {prepare} && exec \"$@\"");
    let state = state.to_str().expect("UTF-8");
    let mut daemon = Daemon::spawn_by(&["unshare", "-m", "sh", "-c", &script, state], &home, &[]);
    daemon.wait_notified(0, "READY=1");
    broker.publish(home.queue(), "t", "Ledger ok");
    daemon.wait_count("done", 1);
    broker.publish(home.queue(), "t", "Ledger ok");
    daemon.wait_count("deduplicated", 1);
    wait::until("the status shows it", || {
        memory(&daemon)["fault"].as_str().is_some_and(|fault| fault.contains(error)).then_some(())
    });
    daemon.wait_log(0, &["WARN", "in memory only", error]);
    broker.publish_all(home.queue(), "more", (0..100).map(|_| "Ledger ok".to_owned()));
    daemon.wait_count("done", 101);
    let warned = daemon.log().since(0).iter().filter(|line| line.contains("in memory only")).count();
    assert_eq!(warned, 1, "it is said once");
    let Some(repair) = repair else { return };
    let pid = daemon.pid().to_string();
    let status = std::process::Command::new("nsenter")
        .args(["-t", &pid, "-m", "sh", "-c", repair, state])
        .status()
        .expect("nsenter is there (util-linux)");
    assert!(status.success());
    let mut n = 0;
    wait::until("it is written again", || {
        n += 1;
        broker.publish(home.queue(), &format!("late-{n}"), "Ledger ok");
        memory(&daemon)["fault"].is_null().then_some(())
    });
    daemon.wait_log(0, &["INFO", "remembered on disk again"]);
    assert!(daemon.terminate().success());
}

#[test]
fn a_full_disk_stops_no_task_and_is_used_again_when_there_is_room() {
    let fill = "mkdir \"$0/done\" && { cat /dev/zero > \"$0/filler\" 2>/dev/null; true; }";
    on_its_own_disk("dedup_full", fill, "No space left", Some("rm \"$0/filler\""));
}

#[test]
fn a_read_only_disk_stops_no_task() {
    on_its_own_disk("dedup_read_only", "mount -o remount,ro \"$0\"", "Read-only file system", None);
}
